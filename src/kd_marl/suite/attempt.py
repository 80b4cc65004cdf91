"""One attempt at a job, wherever it runs: locked, started, followed to its end, and noted."""

from __future__ import annotations

import signal
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kd_core.errors import UserError
from kd_marl.processes import process
from kd_marl.suite.attempts_log import Outcome
from kd_marl.suite.job import Job
from kd_marl.suite.lock import locked

# How often a running process is looked at, and how often its owner's heartbeat is renewed.
_LOOK_SECONDS = 0.2
_BEAT_SECONDS = 10.0


@dataclass(frozen=True)
class Report:
    """How an attempt ended.

    Attributes:
        outcome: None if there was none, because somebody else is at the run.
        message: what went wrong, one line.
        final: whether it has been retried as often as it may.
    """

    outcome: Outcome | None
    message: str = ""
    final: bool = False


def attempt(job: Job, stop: threading.Event | None = None, wait: float = 1.0, afresh: bool = False) -> Report:
    """Try a job once, unless it has been made meanwhile or somebody else is at it.

    However this ends, its process does not go on.

    Args:
        job: what to do.
        stop: set from another thread to interrupt the run.
        wait: seconds to wait for an owner that may be about to end.
        afresh: what was tried before no longer counts.
    """
    with locked(job.lock, wait) as lock:
        if lock is None:
            return Report(None, "somebody else is at it")
        if job.proof.found() is not None:
            return Report(Outcome.FINISHED)
        if not job.directory.is_dir():
            raise UserError(
                f"{socket.gethostname()} has no {job.directory}: start the suite in a folder that it has too"
            )
        job.attempts_log.begin(afresh)
        with _log_of(job) as log:
            log.write(f"$ {job.line}\n".encode())
            log.flush()
            said = log.tell()
            host = {"EPYMARL_HOME": job.checkout}
            running = process.start(job.command, log, [lock.descriptor], job.directory, host)
        stopping, looks = stop or threading.Event(), 0
        try:
            while running.poll() is None and not stopping.wait(_LOOK_SECONDS):
                looks += 1
                if looks % int(_BEAT_SECONDS / _LOOK_SECONDS) == 0:
                    lock.beat()
            stopped = running.poll() is None
        except BaseException:
            process.stop([running])
            job.attempts_log.end(Outcome.STOPPED)
            raise
        process.stop([running])
        report = judge(running.returncode, job.proof.found(), stopped, job.log, said)
        assert report.outcome is not None, "judged"
        job.attempts_log.end(report.outcome, report.message)
        return report


def _log_of(job: Job) -> BinaryIO:
    """Open its log to write on.

    Raises:
        UserError: it cannot be written.
    """
    try:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        return open(job.log, "ab")
    except OSError as error:
        raise UserError(
            f"cannot write {job.log} ({error.strerror}): give --to a folder that you can write to"
        ) from None


def judge(status: int, found: Path | None, stopped: bool, log: Path, said: int) -> Report:
    """Return how an attempt ended.

    Args:
        status: the process's exit status; negative: the signal that ended it.
        found: the run's result, if there is one.
        stopped: whether we ended it.
        log: what it said, after what earlier attempts said.
        said: bytes of the log that are theirs.
    """
    if found is not None:
        return Report(Outcome.FINISHED)
    if stopped:
        return Report(Outcome.STOPPED)
    if status < 0:
        return Report(Outcome.KILLED, f"killed by {signal.Signals(-status).name} (a machine out of memory does that)")
    if status:
        return Report(Outcome.FAILED, process.last_line(log, said))
    return Report(Outcome.FAILED, f"it ended well but left no result that counts (all it said: {log})")
