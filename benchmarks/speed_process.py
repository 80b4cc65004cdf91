"""Processes that a benchmark starts: watched for memory while they run, and gone however the benchmark ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import measured  # noqa: F401  puts src on the path

from kd_core.errors import UserError
from kd_marl.processes import process

# Between two looks at the memory: a look takes some ten milliseconds for each GiB, which the watched programs pay for.
LOOK_SECONDS = 2.0
POLL_SECONDS = 0.1
MIB = 1 << 20
# Threads as a program itself sets them, whatever the shell of the benchmark says.
_PLAIN = [word for name in ("EPYMARL_HOME", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "XLA_FLAGS") for word in ("-u", name)]


def watched(command: Sequence[str], home: str | None = None, threads: int | None = None) -> dict[str, Any]:
    """Run a program of ours that takes the path of its JSON report as its last word.

    Args:
        command: its command line without the report.
        home: `EPYMARL_HOME` for it; None for the bundled runtime.
        threads: `OMP_NUM_THREADS` for it; None leaves the choice to the program.

    Returns:
        The report, and ``memory``: `MemoryWatch.facts` of the program and all its descendants.

    Raises:
        UserError: it failed; the message has the last line that it printed.
    """
    env = shutil.which("env")
    assert env is not None, "every Linux has env"
    with tempfile.TemporaryDirectory(prefix="kd-marl-speed-") as folder:
        report, log = Path(folder, "report.json"), Path(folder, "log.txt")
        given = {"EPYMARL_HOME": home, "OMP_NUM_THREADS": threads}
        words = [env, *_PLAIN, *(f"{name}={value}" for name, value in given.items() if value), *command, str(report)]
        with open(log, "wb") as said:
            child = process.start(words, said, directory=Path(folder), one_thread=False)
        watch, looked = MemoryWatch(child.pid), 0.0
        try:
            while child.poll() is None:
                if time.monotonic() - looked >= LOOK_SECONDS:
                    watch.look()
                    looked = time.monotonic()
                time.sleep(POLL_SECONDS)
        finally:
            process.stop([child])
        if child.returncode or not report.is_file():
            shown = " ".join(Path(word).name if os.sep in word else word for word in command)
            # Not `process.last_line`, which names the log: it is gone with the folder.
            lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
            said_last = lines[-1] if lines else "it said nothing"
            raise UserError(f"{shown} ended with status {child.returncode}: {said_last}")
        return {**json.loads(report.read_text(encoding="utf-8")), "memory": watch.facts()}


@contextmanager
def busy(loops_per_core: int) -> Iterator[None]:
    """Keep the cores busy with that many endless loops for each, in processes of their own, within the block."""
    command, count = [sys.executable, "-S", "-c", "while True: pass"], loops_per_core * len(os.sched_getaffinity(0))
    loops = [process.start(command, subprocess.DEVNULL) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
        process.stop(loops)


def session_members(session: int) -> list[int]:
    """List the living processes of a session: a program's descendants, even those whose parent is gone."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # pid (name) state parent group session ...; the name may hold spaces and brackets.
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] not in "ZX" and int(fields[3]) == session:
                found.append(int(entry.name))
    return found


class MemoryWatch:
    """The most memory that the processes of a session have had together.

    PSS, so that a page shared by forked workers counts once. Between two looks a peak may pass unseen, so the result is
    never below the largest high-water mark of a single process, which the kernel keeps exactly.
    """

    def __init__(self, session: int) -> None:
        self._session = session
        self._pss = self._processes = 0
        self._marks: dict[int, int] = {}

    def look(self) -> None:
        """Add up what they have now."""
        members = session_members(self._session)
        self._pss = max(self._pss, sum(kib(pid, "smaps_rollup", "Pss:") for pid in members))
        self._processes = max(self._processes, len(members))
        for pid in members:
            self._marks[pid] = max(self._marks.get(pid, 0), kib(pid))

    def facts(self) -> dict[str, Any]:
        """Return ``peak_mib``, the larger of the sampled ``pss_mib`` and the exact ``largest_mib`` of one process."""
        largest = max(self._marks.values(), default=0)
        return {
            "peak_mib": max(self._pss, largest) / 1024,
            "pss_mib": self._pss / 1024,
            "largest_mib": largest / 1024,
            "processes": self._processes,
        }


def own_peak_mib() -> float:
    """Return the high-water mark of this process's resident memory."""
    return kib(os.getpid()) / 1024


def kib(pid: int, file: str = "status", field: str = "VmHWM:") -> int:
    """Read a process's memory, by default its high-water mark; 0 where Linux does not say."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), 0)
