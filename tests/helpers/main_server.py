"""Runs ``src/main.py`` in fresh processes that need not import torch first: a server imports it once, then forks.

What a child does is what ``python src/main.py ...`` does, from the first line of ``main.py`` on; a test that kills it,
or looks for its children, has its process id.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import cores

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0
# Other people's packages only: the code under test is imported by each run.
IMPORTED_ONCE = (
    *("gymnasium", "numpy", "ptflops", "rich.console", "sacred", "sacred.observers", "safetensors.torch"),
    *("scipy.cluster.vq", "torch.optim", "tqdm", "yaml", "pettingzoo", "mpe2.simple_speaker_listener_v4"),
)


@dataclass(frozen=True)
class Finished:
    """How a run ended: its exit status (negative: the signal that ended it) and what it printed."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that a user's mistake must be, without ``error: ``; fails if it is anything else."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, f"expected one line 'error: ...', got:\n{self.out}\n{self.err}"
        assert "Traceback" not in self.out + self.err, self.err
        assert self.status in (1, 2), f"exit status {self.status}"
        return lines[0].removeprefix("error: ")

    def check(self) -> Finished:
        """Itself, if the run succeeded."""
        assert self.status == 0, f"exit status {self.status}:\n{self.out}\n{self.err}"
        return self

    @property
    def summary(self) -> dict:
        """The summary.json that the run says it wrote."""
        return json.loads(Path(re.findall(r"^written to (.+)$", self.out, re.MULTILINE)[-1]).read_text())


class MainServer:
    """The test's side. One run at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.child = 0  # the run that has not been waited for
        environment = {key: value for key, value in os.environ.items() if key != "EPYMARL_HOME"}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def start(self, *words: str, env: dict[str, str] | None = None, before: str = "") -> int:
        """Start ``python src/main.py *words``; returns its process id.

        Args:
            words: the command line.
            env: environment variables to set.
            before: Python that the process runs first, to stage a fault.
        """
        # A test that failed before it waited left its run behind.
        self._end_child()
        out, err = self.folder / "out", self.folder / "err"
        request = {"words": words, "env": env or {}, "before": before, "out": str(out), "err": str(err)}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        self.child = int(self._answer())
        return self.child

    def wait(self) -> Finished:
        """Wait until the run that was started has ended; one that takes too long is ended, and fails the test."""
        late = threading.Event()

        def end() -> None:
            late.set()
            os.killpg(self.child, signal.SIGKILL)

        timer = threading.Timer(PATIENCE_S, end)
        timer.start()
        try:
            status = int(self._answer())
        finally:
            timer.cancel()
        self.child = 0
        said = [(self.folder / name).read_text(errors="replace") for name in ("out", "err")]
        assert not late.is_set(), f"not at its end after {PATIENCE_S} s; the run printed:\n{said[1]}"
        return Finished(status, *said)

    def run(self, *words: str, env: dict[str, str] | None = None, before: str = "") -> Finished:
        """Start and wait."""
        self.start(*words, env=env, before=before)
        return self.wait()

    def close(self) -> None:
        self._end_child()
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()

    def _answer(self) -> str:
        answer = self.process.stdout.readline()
        assert answer, "the server that forks runs has ended"
        return answer

    def _end_child(self) -> None:
        if self.child:
            os.killpg(self.child, signal.SIGKILL)
            self._answer()
            self.child = 0


def serve() -> dict | None:
    """Fork a child for every request; returns the request in the child, None in the server once it is told to stop."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    for module in IMPORTED_ONCE:
        # Whatever is not installed is missed by the run that needs it.
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    import torch

    torch.set_num_threads(1)
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            return json.loads(line)
        # A group of its own before anybody knows of it and may end it.
        os.setpgid(child, child)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


def become_main(request: dict) -> None:
    """In the child: run src/main.py as a process of its own would."""
    os.chdir(ROOT)
    os.environ.update(request["env"])
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, request["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(path, flags, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    # A script's own folder comes first on the path; the tests' folder stays, for environments that live there.
    sys.path.insert(0, str(ROOT / "src"))
    sys.argv = ["src/main.py", *request["words"]]
    exec(request["before"], {})
    runpy.run_path(str(ROOT / "src" / "main.py"), run_name="__main__")


class Ended:
    """A run that has ended, in place of its process."""

    def __init__(self, status):
        self.returncode = status

    def poll(self):
        return self.returncode


if __name__ == "__main__":
    cores.use_all()
    if (found := serve()) is not None:
        become_main(found)
