"""Whether to draw progress bars: Sacred captures the output, so it must be asked before a run starts."""

from __future__ import annotations

import os
import sys

VARIABLE = "KD_MARL_PROGRESS"


def remember_terminal() -> None:
    """Note for this process and its children whether somebody is watching; ``KD_MARL_PROGRESS=0|1`` decides if set."""
    os.environ.setdefault(VARIABLE, "1" if sys.stderr.isatty() else "0")


def wanted() -> bool:
    """Whether bars should be drawn."""
    return os.environ.get(VARIABLE, "0") == "1"
