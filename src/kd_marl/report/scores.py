"""The numbers of a group or of a task's teacher, one a seed, ready to be estimated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_core import files
from kd_core.artifacts.teacher import FACTS_FILE, read_facts, teacher_folders
from kd_core.errors import UserError
from kd_core.metrics.retention import retention as retention_of
from kd_core.metrics.retention import retention_normalised
from kd_core.places import ZOO
from kd_marl.report.estimates import Estimate, estimate
from kd_marl.report.groups import Group, Groups, Task
from kd_marl.runs.finished import Run

Values = list[float | None]


@dataclass(frozen=True)
class TaskScores:
    """What the finished runs say of a task.

    Attributes:
        groups: all groups.
        task: (environment, name).
        wins: whether every policy has a win rate, which then is the score; else the score is the return.
    """

    groups: Groups
    task: Task
    wins: bool

    @classmethod
    def of(cls, groups: Groups, task: Task) -> TaskScores:
        """Look at a task."""
        runs = [run for group in groups.of_task(task) for run in group.runs]
        return cls(groups, task, all(run.policy["win_rate"] is not None for run in runs))

    @property
    def measure(self) -> str:
        """The name of the score: ``win rate`` or ``return``."""
        return "win rate" if self.wins else "return"

    def scores(self, group: Group) -> Values:
        """Collect win rates in [0, 1], or mean returns."""
        return [run.policy["win_rate" if self.wins else "return_mean"] for run in group.runs]

    def retention(self, group: Group) -> Values:
        """Compute shares of the task's teacher, by the paper's formula.

        A student's is of its teacher in the same episodes, a baseline's of the teacher's mean.
        """
        if group.teacher:
            return [run.summary["retention"] for run in group.runs]
        level = self.teacher("win_rate" if self.wins else "return_mean")
        if level is None:
            return [None for _ in group.runs]
        return [None if s is None else retention_of(s, level.centre, win_rate=self.wins) for s in self.scores(group)]

    def retention_over_random(self, group: Group) -> Values:
        """Compute shares of the teacher's gain over random play; as for `retention`."""
        if group.teacher:
            return [run.summary.get("retention_normalised") for run in group.runs]
        name = "win_rate" if self.wins else "return_mean"
        level, chance = self.teacher(name), self.random(name)
        if level is None or chance is None:
            return [None for _ in group.runs]
        return [None if s is None else retention_normalised(s, level.centre, chance.centre) for s in self.scores(group)]

    def teacher(self, name: str) -> Estimate | None:
        """Estimate the teacher's ``win_rate`` or ``return_mean``, over the seeds of its evaluations."""
        return estimate([run.summary["teacher"][name] for run in self.evaluations])

    def random(self, name: str) -> Estimate | None:
        """Estimate the same of random play."""
        return estimate([run.summary["random"][name] for run in self.evaluations])

    def teacher_cost(self, name: str) -> Estimate | None:
        """Estimate the teacher's ``params``, ``flops_per_decision``, ``flops_per_episode`` or ``decision_us``."""
        return estimate([run.summary.get(f"{name}_teacher") for run in self.evaluations])

    @property
    def teacher_facts(self) -> Mapping[str, Any]:
        """``teacher.json`` of the task's teacher; empty where its folder is gone or holds other weights now."""
        return next(iter(self.teachers.values()), {})

    @property
    def teachers(self) -> dict[str, Mapping[str, Any]]:
        """Folder's name -> ``teacher.json``: the task's teacher, then the bundled others of the task.

        Empty where the first one's folder is gone or holds other weights now.
        """
        for group in self.groups.students(self.task):
            path = Path(group.runs[0].summary["teacher_artifact"]["path"])
            # One that a suite trained is named from the folder that its results folder is in.
            around = [parent.parent.parent for parent in group.runs[0].folder.parents if parent.name == "sacred"]
            for folder in (path, ZOO / path.name, *(place / path for place in around)):
                try:
                    facts = files.read_json(folder / FACTS_FILE)
                except UserError:
                    continue
                if facts.get("sha256", {}).get("agent.th") == self.groups.teachers[self.task]:
                    return {path.name: facts, **self._bundled(path.name)}
        return {}

    def _bundled(self, besides: str) -> dict[str, Mapping[str, Any]]:
        """Read the facts of the others; those of stock algorithms, with tests of another kind, are left out."""
        found = {folder.name: read_facts(folder) for folder in sorted(teacher_folders([ZOO])) if folder.name != besides}
        return {
            name: facts for name, facts in found.items() if facts["task"] == self.task[1] and "algorithm" not in facts
        }

    @property
    def evaluations(self) -> list[Run]:
        """One run for each set of episodes that the teacher was evaluated in."""
        found: dict[tuple[int, int], Run] = {}
        for group in self.groups.students(self.task):
            for run in group.runs:
                found.setdefault((run.seed, run.summary["episodes"]), run)
        return list(found.values())


def over_seeds(group: Group | None, value: Callable[[Run], float | None]) -> Estimate | None:
    """Estimate one number of each run; None without a group."""
    return None if group is None else estimate([value(run) for run in group.runs])


def cost(group: Group | None, name: str) -> Estimate | None:
    """Estimate `Run.cost` over the seeds."""
    return over_seeds(group, lambda run: run.cost(name))
