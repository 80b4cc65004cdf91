"""Which cores a process runs on: a process of tests one, the runs that tests start all that the tests were given."""

from __future__ import annotations

import os

# Tells the processes that tests start which cores the tests were given.
GIVEN = "KD_MARL_TEST_CORES"


def keep_to_one(worker: str) -> None:
    """Keep this process of tests, ``gw0``, ``gw1`` and so on, and what it forks to a core.

    An environment in a process of its own takes several times as long where every message between it and the test wakes
    another core that is busy with other tests.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.environ[GIVEN] = ",".join(map(str, cores))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


def use_all() -> None:
    """Give this process every core that the tests were given."""
    if GIVEN in os.environ:
        os.sched_setaffinity(0, map(int, os.environ[GIVEN].split(",")))
