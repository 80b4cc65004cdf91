"""Processes that a benchmark starts: watched for memory while they run, and gone however the benchmark ends."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
ROOT = BENCHMARKS.parent
# No torch in the watching process: its pages would be shared with the watched ones, which PSS divides among all.
sys.path[:0] = [str(BENCHMARKS), str(ROOT / "src")]

from kd_core.errors import UserError  # noqa: E402

# Between two looks at the memory: a look takes some ten milliseconds for each GiB, which the watched programs pay for.
LOOK_SECONDS = 2.0
POLL_SECONDS = 0.1
# How long processes that are to end may take before they are killed.
STOP_SECONDS = 10.0
MIB = 1 << 20


def watched(command: Sequence[str], home: str | None = None) -> dict[str, Any]:
    """Run a program of ours that takes the path of its JSON report as its last word.

    Args:
        command: its command line without the report.
        home: `EPYMARL_HOME` for it; None for the bundled runtime.

    Returns:
        The report, and ``memory``: `MemoryWatch.facts` of the program and all its descendants.

    Raises:
        UserError: it failed; the message ends with the last line that it printed.
    """
    # Threads as the program itself sets them, whatever the shell of the benchmark says.
    hidden = ("EPYMARL_HOME", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "XLA_FLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["PYTHONUNBUFFERED"] = "1"
    if home:
        environment["EPYMARL_HOME"] = home
    with tempfile.TemporaryDirectory(prefix="kd-marl-speed-") as folder:
        report, log = Path(folder, "report.json"), Path(folder, "log.txt")
        with open(log, "wb") as said:
            process = subprocess.Popen(
                [*command, str(report)],
                cwd=folder,
                env=environment,
                # Held open by this process alone: its end tells the program that the benchmark is gone.
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        watch, looked = MemoryWatch(process.pid), 0.0
        try:
            while process.poll() is None:
                if time.monotonic() - looked >= LOOK_SECONDS:
                    watch.look()
                    looked = time.monotonic()
                time.sleep(POLL_SECONDS)
        finally:
            end(process)
        if process.returncode or not report.is_file():
            raise UserError(f"{_shown(command)} ended with status {process.returncode}: {_last_line(log)}")
        return {**json.loads(report.read_text(encoding="utf-8")), "memory": watch.facts()}


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and everything in its session, by force what does not go by itself; returns once all are gone."""
    try:
        _signal_session(process.pid, signal.SIGTERM)
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        while _signal_session(process.pid, signal.SIGKILL):
            process.poll()
            time.sleep(0.01)
        process.wait()
        if process.stdin:
            process.stdin.close()


def _signal_session(session: int, number: int) -> bool:
    """Signal the living processes of a session; returns whether there were any."""
    members = session_members(session)
    for pid in members:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return bool(members)


def session_members(session: int) -> list[int]:
    """The living processes of a session: a program's descendants stay in it, even those whose parent is gone."""
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
        self._pss = max(self._pss, sum(_kib(pid, "smaps_rollup", "Pss:") for pid in members))
        self._processes = max(self._processes, len(members))
        for pid in members:
            self._marks[pid] = max(self._marks.get(pid, 0), _kib(pid, "status", "VmHWM:"))

    def facts(self) -> dict[str, Any]:
        """``peak_mib``: the larger of the other two; ``pss_mib`` sampled; ``largest_mib`` of one process, exact."""
        largest = max(self._marks.values(), default=0)
        return {
            "peak_mib": max(self._pss, largest) / 1024,
            "pss_mib": self._pss / 1024,
            "largest_mib": largest / 1024,
            "processes": self._processes,
        }


def own_peak_mib() -> float:
    """The high-water mark of this process's resident memory."""
    return _kib(os.getpid(), "status", "VmHWM:") / 1024


def _kib(pid: int, file: str, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), 0)


def die_with_benchmark() -> None:
    """In a program that `watched` started: end with it, however it ends."""

    def wait() -> None:
        # Not sys.stdin: a thread that waits in it breaks the end of the interpreter.
        while os.read(0, 1):
            pass
        # Workers of ours and of the bundled runtime end with this process; EPyMARL's are wrapped to do the same.
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def machine(arguments: Sequence[str]) -> dict[str, Any]:
    """What the figures were measured on, and the command that measured them."""
    names = []
    if (cpuinfo := Path("/proc/cpuinfo")).is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "jax", "jaxmarl", "numpy")},
        "commit": commit(ROOT),
        "load_before": round(os.getloadavg()[0], 2),
        "command": " ".join(["python", *arguments]),
    }


def busy_warning(facts: Mapping[str, Any]) -> str:
    """A line for people if other programs are computing; empty if none is."""
    if facts["load_before"] < 0.5:
        return ""
    return f"warning: the load was {facts['load_before']} before the start: other programs make these figures worthless"


def commit(folder: Path | str) -> str | None:
    """The commit of a checkout, with a ``+`` if files differ from it; None if it is none."""
    try:
        git = ["git", "-C", str(folder)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        dirty = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip()[:7] + ("+" if dirty.stdout.strip() else "")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _shown(command: Sequence[str]) -> str:
    return " ".join(Path(word).name if os.sep in word else word for word in command)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
