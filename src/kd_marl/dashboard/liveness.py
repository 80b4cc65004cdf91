"""Whether a run that says it is running still does: its heartbeat, and its process where that is on this machine."""

from __future__ import annotations

import os
import shlex
import socket
import time
from pathlib import Path

# Sacred beats every 10 seconds. A run that was silent for three beats is looked for among this machine's processes.
QUIET_S = 30.0
# On another machine silence is all there is to go by, and its clock may differ.
SILENT_S = 60.0
_LISTED_S = 2.0


class Liveness:
    """Tells running runs from those whose process was killed."""

    def __init__(self) -> None:
        self._host = socket.gethostname()
        self._listed, self._processes = 0.0, dict[tuple[str, ...], list[float]]()

    def alive(self, beat: float | None, started: float | None, host: str, command: str, now: float) -> bool:
        """Tell whether a run that nobody has ended lives.

        Args:
            beat: its last heartbeat, seconds since the epoch; None before the first.
            started: when it started.
            host: its machine.
            command: its command line.
            now: the time.
        """
        last = max(beat or 0.0, started or 0.0)
        if now - last < QUIET_S:
            return True
        if host != self._host or not Path("/proc/stat").is_file():
            return now - last < SILENT_S
        words = _arguments(command)
        # A process that began after the run is of another run of the same command.
        begun = self._begun(now).get(words, []) if words else []
        return any(begin <= (started or now) + 1.0 for begin in begun)

    def _begun(self, now: float) -> dict[tuple[str, ...], list[float]]:
        """Return the words after ``main.py`` or ``kd-marl train`` of every process, and when those processes began."""
        if not 0 <= now - self._listed < _LISTED_S:
            self._listed, self._processes = now, {}
            for folder in Path("/proc").iterdir():
                if not folder.name.isdigit():
                    continue
                try:
                    words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")[:-1]
                    names = [os.path.basename(word) for word in words[:8]]
                    at = next((i for i, name in enumerate(names) if name == "main.py"), None)
                    if at is None and "kd-marl" in names and words[names.index("kd-marl") + 1] == "train":
                        at = names.index("kd-marl") + 1
                    if at is not None:
                        begin = _begin(folder)
                        self._processes.setdefault(tuple(words[at + 1 :]), []).append(begin)
                except (OSError, ValueError, IndexError):
                    # It has ended meanwhile, or is somebody else's.
                    continue
        return self._processes


def _arguments(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command)[2:])
    except ValueError:
        return ()


def _begin(folder: Path) -> float:
    """Return when a process began, seconds since the epoch."""
    # The program's name, in brackets, may hold spaces and brackets itself.
    fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime + int(fields[19]) / os.sysconf("SC_CLK_TCK")
