"""VDN: the team's value is the sum of the agents' values."""

from __future__ import annotations

from types import SimpleNamespace

import torch as th
from torch import nn


class VDNMixer(nn.Module):
    """VDN's mixer, a sum without parameters."""

    def __init__(self, args: SimpleNamespace | None = None) -> None:
        """Accept `args`, so that every mixer is built alike."""
        super().__init__()

    def forward(self, agent_qs: th.Tensor, states: th.Tensor | None = None) -> th.Tensor:
        """Sum values `(batch, time, agents)` to `(batch, time, 1)`; states are not used."""
        return agent_qs.sum(dim=2, keepdim=True)
