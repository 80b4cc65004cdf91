"""Progress on stderr: bars on a terminal, else a line now and then where the log goes to a file.

Sacred captures the output, so ``remember_terminal`` asks for a terminal before a run starts.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from tqdm import tqdm

VARIABLE = "KD_MARL_PROGRESS"
# Names a file that takes what a run logs, in place of the console.
LOG_FILE = "KD_MARL_LOG"
# Seconds between two lines where there is no terminal.
LINE_INTERVAL_S = 20.0


def remember_terminal() -> None:
    """Note for this process and its children whether somebody is watching; ``KD_MARL_PROGRESS=0|1`` decides if set."""
    os.environ.setdefault(VARIABLE, "1" if sys.stderr.isatty() else "0")


def wanted() -> bool:
    """Tell whether bars should be drawn."""
    return os.environ.get(VARIABLE, "0") == "1"


def bar(description: str, total: int, unit: str, done: int = 0, leave: bool = True, shape: str | None = None) -> Any:
    """Draw progress on stderr: a bar on a terminal; else lines if the log goes to a file, and nothing if it does not.

    Args:
        description: what is going on.
        total: how many units there are.
        unit: their name, singular.
        done: how many are done already.
        leave: whether the bar stays when it is closed.
        shape: tqdm's ``bar_format``; None: its own.
    """
    lines = not wanted() and bool(os.environ.get(LOG_FILE))
    return (_Lines if lines else tqdm)(
        desc=description,
        total=total,
        unit=unit,
        initial=done,
        leave=leave,
        file=sys.stderr,
        mininterval=LINE_INTERVAL_S if lines else 0.5,
        bar_format=shape,
        disable=not (wanted() or lines),
    )


class _Lines(tqdm):
    """Writes a line in place of a bar."""

    _written: float = 0
    _written_at = 0.0

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write how much is done, unless that was said a moment ago."""
        if self.n and time.monotonic() - self._written_at >= LINE_INTERVAL_S:
            self._write()

    def close(self) -> None:
        """Write the last line; a line stays, so there is nothing to erase."""
        if not self.disable and self.n != self._written:
            self._write()
        self.disable = True

    def _write(self) -> None:
        self._written, self._written_at = self.n, time.monotonic()
        print(f"{self.desc}: {self.n:,} of {self.total:,} {self.unit}s", file=self.fp, flush=True)
