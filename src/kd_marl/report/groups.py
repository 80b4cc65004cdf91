"""Which runs may be averaged: those that differ in nothing but their seed.

A cell of a table (task, method, limits, masks) takes one group of runs, all of one configuration and one teacher. Where
several configurations fill the same cell, the one with most seeds is taken, and every run outside it is named with the
reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kd_core.checkpoints import hides
from kd_marl.report.methods import FAMILIES, family, place, setting_title, task_title
from kd_marl.runs.finished import Run
from kd_marl.runs.identity import comparable

# Beside what does not count for `comparable`: how a finished policy was measured, and where it ran.
_MEASURING = frozenset({"seed", "eval_episodes", "use_cuda"})
# How many differing settings a reason names.
_NAMED = 4

Task = tuple[str, str]


class Cell(NamedTuple):
    """What a table has one number for; ``task`` is (environment, name)."""

    task: Task
    method: str
    limits: str
    sight: str

    @property
    def setting(self) -> str:
        """Limits and masks, e.g. ``LH+A, random``."""
        return setting_title(self.limits, self.sight)


@dataclass(frozen=True)
class Group:
    """Runs of one cell, configuration and teacher, one a seed, in the order of their seeds.

    Attributes:
        settings: what they have in common: the keys that decide what a run computes.
        teacher: sha256 of their teacher's actor; empty without one.
    """

    cell: Cell
    settings: Mapping[str, Any]
    teacher: str
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Their seeds."""
        return tuple(run.seed for run in self.runs)

    @property
    def newest(self) -> str:
        """When the last of them started."""
        return max(run.started for run in self.runs)

    @property
    def widths(self) -> list[int] | None:
        """Each agent's hidden width; None where it is unknown."""
        return self.runs[0].summary.get("widths")

    @property
    def inputs_title(self) -> str:
        """Its limits and mask, and whether its agents are given their own last action (docs/guides/masks.md)."""
        told = hides(self.runs[0].config) and self.runs[0].config.get("own_action")
        return self.cell.setting + (" + own last action" if told else "")


@dataclass
class Groups:
    """All groups, and which of them the tables show.

    Attributes:
        main: cell -> its group.
        others: groups that are in no table: another configuration or another teacher.
        left_out: one line for each reason, with how many runs it concerns.
        teachers: task -> sha256 of the teacher that its tables are about.
    """

    main: dict[Cell, Group] = field(default_factory=dict)
    others: list[Group] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    teachers: dict[Task, str] = field(default_factory=dict)

    @property
    def tasks(self) -> list[Task]:
        """Every task of a table, family by family."""
        found = {cell.task for cell in self.main}
        return sorted(found, key=lambda task: (list(FAMILIES).index(family(task)), task))

    def of_family(self, name: str) -> list[Task]:
        """List the tasks of one of the `FAMILIES`."""
        return [task for task in self.tasks if family(task) == name]

    def of_task(self, task: Task) -> list[Group]:
        """List the groups that the tables show of a task, in the order of the page."""
        mine = [group for cell, group in self.main.items() if cell.task == task]
        return sorted(mine, key=lambda group: (place(group.cell.method), group.cell.limits, group.cell.sight))

    def students(self, task: Task) -> list[Group]:
        """List those of them that were distilled."""
        return [group for group in self.of_task(task) if group.teacher]


def build(runs: Iterable[Run]) -> Groups:
    """Sort runs into groups and choose those that the tables show."""
    groups = Groups()
    collected: dict[tuple[Cell, str, str], list[Run]] = {}
    for run in runs:
        cell = Cell(run.task, run.method, run.limits, run.sight)
        collected.setdefault((cell, run.teacher, json.dumps(_settings(run.config), sort_keys=True)), []).append(run)
    by_cell: dict[Cell, list[Group]] = {}
    for (cell, teacher, settings), members in collected.items():
        one_each, again = _one_a_seed(members)
        if again:
            groups.left_out.append(
                f"{_named(cell)}: {_runs(again)} with a seed that a newer run of the same settings has"
            )
        by_cell.setdefault(cell, []).append(Group(cell, json.loads(settings), teacher, one_each))
    groups.teachers = _teachers(by_cell)
    for cell, found in by_cell.items():
        wanted = groups.teachers.get(cell.task, "")
        eligible = [group for group in found if group.teacher in ("", wanted)]
        for group in found:
            if group not in eligible:
                groups.others.append(group)
                teachers = f"{group.teacher[:12]}, the tables are about {wanted[:12]}"
                groups.left_out.append(f"{_named(cell)}: {_runs(group.runs)} of another teacher ({teachers})")
        if not eligible:
            continue
        best = max(eligible, key=lambda group: (len(group.runs), group.newest))
        groups.main[cell] = best
        for group in eligible:
            if group is not best:
                groups.others.append(group)
                why = ", ".join(differences(group.settings, best.settings))
                groups.left_out.append(f"{_named(cell)}: {_runs(group.runs)} with other settings ({why})")
    return groups


def differences(settings: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    """List the settings that differ, ``key value, not value``; the first few of them."""
    keys = [key for key in sorted({*settings, *others}) if settings.get(key) != others.get(key)]
    lines = [f"{key} {_setting(settings.get(key))}, not {_setting(others.get(key))}" for key in keys[:_NAMED]]
    return lines + ([f"{len(keys) - _NAMED} more"] if len(keys) > _NAMED else [])


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Take the settings that decide what a run computes.

    Empty values are left out: a key that an older run lacks is a switch that was not there, hence off.
    """
    told = {key: value for key, value in comparable(config).items() if key not in _MEASURING}
    # Environments' arguments one by one, so that a difference can be named.
    flat = {f"env_args.{key}": value for key, value in told.pop("env_args").items()}
    return {key: value for key, value in {**told, **flat}.items() if value not in ("", None, False)}


def _teachers(by_cell: Mapping[Cell, Sequence[Group]]) -> dict[Task, str]:
    """Find the teacher with most runs of each task."""
    counted: dict[Task, Counter[str]] = {}
    for cell, found in by_cell.items():
        for group in found:
            if group.teacher:
                counted.setdefault(cell.task, Counter())[group.teacher] += len(group.runs)
    return {task: max(counts, key=lambda teacher: (counts[teacher], teacher)) for task, counts in counted.items()}


def _one_a_seed(members: Sequence[Run]) -> tuple[tuple[Run, ...], list[Run]]:
    """Split off the newest run of each seed, and the others."""
    newest: dict[int, Run] = {}
    for run in sorted(members, key=lambda run: run.started):
        newest[run.seed] = run
    newer = tuple(newest[seed] for seed in sorted(newest))
    return newer, [run for run in members if run not in newer]


def _named(cell: Cell) -> str:
    return f"{task_title(cell.task)}, {cell.method}, {cell.setting}"


def _runs(runs: Sequence[Run]) -> str:
    seeds = ", ".join(str(run.seed) for run in runs)
    return f"{len(runs)} run{'s' if len(runs) > 1 else ''} (seed{'s' if len(runs) > 1 else ''} {seeds})"


def _setting(value: Any) -> str:
    return "unset" if value is None else str(value)
