"""What a suite shows while it runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from kd_core import progress
from kd_marl.suite.attempts_log import State

# Labels that a bar has room for.
_SHOWN = 3
# What tqdm would say of the time left takes all runs for alike, and those that are left alone for made.
_SHAPE = "{desc}: {n_fmt}/{total_fmt} |{bar}| {elapsed}{postfix}"


class Show:
    """Progress of a suite.

    Attributes:
        begun: whether anything is printed yet.
    """

    def __init__(self) -> None:
        self.begun = False
        self._bar: Any = None
        self._done = self._total = 0
        self._left = ""
        self._running: set[str] = set()

    def begin(self, done: int, total: int) -> None:
        """Show how much there is to do."""
        self.begun, self._done, self._total = True, done, total
        if progress.wanted():
            self._bar = progress.bar("suite", total, "run", done=done, shape=_SHAPE)
        else:
            self.say(f"{done} of {total} runs are finished, {total - done} are left")

    def tick(self, running: Sequence[str], seconds: float | None) -> None:
        """Show what runs, and when all will be done (None: not known yet)."""
        self._left = "" if seconds is None else f", {_span(seconds)} to go, until {_clock(seconds)}"
        if self._bar is not None:
            more = f" and {len(running) - _SHOWN} more" if len(running) > _SHOWN else ""
            # The end of the line is cut off where the terminal is narrow.
            said = [self._left.removeprefix(", "), ", ".join(running[:_SHOWN]) + more]
            self._bar.set_postfix_str("; ".join(filter(None, said)))
        else:
            for label in running:
                if label not in self._running:
                    self.say(f"running {label}")
        self._running = set(running)

    def closed(self, label: str, state: State, reason: str) -> None:
        """Show that a run has ended, or is left alone."""
        self._done += 1
        if self._done == self._total:
            self._left = ""
        if self._bar is not None:
            self._bar.update(1)
        if self._bar is None or state is State.BROKEN:
            words = "left alone, for want of what it needs" if state is State.MISSING else state.value
            self.say(f"{words} {label}" + (f": {reason}" if reason else ""))

    def say(self, text: str) -> None:
        """Print a line of its own."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(f"{time.strftime('%H:%M:%S')} [{self._done}/{self._total}] {text}{self._left}", flush=True)

    def end(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{max(1, minutes)} min"


def _clock(seconds: float) -> str:
    day = "%H:%M" if seconds < 86400 else "%a %d %b %H:%M"
    return time.strftime(day, time.localtime(time.time() + seconds))
