"""When a suite will end: what finished runs of the same kind took, and how the rest fits on the processors."""

from __future__ import annotations

import heapq
import statistics
from collections import defaultdict
from collections.abc import Sequence


class Durations:
    """How long jobs take."""

    def __init__(self) -> None:
        self._of: dict[str, list[float]] = defaultdict(list)

    def add(self, kind: str, seconds: float) -> None:
        """Note a finished job; what somebody else made is not known and counts for nothing."""
        if seconds > 0:
            for name in (kind, _method(kind), ""):
                self._of[name].append(seconds)

    def of(self, kind: str) -> float | None:
        """What a job will take: the median of its kind, else of its method, else of all jobs; None: unknown."""
        for name in (kind, _method(kind), ""):
            if self._of[name]:
                return statistics.median(self._of[name])
        return None


def seconds_left(running: Sequence[float], waiting: Sequence[float], slots: int) -> float:
    """When the last job ends if each starts as soon as there is room.

    Args:
        running: of what runs: seconds that it goes on for.
        waiting: of what waits, in its order: seconds it takes.
        slots: how many run at a time.
    """
    ends = list(running)
    heapq.heapify(ends)
    last = max(ends, default=0.0)
    for seconds in waiting:
        begin = heapq.heappop(ends) if len(ends) >= slots else 0.0
        heapq.heappush(ends, begin + seconds)
        last = max(last, begin + seconds)
    return last


def _method(kind: str) -> str:
    return "*/" + kind.partition("/")[2]
