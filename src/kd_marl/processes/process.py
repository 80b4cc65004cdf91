"""A run as a process of its own: started with one thread, stopped with its workers, and what it said last."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# How long a run that is to be stopped may take before it is killed.
STOP_SECONDS = 10.0
_BOUND = Path(__file__).with_name("bound.py")


def start(
    command: Sequence[str],
    log: Any,
    held: Sequence[int] = (),
    directory: Path | None = None,
    variables: Mapping[str, str] | None = None,
    one_thread: bool = True,
) -> subprocess.Popen[bytes]:
    """Start a run that has a process group of its own and dies with its parent.

    Args:
        command: the program and its words.
        log: an open file for what it says.
        held: descriptors that it inherits: a lock on one of them is held as long as the run lives.
        directory: where it works; None: where we do.
        variables: of its environment, instead of ours.
        one_thread: compute with one thread, since other runs have the other cores.
    """
    own = {"PYTHONUNBUFFERED": "1", "KD_MARL_PROGRESS": "0", **({"OMP_NUM_THREADS": "1"} if one_thread else {})}
    return subprocess.Popen(
        [sys.executable, "-S", str(_BOUND), str(os.getpid()), *command],
        env={**os.environ, **(variables or {}), **own},
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=tuple(held),
    )


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Interrupt runs as Ctrl-C would, so that they note it and save; kill those that do not end in time."""
    for process in processes:
        _signal_group(process, signal.SIGINT)
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, deadline - time.monotonic()))
        # Its workers too, whatever became of itself.
        _signal_group(process, signal.SIGKILL)
        process.wait()


def last_line(log: Path, start: int = 0) -> str:
    """Return the last error in a log, or else its last line, after the ``start`` bytes of earlier attempts."""
    said = log.read_bytes()[start:] if log.is_file() else b""
    text = said.decode("utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")] or lines
    return f"{errors[-1].strip() if errors else 'it said nothing'} (all of it: {log})"


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
