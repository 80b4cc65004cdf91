"""Where the numbers come from: commands, commits, machines, seeds, episodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from kd_marl.report.groups import Group, Groups
from kd_marl.report.markdown import bullets, folded, table
from kd_marl.report.methods import short_task, task_title
from kd_marl.runs.finished import Run

HEAD = ["task", "method", "limits", "widths", "seeds", "episodes each", "commit", "teacher"]


def made_with(runs: Iterable[Run]) -> list[tuple[str, str]]:
    """Name the commits and machines of runs, as facts for the head of the page."""
    runs = list(runs)
    commits, machines = (Counter(getattr(run, name) for run in runs) for name in ("commit", "machine"))
    return [
        ("commits of the runs", ", ".join(f"{name} ({_runs(count)})" for name, count in commits.most_common())),
        ("machines", "; ".join(f"{name} ({_runs(count)})" for name, count in machines.most_common())),
    ]


def section(groups: Groups) -> list[str]:
    """Write the paragraphs: a table of all groups that the tables show, and their commands."""
    listed = [group for task in groups.tasks for group in groups.of_task(task)]
    if not listed:
        return ["Nothing."]
    commands = [
        f"{short_task(group.cell.task[1])}, {group.cell.method}, {group.cell.setting}: "
        f"`{group.runs[0].summary.get('command', 'unknown')}`"
        for group in listed
    ]
    mixed = [group for group in listed if len({run.commit for run in group.runs}) > 1]
    return [
        table(HEAD, [_row(group) for group in listed]),
        "A plus behind a commit: the source tree had local changes. A teacher is the start of the sha256 of its actor."
        + (" Where a row names several commits its seeds were run at different ones." if mixed else ""),
        folded("The command of each row's first seed; the others differ in the seed", bullets(commands)),
    ]


def _runs(count: int) -> str:
    return f"{count} run{'s' if count > 1 else ''}"


def widths_of(group: Group) -> str:
    """Name each agent's width, one number if all are equal; a dash where the run did not write them down."""
    config = group.runs[0].config
    widths: list[Any] = group.widths or ["-" if config.get("mac") == "hetero_mac" else config.get("hidden_dim", "-")]
    return str(widths[0]) if len(set(widths)) == 1 else ", ".join(map(str, widths))


def _row(group: Group) -> list[str]:
    episodes = sorted({run.summary["episodes"] for run in group.runs})
    return [
        task_title(group.cell.task),
        group.cell.method,
        group.inputs_title,
        widths_of(group),
        ", ".join(map(str, group.seeds)),
        ", ".join(map(str, episodes)),
        ", ".join(sorted({run.commit for run in group.runs})),
        group.teacher[:12] or "-",
    ]
