"""When a suite will end: what finished runs of the same kind took, and how the rest fits on the processors."""

from __future__ import annotations

import heapq
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple


class Durations:
    """How long jobs take."""

    def __init__(self) -> None:
        self._of: dict[str, list[float]] = defaultdict(list)

    def add(self, kind: str, seconds: float | None) -> None:
        """Note a finished job; what nobody has noted the time of counts for nothing."""
        if seconds:
            for name in (kind, _method(kind)):
                self._of[name].append(seconds)

    def of(self, kind: str) -> float | None:
        """Estimate the seconds of a job: the median of its kind, else of its method; None: unknown.

        What other methods took says nothing: an export takes a minute where a training takes an hour.
        """
        for name in (kind, _method(kind)):
            if self._of[name]:
                return statistics.median(self._of[name])
        return None


class Load(NamedTuple):
    """A job to come or one that runs: the seconds that it still takes, and its processors."""

    seconds: float
    cpus: int


def seconds_left(running: Sequence[Load], waiting: Sequence[Load], slots: int) -> float:
    """Estimate when the last job ends if each starts, in its order, as soon as its processors are free.

    Args:
        running: what runs.
        waiting: what waits, in its order. One that is larger than the machine runs alone.
        slots: processors.
    """
    ends = list(running)
    heapq.heapify(ends)
    used, now = sum(load.cpus for load in ends), 0.0
    for load in waiting:
        while ends and used + load.cpus > slots:
            ended = heapq.heappop(ends)
            now, used = ended.seconds, used - ended.cpus
        heapq.heappush(ends, Load(now + load.seconds, load.cpus))
        used += load.cpus
    return max((load.seconds for load in ends), default=now)


def _method(kind: str) -> str:
    return "*/" + kind.partition("/")[2]
