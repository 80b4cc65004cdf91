"""Conversion of the host's ``EpisodeBatch`` to plain tensors that mark exactly the steps that were taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Episodes:
    """A block of whole episodes; ``time`` is the number of steps of the longest.

    Attributes:
        obs: ``(batch, time + 1, agents, obs_size)`` float32, the observation after the last step included.
        state: ``(batch, time + 1, state_size)`` float32.
        avail_actions: ``(batch, time + 1, agents, actions)`` int32.
        actions: ``(batch, time, agents)`` int64.
        reward: ``(batch, time, 1 or agents)`` float32.
        terminated: ``(batch, time, 1)`` float32, 1 at a true terminal step; 0 throughout where time ran out.
        filled: ``(batch, time, 1)`` float32, 1 where a step was taken.
    """

    obs: Tensor
    state: Tensor
    avail_actions: Tensor
    actions: Tensor
    reward: Tensor
    terminated: Tensor
    filled: Tensor

    def to(self, device: torch.device | str) -> Episodes:
        """Move every tensor, in a copy."""
        return Episodes(**{name: x.to(device) for name, x in vars(self).items()})

    @property
    def length(self) -> Tensor:
        """Steps of each episode, int64 ``(batch,)``."""
        return self.filled.sum(dim=(1, 2)).long()

    @property
    def observed(self) -> Tensor:
        """Where the episode has an observation, bool ``(batch, time + 1)``: at every step, and after the last one."""
        steps = torch.arange(self.filled.shape[1] + 1, device=self.filled.device)
        return steps <= self.length.unsqueeze(1)


def from_host(batch: Any) -> Episodes:
    """Convert a host's batch to :class:`Episodes`.

    ``filled`` marks the steps 0..l of an episode of l steps, so l is one less than their count. EPyMARL's own mask is
    ``filled * (1 - terminated before)``. It would retain a step never taken after an episode cut by its time limit.
    """
    filled = batch["filled"].squeeze(-1)
    length = filled.sum(dim=1, keepdim=True) - 1
    steps = torch.arange(filled.shape[1] - 1, device=filled.device)
    taken = (steps < length).unsqueeze(-1).float()
    return Episodes(
        obs=batch["obs"],
        state=batch["state"],
        avail_actions=batch["avail_actions"],
        actions=batch["actions"][:, :-1].squeeze(-1),
        reward=batch["reward"][:, :-1],
        terminated=batch["terminated"][:, :-1].float() * taken,
        filled=taken,
    )
