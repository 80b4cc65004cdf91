"""How many threads torch computes with.

One by default, as on EPyMARL: small networks gain nothing from more, and environment workers need the other cores. A
learner whose products are large takes the cores that other programs leave free: while it learns, nobody steps an
environment. A thread too many is worse than none: each product waits for its slowest thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_VARIABLE = "OMP_NUM_THREADS"
_STAT = Path("/proc/stat")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
# Learning time after which the cores are looked at again: many ticks of the system's clock.
_LOOK_S = 1.0
_given: str | None = None


def limit() -> None:
    """Set one thread, until a learner's crew is larger; call it before torch is imported."""
    global _given
    _given = os.environ.get(_VARIABLE)
    os.environ.setdefault(_VARIABLE, "1")


def cores() -> set[int]:
    """Return the cores that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


@dataclass(frozen=True)
class Usage:
    """Times in seconds, each since some beginning.

    Attributes:
        clock: of the wall.
        idle: summed over the cores that this process may use.
        own: processor time of this process, all its threads.
    """

    clock: float
    idle: float
    own: float


def usage() -> Usage | None:
    """Read the times; None where the system does not tell how long its cores were idle."""
    try:
        rows = [line.split() for line in _STAT.read_text().splitlines() if line.startswith("cpu")]
    except OSError:
        return None
    ours = {f"cpu{core}" for core in cores()}
    # Columns: user, nice, system, idle, waiting for a disk.
    ticks = sum(int(row[4]) + int(row[5]) for row in rows if row[0] in ours)
    return Usage(time.monotonic(), ticks / _TICKS_PER_S, time.process_time())


class Crew:
    """The threads of a learner.

    Attributes:
        size: threads at present.
    """

    def __init__(self, asked: int, read: Callable[[], Usage | None] = usage) -> None:
        """Begin with one thread where others can be looked for: on a busy machine the first look may take long.

        Args:
            asked: that many, always; 0: as many as ``OMP_NUM_THREADS`` says, always, or those that are free.
            read: the times, for tests.
        """
        given = int(_given) if _given is not None and _given.isdigit() else 0
        fixed = asked or given
        self.most = max(1, fixed or len(cores()))
        self._read = (lambda: None) if fixed or self.most == 1 else read
        self.size = self.most if self._read() is None else 1
        self._seconds = self._others = 0.0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Watch a part of the learning; then ``size`` fits what other programs left free while it lasted."""
        before = self._read()
        yield
        after = self._read()
        if before is None or after is None:
            return
        seconds = after.clock - before.clock
        self._seconds += seconds
        self._others += self.most * seconds - (after.idle - before.idle) - (after.own - before.own)
        if self._seconds >= _LOOK_S:
            free = self.most - self._others / self._seconds
            self.size = min(self.most, max(1, round(free)))
            self._seconds = self._others = 0.0
