"""What has been tried of each run, and the state that follows from it.

A run's result is in its Sacred folder (docs/reference/formats/run.md). Where there is no result yet,
the run's attempts say why: one JSON file a run, written only by the holder of its lock.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path

from kd_core import files
from kd_core.errors import UserError


class State(str, Enum):
    """What a run is now."""

    FINISHED = "finished"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    BROKEN = "broken"
    MISSING = "missing"


class Outcome(str, Enum):
    """How an attempt ended."""

    FINISHED = "finished"
    # By itself, with an error or without a result: the same would happen again.
    FAILED = "failed"
    # By a signal of somebody else's: the machine's want of memory, an operator.
    KILLED = "killed"
    # By the suite, because it was stopped.
    STOPPED = "stopped"


@dataclass(frozen=True)
class Attempt:
    """One try at a run.

    Attributes:
        started: seconds since the epoch.
        ended: the same; None if nobody was left to note it.
        outcome: how it ended; None as above.
        message: what went wrong, one line.
        host: machine of the process that started it.
        pid: that process.
        afresh: tried on request although the run was broken: what was before no longer counts.
    """

    started: float
    host: str = ""
    pid: int = 0
    ended: float | None = None
    outcome: str | None = None
    message: str = ""
    afresh: bool = False


def state_of(finished: bool, held: bool, attempts: Sequence[Attempt], retries: int) -> State:
    """Return a run's state.

    Args:
        finished: whether its result is on disk.
        held: whether somebody is at it.
        attempts: what has been tried, oldest first.
        retries: how often a run that was killed is tried again before it counts as broken.
    """
    if finished:
        return State.FINISHED
    if held:
        return State.RUNNING
    if not attempts:
        return State.MISSING
    if attempts[-1].outcome in (Outcome.FAILED, Outcome.FINISHED) or kills(attempts) > retries:
        # Finished and no result: somebody has taken it away, or what made it is no longer what is asked for.
        return State.MISSING if attempts[-1].outcome == Outcome.FINISHED else State.BROKEN
    return State.INTERRUPTED


def kills(attempts: Sequence[Attempt]) -> int:
    """Count how often in a row a run was killed, up to its last attempt."""
    count = 0
    for attempt in reversed(attempts):
        if attempt.outcome != Outcome.KILLED:
            break
        count += 1
        if attempt.afresh:
            break
    return count


def spent(attempts: Sequence[Attempt]) -> float | None:
    """Return the seconds that attempts took; None if nobody was left to note when one of them ended."""
    seconds = [attempt.ended - attempt.started for attempt in attempts if attempt.ended is not None]
    return sum(seconds) if len(seconds) == len(attempts) else None


class AttemptsLog:
    """The attempts at one run."""

    def __init__(self, file: Path, label: str) -> None:
        self._file, self._label = file, label

    def attempts(self) -> list[Attempt]:
        """Return them, oldest first; none if there is no file, or a damaged one."""
        if not self._file.is_file():
            return []
        try:
            return [Attempt(**facts) for facts in files.read_json(self._file)["attempts"]]
        except (UserError, KeyError, TypeError):
            # A state file is no result: the run is tried as if it were new.
            return []

    def begin(self, afresh: bool = False) -> None:
        """Note that an attempt starts now, by this process."""
        self._write([*self.attempts(), Attempt(time.time(), socket.gethostname(), os.getpid(), afresh=afresh)])

    def end(self, outcome: Outcome, message: str = "") -> None:
        """Note how the last attempt ended."""
        *before, last = self.attempts()
        self._write([*before, replace(last, ended=time.time(), outcome=outcome.value, message=message)])

    def _write(self, attempts: Sequence[Attempt]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(self._file, {"label": self._label, "attempts": [asdict(attempt) for attempt in attempts]})
