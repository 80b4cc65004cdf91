"""gymma's ``env_args``, as the back ends read them that step many of its environments in one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class GymmaArgs:
    """The ``env_args`` that every task has.

    Attributes:
        key: of the task.
        time_limit: steps after which an episode is truncated.
        seed: of the first environment.
        common_reward: one reward for the team, or each agent's own.
        mean: the team's reward is the mean over the agents, not the sum.
        others: what the task itself takes.
    """

    key: str
    time_limit: int
    seed: int
    common_reward: bool
    mean: bool
    others: dict[str, Any]

    @classmethod
    def read(cls, env_args: dict[str, Any]) -> GymmaArgs | None:
        """Read ``env_args``; None where gymma would wrap the task, or refuse a value."""
        known = {"time_limit": 0, "seed": 0, "common_reward": True, "reward_scalarisation": "sum"}
        others = {name: value for name, value in env_args.items() if name not in known}
        limit, seed, common, scalarisation = (env_args.get(name, default) for name, default in known.items())
        whole = type(limit) is int and limit >= 1 and type(seed) is int
        if not whole or scalarisation not in ("sum", "mean") or others.pop("pretrained_wrapper", None) is not None:
            return None
        return cls(str(others.pop("key", None)), limit, seed, common, scalarisation == "mean", others)

    def share(self, rewards: np.ndarray) -> np.ndarray:
        """Compute the team's reward ``(k, 1)`` of the agents' ``(k, agents)``, or return each agent's own."""
        if not self.common_reward:
            return rewards
        return (np.mean if self.mean else np.sum)(rewards, axis=1, keepdims=True)
