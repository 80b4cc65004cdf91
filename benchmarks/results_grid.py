"""The runs behind a section of docs/results.md: those of its suite, and which of them are made."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from results_families import Family

from kd_core import files
from kd_core.artifacts.teacher import read_facts, teacher_folders
from kd_core.host import get_host
from kd_marl.plugin import register
from kd_marl.runs.finished import Run
from kd_marl.suite import document
from kd_marl.suite.document import Cell
from kd_marl.suite.plan import Plan

STUDENT, BASELINE = "kd_student", "mappo"
# Words of a run that say where it is made, and not what.
_PLACES = frozenset({"local_results_path", "teacher", "resume", "runner_processes"})


class Grid:
    """The suite of a family, and the runs of it that are made.

    Attributes:
        family: whose it is.
        results: the folder of its runs.
        plan: what is to be made.
        tasks: the names of its tasks, which are also those of their bundled teachers.
        settings: the names of its limits.
    """

    def __init__(self, family: Family, results: Path) -> None:
        """Read the family's suite.

        Raises:
            UserError: what is wrong with it.
        """
        self.family, self.results = family, results
        suite, host = document.load(family.suite), get_host()
        register.register(host)
        self.plan = Plan(host, suite, results)
        self.tasks, self.settings = tuple(suite.tasks), tuple(suite.limits)

    def algorithm(self, cell: Cell) -> str:
        """The configuration that a run is made with."""
        return self.plan.suite.methods[cell.method].config

    @cached_property
    def _rows(self) -> Mapping[tuple[str, str, str], list[Cell]]:
        rows: dict[tuple[str, str, str], list[Cell]] = {}
        for cell in self.plan.suite.cells():
            rows.setdefault((self.algorithm(cell), cell.task, cell.limits), []).append(cell)
        return rows

    def row(self, algorithm: str, task: str, setting: str) -> list[Cell]:
        """The runs of an algorithm on a task under limits, in the order of their seeds."""
        return self._rows.get((algorithm, task, setting), [])

    def cells(self, task: str) -> list[Cell]:
        """Every run on a task: the students, then the baselines if the suite has any."""
        return [
            cell
            for algorithm in (STUDENT, BASELINE)
            for setting in self.settings
            for cell in self.row(algorithm, task, setting)
        ]

    def seeds(self, algorithm: str, setting: str) -> tuple[int, ...]:
        """The seeds of an algorithm under limits."""
        return tuple(cell.seed for cell in self.row(algorithm, self.tasks[0], setting))

    def teacher(self, task: str) -> dict[str, Any] | None:
        """The facts of the teacher of a task; None if it has none yet."""
        folder = self.plan.teacher(task)
        return None if folder is None else read_facts(folder)

    def teachers(self) -> dict[str, dict[str, Any]]:
        """Folder's name -> facts: the teacher of each task, then the others of that task which lie beside it."""
        found: dict[str, dict[str, Any]] = {}
        for task in self.tasks:
            own = self.plan.teacher(task)
            for folder in [] if own is None else [own, *sorted(teacher_folders([own.parent]))]:
                facts = read_facts(folder)
                if facts["task"] == task:
                    found.setdefault(folder.name, facts)
        return found

    def steps(self, task: str, setting: str) -> int | None:
        """How many environment steps a task's baselines are trained for; None before there is an expert buffer."""
        job = self.plan.job(self.row(BASELINE, task, setting)[0].label)
        return None if job is None else int(next(word for word in job.words if word.startswith("t_max=")).split("=")[1])

    def shell_line(self, cell: Cell) -> str:
        """The command line of a run as a reader types it, without the words that say where it is made."""
        job = self.plan.job(cell.label)
        if job is None:
            return "known once there is an expert buffer"
        return " ".join(["python src/main.py", *(word for word in job.words if word.partition("=")[0] not in _PLACES)])

    def find(self, cell: Cell) -> Run | None:
        """The newest finished run of a cell."""
        job = self.plan.job(cell.label)
        folder = None if job is None else job.proof.found()
        if folder is None:
            return None
        config, summary, record = (files.read_json(folder / f"{name}.json") for name in ("config", "summary", "run"))
        return Run(folder, config, summary, record)
