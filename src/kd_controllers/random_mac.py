"""The random policy, whose score is the zero of normalised scores."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from kd_controllers.policy_mac import PolicyMAC


class RandomMAC(PolicyMAC):
    """Controller that plays every available action with the same probability."""

    def __init__(self, args: Any) -> None:
        uniform = {"agent_output_type": "pi_logits", "action_selector": "soft_policies", "test_greedy": False}
        super().__init__(SimpleNamespace(**{**vars(args), **uniform}))
        self.agent = nn.Identity()

    def initial_hidden(self, batch_size: int) -> None:
        """Return None: the policy has no state."""

    def step(self, ep_batch: Any, t: int, hidden: None, bs: Any) -> tuple[Tensor, None]:
        """Return equal logits ``(rows, agents, actions)``, float32."""
        return torch.zeros_like(ep_batch["avail_actions"][:, t][bs], dtype=torch.float32), None
