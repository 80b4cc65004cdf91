"""The tasks that one team plays, side by side in one block of episodes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from epymarl_lite.envs.env_group import Outcome, VectorEnv, Views


class SideBySide:
    """A ``VectorEnv`` whose rows are those of its parts, one part behind the other.

    Args:
        parts: environments whose views have equal sizes.
    """

    def __init__(self, parts: Sequence[VectorEnv]) -> None:
        self.parts = parts
        self._ends = list(itertools.accumulate(part.size for part in parts))
        self.size = self._ends[-1]

    def reset(self) -> Views:
        """Begin an episode in each row."""
        return _joined([part.reset() for part in self.parts])

    def step(self, rows: Sequence[int], actions: np.ndarray) -> Outcome:
        """Step the rows ``rows`` (ascending) with ``actions`` (k, agents)."""
        chosen, outcomes = np.asarray(rows), []
        for part, end in zip(self.parts, self._ends, strict=True):
            mine = (end - part.size <= chosen) & (chosen < end)
            if mine.any():
                outcomes.append(part.step((chosen[mine] - (end - part.size)).tolist(), actions[mine]))
        views, rewards, terminated, truncated, infos = zip(*outcomes, strict=True)
        numbers = tuple(np.concatenate(arrays) for arrays in (rewards, terminated, truncated))
        return Outcome(_joined(views), numbers[0], numbers[1], numbers[2], list(itertools.chain(*infos)))

    def call(self, method: str) -> list[Any]:
        """Call a method of every environment."""
        return [result for part in self.parts for result in part.call(method)]

    def close(self) -> None:
        """Close every environment."""
        for part in self.parts:
            part.close()


def _joined(views: Sequence[Views]) -> Views:
    return Views(*map(np.concatenate, zip(*views, strict=True)))
