"""The runs behind `kd-marl pareto`: one kd_student a width, message and seed, made once, and a bundle of each."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_core import progress, stages
from kd_core.errors import UserError
from kd_core.host import Host
from kd_core.places import MAIN
from kd_marl.deploy import check
from kd_marl.deploy.export import Options, export
from kd_marl.processes import process
from kd_marl.runs.student_run import EXPORTED_AGENT, StudentRun, load_student
from kd_onboard.bundle import PROFILE
from kd_onboard.errors import BundleError

# What the sweep sets itself.
_OWN = ("widths", "seed", "local_results_path", "resume", "evaluate", "checkpoint_path", "load_step")


@dataclass(frozen=True)
class Cell:
    """One student of the sweep."""

    width: int
    seed: int
    bits: int | None = None

    @property
    def label(self) -> str:
        """Return a name for people, for its log file and its bundle."""
        bits = "" if self.bits is None else f"bits-{self.bits}-"
        return f"width-{self.width}-{bits}seed-{self.seed}"


class Sweep:
    """Students of several widths, messages and seeds that differ in nothing else.

    Attributes:
        cells: width after width, and in each message after message.
        bits: of the messages that are compared; empty where messages are not.
    """

    def __init__(
        self,
        host: Host,
        environment: str,
        updates: Sequence[str],
        widths: Sequence[int],
        seeds: Sequence[int],
        to: Path,
        bits: Sequence[int] = (),
    ) -> None:
        """Plan.

        Args:
            host: whose configuration files are read.
            environment: ``--env-config`` of the runs.
            updates: what follows ``with``, the same for all.
            widths: of all agents of a student.
            seeds: of the runs.
            to: folder of the runs, their logs and bundles.
            bits: of the messages of a student; none: what ``updates`` say.

        Raises:
            UserError: an impossible width, seed or number of bits, or an update that the sweep makes itself.
        """
        for what, numbers, least in (("width", widths, 1), ("seed", seeds, 0), ("message_bits", bits, 0)):
            for number in numbers:
                if number < least:
                    raise UserError(f"{what} {number} is none: give whole numbers of at least {least}")
        for word in updates:
            key = word.split("=", 1)[0]
            if key in _OWN:
                raise UserError(f"pareto sets {key} itself: leave it out (widths and seeds are --widths and --seeds)")
            if word == "teacher=train":
                raise UserError("one teacher serves all students: train it first with --config=kd_teacher")
            if word in ("save_model=False", "save_model=false"):
                raise UserError("pareto measures the students that its runs save: leave save_model=False out")
            if key == "message_number_bits":
                _check_whole_numbers(word, bits)
            if key == "message_bits" and bits:
                raise UserError(f"--message-bits says what students send: leave {word} out")
            if key == "agent" and word != f"agent={EXPORTED_AGENT}":
                raise UserError(f"pareto exports its students, which must be agent={EXPORTED_AGENT}: leave {word} out")
        self._host, self._environment, self._updates = host, environment, list(updates)
        self._folder = Path(os.path.abspath(to.expanduser()))
        # What is published says nothing of where this machine keeps things.
        self._to = self._folder.name if to.expanduser().is_absolute() else to.as_posix()
        self.bits = tuple(sorted(set(bits)))
        self.cells = [
            Cell(width, seed, each)
            for width in sorted(set(widths))
            for each in self.bits or (None,)
            for seed in sorted(set(seeds))
        ]

    @property
    def results(self) -> Path:
        """Return the folder of the runs, as every run's ``results``."""
        return self._folder / "runs"

    @property
    def line(self) -> str:
        """Return the command that makes the sweep again."""
        widths = dict.fromkeys(str(cell.width) for cell in self.cells)
        seeds = dict.fromkeys(str(cell.seed) for cell in self.cells)
        options = [
            f"--env-config={self._environment}",
            "--widths",
            *widths,
            "--seeds",
            *seeds,
            *(["--message-bits", *map(str, self.bits)] if self.bits else []),
            "--to",
            self._to,
        ]
        return shlex.join(["kd-marl", "pareto", *options, "with", *self._updates])

    def words(self, cell: Cell) -> list[str]:
        """Return the command line of a student, after ``python src/main.py``."""
        own = [f"widths={cell.width}", f"seed={cell.seed}", f"local_results_path={self.results}", "resume=True"]
        own += [] if cell.bits is None else [f"message_bits={cell.bits}"]
        return ["--config=kd_student", f"--env-config={self._environment}", "with", *self._updates, *own]

    def finished(self, cell: Cell) -> Path | None:
        """Return the last checkpoint of a student that is trained and evaluated; None if it is yet to be made."""
        point = stages.made_by(self._host, self.words(cell), cell.seed)
        return point.folder if point is not None and point.reported else None

    def make(self, jobs: int) -> None:
        """Make the students that are missing.

        Args:
            jobs: how many at a time.

        Raises:
            UserError: one failed; the others are kept, and the same call goes on with what is left.
        """
        missing = [cell for cell in self.cells if self.finished(cell) is None]
        failed: list[str] = []
        with progress.bar("students", len(self.cells), "run", done=len(self.cells) - len(missing)) as bar:
            # The first finds the teacher and exports the expert buffer that all share: two must not write it at once.
            for part in (missing[:1], missing[1:]):
                failed += self._execute(part, jobs, bar)
                if failed:
                    break
        if failed:
            raise UserError(f"{len(failed)} of {len(self.cells)} students failed, the first: {failed[0]}")

    def _execute(self, cells: Sequence[Cell], jobs: int, bar: Any) -> list[str]:
        """Run cells side by side; returns what failed. However this ends, no process that it started goes on."""
        logs = self.results / "logs"
        try:
            logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot write {logs} ({error.strerror}): give --to a folder that you can write to"
            ) from None
        queue, failed = list(cells), []
        running: dict[subprocess.Popen[bytes], Cell] = {}
        try:
            while queue or running:
                while queue and len(running) < jobs:
                    cell = queue.pop(0)
                    with open(logs / f"{cell.label}.log", "ab") as log:
                        running[_start(self.words(cell), log)] = cell
                time.sleep(0.1)
                for ended in [run for run in running if run.poll() is not None]:
                    cell = running.pop(ended)
                    if ended.returncode or self.finished(cell) is None:
                        failed.append(f"{cell.label}: {process.last_line(logs / f'{cell.label}.log')}")
                    bar.update(1)
        finally:
            process.stop(list(running))
        return failed

    def exported(self, cell: Cell) -> tuple[StudentRun, Mapping[str, Any]]:
        """Return a finished student and the profile of its bundle; write the bundle if it is not there."""
        checkpoint = self.finished(cell)
        assert checkpoint is not None, "make() has made it"
        run, folder = load_student(checkpoint), self._folder / "bundles" / cell.label
        try:
            profile = check.check_bundle(folder).profile.raw
            if profile["provenance"]["checkpoint"] == "/".join(checkpoint.parts[-2:]):
                return run, profile
        except BundleError:
            # Absent, damaged, or of another version.
            pass
        if folder.is_dir() and not (folder / PROFILE).is_file():
            shutil.rmtree(folder)
        buffer = run.find_buffer()
        if buffer is None:
            raise UserError(f"the expert buffer of {checkpoint} is gone: restore it in {self.results / 'buffers'}")
        options = Options(int8=False)
        return run, export(run, folder, buffer.facts["episode_limit"], buffer, options, force=True)


def _check_whole_numbers(word: str, bits: Sequence[int]) -> None:
    """Refuse messages that are no whole numbers of as many bits as an update says, before students are trained."""
    number_bits = word.partition("=")[2]
    for each in bits:
        # What is no number the first run refuses.
        if number_bits.isdigit() and int(number_bits) and each % int(number_bits):
            raise UserError(f"--message-bits {each} is no multiple of {word}: leave {each} out, or change that")


def _start(words: Sequence[str], log: Any) -> subprocess.Popen[bytes]:
    return process.start([sys.executable, str(MAIN), *words], log)
