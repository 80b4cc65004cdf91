"""Statistics that a runner logs of its episodes."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from epymarl_lite.utils.logging import Logger


class ReturnStats:
    """Returns, lengths and last-step infos of the episodes since the last log.

    Args:
        common_reward: whether a return is one number or one per agent.
    """

    def __init__(self, common_reward: bool) -> None:
        self._common_reward = common_reward
        self._clear()

    def add(self, returns: np.ndarray, lengths: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """Count E episodes: ``returns`` (E, 1 | agents), ``lengths`` (E,) in steps, E dicts of numbers."""
        self._returns.extend(returns)
        self.episodes += len(returns)
        self._sums["ep_length"] += float(lengths.sum())
        for info in infos:
            for key, value in info.items():
                self._sums[key] += float(value)

    def log(self, logger: Logger, t_env: int, prefix: str = "") -> None:
        """Log the means and clear the statistics."""
        returns = np.stack(self._returns)
        if self._common_reward:
            columns = {"return": returns[:, 0]}
        else:
            columns = {f"agent_{agent}_return": column for agent, column in enumerate(returns.T)}
            columns["total_return"] = returns.sum(axis=1)
        for name, column in columns.items():
            logger.log_stat(f"{prefix}{name}_mean", column.mean(), t_env)
            logger.log_stat(f"{prefix}{name}_std", column.std(), t_env)
        for key, total in self._sums.items():
            logger.log_stat(f"{prefix}{key}_mean", total / self.episodes, t_env)
        self._clear()

    def _clear(self) -> None:
        self._returns: list[np.ndarray] = []
        self._sums: dict[str, float] = defaultdict(float)
        self.episodes = 0
