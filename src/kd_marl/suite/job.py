"""What there is to do, as plain data that travels to other processes and machines."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from kd_core.places import MAIN, PROGRAM
from kd_marl.suite.attempts_log import AttemptsLog, spent
from kd_marl.suite.proof import Proof


@dataclass(frozen=True)
class Job:
    """A run to make: a cell of the grid, or a teacher or an expert buffer that cells share.

    Attributes:
        label: a name for people.
        kind: jobs of a kind take about as long: task and method.
        key: the same for two jobs that would write to the same run, whatever suite they belong to.
        words: the command line, after ``python src/main.py``.
        proof: how to tell that it has been made.
        results: the folder of all runs.
        cpus: processors that it needs.
        retries: how often it is tried again after its process was killed.
        goes_on: whether another attempt begins where the last one ended.
        directory: where the suite was started, from which the relative paths of its file count.
        checkout: ``EPYMARL_HOME`` there; empty: the bundled host.
    """

    label: str
    kind: str
    key: str
    words: tuple[str, ...]
    proof: Proof
    results: Path
    cpus: int = 1
    retries: int = 2
    goes_on: bool = True
    directory: Path = Path(".")
    checkout: str = ""

    @property
    def command(self) -> list[str]:
        """Return the program and its words, as they are started."""
        return [sys.executable, str(MAIN), *self.words]

    @property
    def line(self) -> str:
        """Return the command line as a reader types it."""
        return shlex.join([*PROGRAM, *self.words])

    @property
    def lock(self) -> Path:
        """Return the file whose lock says who is at it."""
        return self.results / "suite" / f"{self.key}.lock"

    @property
    def log(self) -> Path:
        """Return the file of what its process says."""
        # Other runs may have the same label, in other suites.
        return self.results / "logs" / f"{self.label.replace('/', '-')}-{self.key[:8]}.log"

    def spent(self) -> float | None:
        """Return the seconds of the attempts that count; None if nobody was left to note when one ended."""
        attempts = self.attempts_log.attempts()
        return spent(attempts if self.goes_on else attempts[-1:])

    @property
    def attempts_log(self) -> AttemptsLog:
        """Return the log of its attempts."""
        return AttemptsLog(self.results / "suite" / f"{self.key}.json", self.label)
