"""What disturbances leave of teacher and student, from the ``stress.json`` that `kd-marl stress` puts beside a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kd_marl.report.estimates import estimate
from kd_marl.report.groups import Group, Groups
from kd_marl.report.markdown import table
from kd_marl.report.methods import task_title
from kd_marl.report.tables import percent
from kd_marl.runs.stress_file import made_by

_SHARES = ("retention_teacher", "retention_undisturbed", "retention_disturbed")


def section(groups: Groups) -> list[str]:
    """Write the paragraphs, a table for each group that was tested; empty if none was."""
    parts: list[str] = []
    for task in groups.tasks:
        for group in groups.students(task):
            tested = [run.stress for run in group.runs if run.stress is not None]
            if tested:
                heading = f"### {task_title(task)}, {group.cell.method}, {group.cell.setting}"
                parts += [heading, _table(tested), _said(group, tested)]
    return parts


def _table(tested: Sequence[Mapping[str, Any]]) -> str:
    wins = tested[0]["measures"] == "win rate"
    rows = []
    for name in dict.fromkeys(row["name"] for facts in tested for row in facts["rows"]):
        same = [row for facts in tested for row in facts["rows"] if row["name"] == name]
        scores = [estimate([row[f"{who}_mean"] for row in same]) for who in ("teacher", "student")]
        cells = [percent(value) if wins else "-" if value is None else value.text() for value in scores]
        shares = [percent(estimate([row[key] for row in same])) for key in _SHARES]
        rows.append([name, *cells, *shares, str(len(same))])
    measure = tested[0]["measures"]
    head = ["disturbance", f"teacher's {measure}", f"student's {measure}", "teacher: retention of itself"]
    head += ["student: retention of the undisturbed teacher", "of the equally disturbed one", "seeds"]
    return table(head, rows)


def _said(group: Group, tested: Sequence[Mapping[str, Any]]) -> str:
    left = len(group.runs) - len(tested)
    missing = f" {left} of its {len(group.runs)} runs have not been tested." if left else ""
    counts = sorted({int(facts["episodes"]) for facts in tested})
    episodes = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    whose = " for the first seed" if len(tested) > 1 else ""
    return f"{made_by(tested[0])}{whose}, {episodes} episodes of each policy and disturbance.{missing}"
