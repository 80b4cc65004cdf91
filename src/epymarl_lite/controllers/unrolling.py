"""Running a controller over whole episodes."""

from __future__ import annotations

from typing import Protocol

import torch as th

from epymarl_lite.components.episode_buffer import EpisodeBatch


class Controller(Protocol):
    """The part of a controller's interface with which a learner runs whole episodes."""

    def init_hidden(self, batch_size: int) -> None:
        """Set the hidden states of `batch_size` episodes to zero."""
        ...

    def forward(self, ep_batch: EpisodeBatch, t: int, test_mode: bool = False) -> th.Tensor:
        """Advance all episodes to time `t` and return `(batch, agents, actions)`."""
        ...


def step_by_step(mac: Controller, batch: EpisodeBatch, steps: int) -> th.Tensor:
    """Compute outputs `(batch, steps, agents, actions)` of any controller, one `forward` per step."""
    mac.init_hidden(batch.batch_size)
    return th.stack([mac.forward(batch, t) for t in range(steps)], dim=1)


def unroll(mac: Controller, batch: EpisodeBatch, steps: int) -> th.Tensor:
    """Compute outputs `(batch, steps, agents, actions)` from zero states, in one call if the controller can."""
    at_once = getattr(mac, "forward_episodes", None)
    return step_by_step(mac, batch, steps) if at_once is None else at_once(batch, steps)
