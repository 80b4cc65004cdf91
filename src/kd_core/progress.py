"""Progress bars. Sacred captures the output, so whether anybody watches must be asked before a run starts."""

from __future__ import annotations

import os
import sys
from typing import Any

from tqdm import tqdm

VARIABLE = "KD_MARL_PROGRESS"


def remember_terminal() -> None:
    """Note for this process and its children whether somebody is watching; ``KD_MARL_PROGRESS=0|1`` decides if set."""
    os.environ.setdefault(VARIABLE, "1" if sys.stderr.isatty() else "0")


def wanted() -> bool:
    """Whether bars should be drawn."""
    return os.environ.get(VARIABLE, "0") == "1"


def bar(description: str, total: int, unit: str, done: int = 0, leave: bool = True, shape: str | None = None) -> Any:
    """A progress bar on stderr, or one that stays silent if nobody is watching.

    Args:
        description: what is going on.
        total: how many units there are.
        unit: their name, singular.
        done: how many are done already.
        leave: whether the bar stays when it is closed.
        shape: tqdm's ``bar_format``; None: its own.
    """
    return tqdm(
        desc=description,
        total=total,
        unit=unit,
        initial=done,
        leave=leave,
        file=sys.stderr,
        mininterval=0.5,
        bar_format=shape,
        disable=not wanted(),
    )
