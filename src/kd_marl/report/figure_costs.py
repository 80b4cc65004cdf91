"""Figure 3, FLOPs per episode, and retention against FLOPs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator

from kd_marl.report import captions
from kd_marl.report.drawing import FAINT, INK, MARKERS, Picture, Sheet, grid_of, near, short_ticks, tidy, whisker
from kd_marl.report.estimates import Estimate, Mean, estimate, mean_of
from kd_marl.report.groups import Cell, Group, Groups, Task
from kd_marl.report.markdown import short
from kd_marl.report.methods import (
    ABLATIONS,
    FAMILIES,
    LIMITS,
    LIMITS_TITLES,
    STUDENT,
    TEACHER,
    family,
    look,
    place,
    short_task,
    task_title,
)
from kd_marl.report.scores import TaskScores, cost
from kd_marl.runs import paper

_TASK_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#e69f00", "#56b4e9", "#8c564b", "#332288", "#999933")


def flops_per_episode(groups: Groups) -> Picture | None:
    """Draw figure 3: FLOPs per episode for each task; None if no run has counted them."""
    bars = {task: _bars(groups, task) for task in groups.tasks}
    bars = {task: found for task, found in bars.items() if found}
    if not bars:
        return None
    rows, columns = grid_of(len(bars), 2)
    name, title = "flops-per-episode", "FLOPs per episode of the whole team"
    tallest = 1 + max(len(found) for found in bars.values())
    with Sheet(name, rows, columns, (5.2, 0.9 + 0.27 * tallest)) as sheet:
        for axes, (task, found) in sheet.panels(bars.items()):
            labels = [label for label, _, _ in found]
            values = [value.centre for _, value, _ in found]
            # Points, not bars: on a logarithmic axis a bar's length means nothing.
            axes.axvline(values[0], color=FAINT, linestyle=":", linewidth=1)
            theirs = paper.numbers()["flops_ratio"].get(task[1])
            if theirs is not None:
                labels.append("KD-MARL in the paper")
                ends = [values[0] / ratio for ratio in dict.fromkeys(theirs)]
                axes.plot(ends, [len(found)] * len(ends), marker="X", markersize=7, color=FAINT)
                _label(axes, max(ends), len(found), _fewer(*theirs))
            for row, (_, value, colour) in enumerate(found):
                axes.plot(value.centre, row, marker="o", markersize=7, color=colour, linestyle="")
                _label(axes, value.centre, row, _beside(value.centre, values[0], row))
            axes.set_yticks(range(len(labels)), labels, fontsize=9)
            axes.set_xscale("log")
            axes.set_xlim(min(values) / 2, max(values) * 8)
            axes.set_ylim(len(labels) - 0.4, -0.6)
            axes.set_xlabel("FLOPs per episode (logarithmic)")
            axes.set_title(task_title(task))
            short_ticks(axes.xaxis)
            tidy(axes, "x")
        note = "The paper's crosses are at our teacher's FLOPs over its ratio; of the StarCraft maps it gives a range."
        return Picture(name, title, sheet.svg(title), note)


def retention_against_flops(groups: Groups) -> Picture | None:
    """Draw each group's retention against the FLOPs of a decision; None if no run has both."""
    by_task = {task: _points(groups, task) for task in groups.tasks}
    by_task = {task: points for task, points in by_task.items() if points}
    if not by_task:
        return None
    rows, columns = grid_of(len(by_task), 2)
    name, title = "retention-flops", "Retention against FLOPs per decision of one agent"
    cells = [group.cell for points in by_task.values() for group, *_ in points]
    crosses = {task: _paper_points(groups, task) for task in by_task}
    with Sheet(name, rows, columns, (5.0, 3.5)) as sheet:
        for axes, (task, points) in sheet.panels(by_task.items()):
            found = TaskScores.of(groups, task)
            axes.axhline(100, color=INK, linestyle=":", linewidth=1)
            if (teacher := found.teacher_cost("flops_per_decision")) is not None:
                axes.plot(teacher.centre, 100, marker="*", markersize=13, color=INK, linestyle="")
            for group, flops, retained, is_main in points:
                method = group.cell.method
                colour = look(method).colour
                face = "white" if group.cell.sight == "random" else colour
                style = {"color": colour, "markerfacecolor": face, "capsize": 2.5, "alpha": 1 if is_main else 0.35}
                bars = [[100 * end for end in side] for side in whisker(retained)]
                marker = MARKERS.get(group.cell.limits, "o")
                axes.errorbar(
                    flops.centre, 100 * retained.centre, yerr=bars, marker=marker, markersize=7, linestyle="", **style
                )
            for ends, share, limits in crosses[task]:
                axes.plot(ends, [share] * len(ends), color=INK, linewidth=1)
                axes.plot(math.sqrt(ends[0] * ends[-1]), share, marker=MARKERS[limits], markersize=6, color=INK)
            axes.set_xscale("log")
            shares = [100 * retained.centre for _, _, retained, _ in points] + [share for _, share, _ in crosses[task]]
            ends = [
                100 * end for _, _, retained, _ in points for end in (retained.low, retained.high) if end is not None
            ]
            axes.set_ylim(*near([*shares, 100, 90], ends))
            axes.set_title(task_title(task))
            axes.set_xlabel("FLOPs per decision (logarithmic)")
            axes.set_ylabel(f"retention of the {found.measure}, per cent")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            short_ticks(axes.xaxis)
            tidy(axes)
        sheet.legend(_legend(cells, any(crosses.values())), 4)
        note = (
            "Bars are 95 % intervals over seeds; an interval that leaves the panel is cut. Pale: a configuration "
            "that is in no table, see what was left out. The paper's points are at our teacher's FLOPs over the "
            "paper's ratio, lines where it gives a range of ratios."
        )
        return Picture(name, title, sheet.svg(title), note)


def retention_overview(groups: Groups) -> Picture | None:
    """Draw the retention of KD-MARL's students against times fewer FLOPs, all tasks; None without a student."""
    cells = sorted(cell for cell in groups.main if cell.method == STUDENT and cell.limits in MARKERS)
    families = [name for name in FAMILIES if any(family(cell.task) == name for cell in cells)]
    if not families:
        return None
    tasks = sorted({cell.task for cell in cells}, key=groups.tasks.index)
    colours = {task: _TASK_COLOURS[number % len(_TASK_COLOURS)] for number, task in enumerate(tasks)}
    name, title = "retention", "Retention of the teacher against times fewer FLOPs, all tasks"
    with Sheet(name, 1, len(families), (8.4 / len(families), 3.9)) as sheet:
        for axes, wanted in zip(sheet.axes[0], families, strict=True):
            mine = [cell for cell in cells if family(cell.task) == wanted]
            points = [point for cell in mine if (point := _overview_point(groups, cell)) is not None]
            least = min([90.0, *(100 * max(0.0, share.centre) for _, share, _ in points)])
            floor = 0.0 if least < 60 else least - 4
            axes.set_ylim(floor, 104)
            below: list[float] = []
            for cell, share, fewer in points:
                colour = colours[cell.task]
                style: dict[str, Any] = {"color": colour, "linestyle": "", "zorder": 3}
                style["markerfacecolor"] = "white" if cell.sight == "random" else colour
                if 100 * share.centre < floor:
                    # Below the panel: an arrow at its lower end, with the number; near ones stand on each other.
                    axes.plot(fewer, floor, marker="v", markersize=10, clip_on=False, **style)
                    level = sum(abs(math.log(fewer / other)) < 0.3 for other in below)
                    below.append(fewer)
                    place: dict[str, Any] = {"xytext": (0, 9 + 14 * level), "textcoords": "offset points"}
                    axes.annotate(f"{100 * share.centre:.0f} %", (fewer, floor), ha="center", va="bottom", **place)
                    continue
                style |= {"marker": MARKERS[cell.limits], "markersize": 8, "capsize": 3}
                axes.errorbar(fewer, 100 * share.centre, yerr=100 * (share.half or 0.0), **style)
            _paper_crosses(axes, {cell.task: colours[cell.task] for cell in mine})
            axes.axhline(100, color=INK, linestyle=":", linewidth=1)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            short_ticks(axes.xaxis)
            axes.set_title(captions.FAMILY_TITLES[wanted], fontsize=13)
            axes.set_xlabel("times fewer FLOPs", fontsize=12)
            axes.tick_params(labelsize=11)
            tidy(axes)
        sheet.axes[0][0].set_ylabel("retention, per cent", fontsize=12)
        limits = [name for name in LIMITS if any(cell.limits == name for cell in cells)]
        handles: list[Any] = [Patch(color=colours[task], label=short_task(task[1])) for task in tasks]
        handles += [_marker(MARKERS[name], 8, FAINT, name) for name in limits]
        if any(cell.sight == "random" for cell in cells):
            handles.append(_hollow())
        handles.append(_marker("x", 7, FAINT, "the paper"))
        sheet.legend(handles, 6, size=11)
        return Picture(name, title, sheet.svg(""))


def _paper_crosses(axes: Any, colours: Mapping[Task, str]) -> None:
    """Draw the paper's students of these tasks, a line where it gives a range of ratios."""
    for task, colour in colours.items():
        ratio = paper.numbers()["flops_ratio"].get(task[1])
        for limits in LIMITS if ratio else ():
            share = paper.retention_of(task[1], STUDENT, limits)
            if share is not None:
                ends = list(dict.fromkeys(ratio))
                style: dict[str, Any] = {"marker": "x", "markersize": 6, "color": colour, "alpha": 0.7, "linewidth": 1}
                axes.plot(ends, [100 * share] * len(ends), **style)


def _marker(shape: str, size: int, colour: str, label: str) -> Line2D:
    return Line2D([], [], marker=shape, markersize=size, color=colour, linestyle="", label=label)


def _hollow() -> Line2D:
    return Line2D([], [], marker="s", color=FAINT, markerfacecolor="white", linestyle="", label="random masks")


def _overview_point(groups: Groups, cell: Cell) -> tuple[Cell, Mean, float] | None:
    """Find a cell with its retention and how many times fewer FLOPs it takes; None where a run has no retention."""
    runs = groups.main[cell].runs
    share = mean_of([run.summary["retention"] for run in runs])
    return None if share is None else (cell, share, fmean(run.summary["flops_ratio"] for run in runs))


def _label(axes: Any, x: float, row: int, text: str) -> None:
    """Write text to the right of a marker, however wide the panel is."""
    axes.annotate(text, (x, row), xytext=(7, 0), textcoords="offset points", va="center", fontsize=8.5)


def _bars(groups: Groups, task: Task) -> list[tuple[str, Estimate, str]]:
    """Collect label, value and colour, the teacher first; empty if there is nothing but a teacher."""
    found = []
    for group in groups.of_task(task):
        # Without one of its terms KD-MARL has the same networks.
        if group.cell.method in ABLATIONS:
            continue
        if (value := cost(group, "flops_per_episode")) is not None:
            found.append(
                (f"{look(group.cell.method).title}, {group.cell.setting}", value, look(group.cell.method).colour)
            )
    teacher = TaskScores.of(groups, task).teacher_cost("flops_per_episode")
    if not found or teacher is None:
        return []
    return [(look(TEACHER).title, teacher, look(TEACHER).colour), *found]


def _beside(value: float, teacher: float, row: int) -> str:
    return short(value) if row == 0 else f"{short(value)}, {teacher / value:.1f}x fewer"


def _fewer(low: float, high: float) -> str:
    return f"{low}x fewer" if low == high else f"{low}x to {high}x fewer"


def _points(groups: Groups, task: Task) -> list[tuple[Group, Estimate, Estimate, bool]]:
    """Collect groups with their FLOPs and retention; the last: whether the tables show them."""
    found = TaskScores.of(groups, task)
    wanted = groups.teachers.get(task)
    others = [group for group in groups.others if group.cell.task == task and group.teacher in ("", wanted)]
    points = []
    for group, is_main in [*((g, True) for g in groups.of_task(task)), *((g, False) for g in others)]:
        flops, retained = cost(group, "flops_per_decision"), estimate(found.retention(group))
        if flops is not None and retained is not None:
            points.append((group, flops, retained, is_main))
    return points


def _paper_points(groups: Groups, task: Task) -> list[tuple[list[float], float, str]]:
    """Collect the paper's students: FLOPs, one number or two ends, retention in per cent, and limits."""
    ratio = paper.numbers()["flops_ratio"].get(task[1])
    teacher = TaskScores.of(groups, task).teacher_cost("flops_per_decision")
    if ratio is None or teacher is None:
        return []
    ends = [teacher.centre / times for times in dict.fromkeys(ratio)]
    retained = {limits: paper.retention_of(task[1], STUDENT, limits) for limits in LIMITS}
    return [(ends, 100 * share, limits) for limits, share in retained.items() if share is not None]


def _legend(cells: Sequence[Cell], with_paper: bool) -> list[Line2D | Patch]:
    """Make the teacher's star, colours of methods and of the paper, markers of limits, hollow for random masks."""
    handles: list[Line2D | Patch] = [_marker("*", 12, INK, look(TEACHER).title)]
    methods = sorted({cell.method for cell in cells}, key=place)
    handles += [Patch(color=look(method).colour, label=look(method).title) for method in methods]
    used = {cell.limits for cell in cells}
    handles += [_marker(MARKERS[name], 7, FAINT, LIMITS_TITLES[name]) for name in LIMITS if name in used]
    if any(cell.sight == "random" for cell in cells):
        handles.append(_hollow())
    return [*handles, *([Patch(color=INK, label="KD-MARL in the paper")] if with_paper else [])]
