"""Figure 4: how often each action is taken over time, with and without distillation, and how concentrated that is."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from kd_marl.report.concentration import Concentration, added, concentration, kinds, shares
from kd_marl.report.drawing import INK, Picture, Sheet
from kd_marl.report.estimates import estimate, iqm
from kd_marl.report.groups import Group, Groups, Task
from kd_marl.report.methods import TEACHER, file_name, look, setting_title, short_task, task_title
from kd_marl.report.scores import TaskScores
from kd_marl.report.tables import Rows, percent, seeds_and_episodes
from kd_marl.runs.finished import Run

# Panels side by side that a page has room for.
_MOST_PANELS = 4
HEAD = ["policy", "limits", "bits per decision, team", "bits per decision, each agent", "equally frequent actions"]


def counted(groups: Groups, task: Task) -> tuple[list[Group], list[Group]]:
    """Split the groups of a task: those whose runs counted their actions, and those that did not.

    Raises:
        UserError: a run's file is broken.
    """
    able: list[Group] = []
    lacking: list[Group] = []
    for group in groups.of_task(task):
        (able if all(run.counts for run in group.runs) else lacking).append(group)
    return able, lacking


def action_frequencies(groups: Groups, task: Task, limits: str, sight: str) -> Picture | None:
    """Draw heat maps of one task under one limit: the teacher, then each method; None with a single policy."""
    able = [group for group in counted(groups, task)[0] if group.cell[2:] == (limits, sight)]
    seeds = [(group.cell.method, _counts(group.runs, "student" if group.teacher else "policy")) for group in able]
    if evaluated := _evaluations(groups, task):
        seeds.insert(0, (TEACHER, _counts(evaluated, "teacher")))
    panels = [(method, added(each)) for method, each in seeds]
    if len(panels) < 2:
        return None
    names = _names(able[0])
    alike = kinds(names)
    last = max(int(np.flatnonzero(~np.isnan(shares(counts)[0]))[-1]) for _, counts in panels) + 1
    columns = min(_MOST_PANELS, len(panels))
    each = -(-len(panels) // columns)
    name = file_name("actions", short_task(task[1]), task[0], limits, sight)
    title = f"Action frequencies over time: {task_title(task)}, {setting_title(limits, sight)}"
    most = max(len(_labels(names[agents[0]])) for agents in alike)
    top = max(float(np.nanmax(shares(counts[:, agents]))) for _, counts in panels for agents in alike)
    with Sheet(name, each * len(alike), columns, (3.3, 1.3 + 0.2 * most)) as sheet:
        for number, agents in enumerate(alike):
            rows = sheet.axes[number * each : (number + 1) * each]
            whose = "" if len(alike) == 1 else f"agent {', '.join(map(str, agents))}: "
            for place, (axes, (method, counts)) in enumerate(zip(rows.flat, panels, strict=False)):
                _heat_map(axes, counts[:, agents], _labels(names[agents[0]]), last, 100 * top)
                # Seed by seed, as in the table: seeds that disagree with each other are not undecided.
                measured = [concentration(seed[:, agents]) for seed in seeds[place][1]]
                known = [value.team_bits for value in measured if value is not None]
                bits = f"\n{iqm(known):.2f} bits a decision" if known else ""
                axes.set_title(whose + look(method).title + bits, fontsize=10)
                if place % columns == 0:
                    axes.set_ylabel("action")
            for axes in rows.flat[len(panels) :]:
                axes.set_visible(False)
        bar = sheet.figure.colorbar(sheet.axes[0, 0].images[0], ax=sheet.axes, shrink=0.9, pad=0.01)
        bar.set_label("share of the step's decisions, per cent", color=INK)
        return Picture(name, title, sheet.svg(title), _note(able, evaluated))


def _heat_map(axes: Axes, counts: np.ndarray, labels: Sequence[str], last: int, top: float) -> None:
    """Draw one policy's, with a row for each action and a column for each step before ``last``."""
    share = np.full((len(labels), last), np.nan)
    share[:, : len(counts)] = 100 * shares(counts)[: len(labels), :last]
    axes.set_yticks(range(len(labels)), labels, fontsize=8.5)
    axes.set_xlabel("step of the episode")
    axes.imshow(
        share,
        aspect="auto",
        interpolation="nearest",
        cmap=matplotlib.colormaps["inferno"].with_extremes(bad="#eeeeee"),
        vmin=0,
        vmax=top,
    )


def _note(able: Sequence[Group], evaluated: Sequence[Run]) -> str:
    """Say how much was counted, and whether there is anything without distillation beside the teacher."""
    numbers = ", ".join(f"{look(group.cell.method).title} {seeds_and_episodes(group.runs)}" for group in able)
    note = f"Seeds x episodes: {numbers}"
    note += f"; the teacher {seeds_and_episodes(evaluated)}, seeing everything." if evaluated else "."
    if all(group.teacher for group in able):
        note += " Nothing trained without distillation has counted its actions under these limits."
    return note


def concentration_table(groups: Groups, task: Task) -> Rows | None:
    """Write the number to each heat map, over seeds; None if no run counted its actions."""
    able, _ = counted(groups, task)
    if not able:
        return None
    rows = []
    if evaluated := _evaluations(groups, task):
        for policy, title in (("teacher", look(TEACHER).title), ("random", "random play")):
            values = [concentration(counts, _names(able[0])) for counts in _counts(evaluated, policy)]
            rows.append(_row(title, "FO", values))
    for group in able:
        policy = "student" if group.teacher else "policy"
        values = [concentration(counts, _names(group)) for counts in _counts(group.runs, policy)]
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


def _evaluations(groups: Groups, task: Task) -> list[Run]:
    """Find the runs of the teacher and of random play that the tables are about, as far as actions were counted."""
    return [run for run in TaskScores.of(groups, task).evaluations if run.counts]


def _counts(runs: Sequence[Run], policy: str) -> list[np.ndarray]:
    """Collect a policy's counts of each seed."""
    return [run.counts[policy] for run in runs]


def _names(group: Group) -> list[list[str | None]]:
    return group.runs[0].summary["actions"]


def _labels(names: Sequence[str | None]) -> list[str]:
    """Name an agent's actions, without the nameless ones behind, which it does not have."""
    used = max((number for number, name in enumerate(names, 1) if name is not None), default=0)
    return [name or str(number) for number, name in enumerate(names[:used] if used else names)]
