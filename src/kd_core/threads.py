"""How many threads torch computes with.

One by default, as on EPyMARL: small networks gain nothing from more, and environment workers need the other cores. A
learner whose products are large takes every core: while it learns, nobody steps an environment.
"""

from __future__ import annotations

import os

_VARIABLE = "OMP_NUM_THREADS"
_given: str | None = None


def limit() -> None:
    """Set one thread, until a learner asks for :func:`count`; call it before torch is imported."""
    global _given
    _given = os.environ.get(_VARIABLE)
    os.environ.setdefault(_VARIABLE, "1")


def count(asked: int) -> int:
    """Return ``asked`` threads; 0: as many as ``OMP_NUM_THREADS`` says, or every core that this process may use."""
    every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return asked or max(1, int(_given) if _given is not None and _given.isdigit() else every)
