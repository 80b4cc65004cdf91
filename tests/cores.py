"""Which cores a process runs on: one for each process of tests, every one for the programs that they start."""

from __future__ import annotations

import os


def keep_to_one(worker: str) -> None:
    """Keep this process of tests, ``gw0``, ``gw1`` and so on, and what it forks to a core.

    An environment in a process of its own takes several times as long where every message between it and the test wakes
    another core that is busy with other tests.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


def use_all() -> None:
    """Give this process every core, as if a person had started it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
