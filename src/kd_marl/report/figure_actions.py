"""Figure 4: how often each action is taken over time, with and without distillation, and how concentrated that is."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np

from kd_marl.report.concentration import Concentration, added, concentration, shares
from kd_marl.report.drawing import INK, Picture, Sheet
from kd_marl.report.estimates import estimate
from kd_marl.report.groups import Group, Groups, Task
from kd_marl.report.methods import TEACHER, look, setting_title, short_task, task_title
from kd_marl.report.tables import Rows, percent

# Panels side by side that a page has room for.
_MOST_PANELS = 4
HEAD = ["policy", "limits", "bits per decision, team", "bits per decision, each agent", "equally frequent actions"]


def recorded(groups: Groups, task: Task) -> tuple[list[Group], list[Group]]:
    """The groups of a task whose runs counted their actions, and those that did not.

    Raises:
        UserError: a run's file is broken.
    """
    able: list[Group] = []
    lacking: list[Group] = []
    for group in groups.of_task(task):
        (able if all(run.counts for run in group.runs) else lacking).append(group)
    return able, lacking


def action_frequencies(groups: Groups, task: Task, limits: str, sight: str) -> Picture | None:
    """Heat maps of one task under one limit: the teacher, then each method; None if only one policy was counted."""
    able = [group for group in recorded(groups, task)[0] if group.cell[2:] == (limits, sight)]
    panels = [(group.cell.method, _own(group)) for group in able]
    student = next((group for group in able if group.teacher), None)
    if student is not None:
        panels.insert(0, (TEACHER, added([run.counts for run in student.runs], "teacher")))
    if len(panels) < 2:
        return None
    names = _names(able[0])
    longest = max(len(counts) for _, counts in panels)
    last = max(int(np.flatnonzero(~np.isnan(shares(counts)[0]))[-1]) for _, counts in panels) + 1
    columns = min(_MOST_PANELS, len(panels))
    rows = -(-len(panels) // columns)
    name = f"actions-{short_task(task[1])}-{task[0]}-{limits}{'-' + sight if sight else ''}".replace("_", "-")
    title = f"Action frequencies over time: {task_title(task)}, {setting_title(limits, sight)}"
    labels = [label or "-" for label in names[0]] if _alike(names) else [str(i) for i in range(len(names[0]))]
    with Sheet(name, rows, columns, (3.3, 1.3 + 0.2 * len(labels)), sharex=True, sharey=True) as sheet:
        flat = list(sheet.axes.flat)
        colours = matplotlib.colormaps["inferno"].with_extremes(bad="#eeeeee")
        top = max(float(np.nanmax(shares(counts))) for _, counts in panels)
        for axes, (method, counts) in zip(flat, panels, strict=False):
            share = np.full((len(labels), longest), np.nan)
            share[:, : len(counts)] = 100 * shares(counts)
            box = (-0.5, last - 0.5, len(labels) - 0.5, -0.5)
            image = axes.imshow(
                share[:, :last],
                aspect="auto",
                interpolation="nearest",
                cmap=colours,
                vmin=0,
                vmax=100 * top,
                extent=box,
            )
            measured = concentration(counts, names)
            bits = "" if measured is None else f"\n{measured.team_bits:.2f} bits a decision"
            axes.set_title(look(method).title + bits, fontsize=10)
            axes.set_xlabel("step of the episode")
            axes.tick_params(labelbottom=True)
            axes.set_yticks(range(len(labels)), labels, fontsize=8.5)
        for row in sheet.axes:
            row[0].set_ylabel("action" if _alike(names) else "action (named differently by agent)")
        for axes in flat[len(panels) :]:
            axes.set_visible(False)
        bar = sheet.figure.colorbar(image, ax=sheet.axes, shrink=0.9, pad=0.01)
        bar.set_label("share of the step's decisions, per cent", color=INK)
        seeds = ", ".join(f"{look(group.cell.method).title} {len(group.seeds)}" for group in able)
        return Picture(name, title, sheet.svg(title), f"Seeds: {seeds}.")


def concentration_table(groups: Groups, task: Task) -> Rows | None:
    """The number to each heat map, over seeds; None if no run counted its actions."""
    able, _ = recorded(groups, task)
    if not able:
        return None
    rows = []
    student = next((group for group in able if group.teacher), None)
    if student is not None:
        for policy, title in (("teacher", look(TEACHER).title), ("random", "random play")):
            values = [concentration(run.counts[policy], _names(student)) for run in student.runs]
            rows.append(_row(title, "FO", values))
    for group in able:
        policy = "student" if group.teacher else "policy"
        values = [concentration(run.counts[policy], _names(group)) for run in group.runs]
        rows.append(_row(look(group.cell.method).title, group.cell.setting, values))
    head = [*HEAD, "attacks", "seeds"]
    if all(row[-2] == "-" for row in rows):
        head, rows = [*head[:-2], head[-1]], [[*row[:-2], row[-1]] for row in rows]
    return head, rows


def _row(title: str, setting: str, values: Sequence[Concentration | None]) -> list[str]:
    known = [value for value in values if value is not None]
    numbers = [estimate([getattr(value, name) for value in known]) for name in ("team_bits", "agent_bits")]
    numbers.append(estimate([value.effective_actions for value in known]))
    cells = ["-" if value is None else value.text() for value in numbers]
    return [title, setting, *cells, percent(estimate([value.attack_share for value in known])), str(len(known))]


def _own(group: Group) -> np.ndarray:
    return added([run.counts for run in group.runs], "student" if group.teacher else "policy")


def _names(group: Group) -> list[list[str | None]]:
    return group.runs[0].summary["actions"]


def _alike(names: Sequence[Sequence[str | None]]) -> bool:
    return all(list(agent) == list(names[0]) for agent in names)
