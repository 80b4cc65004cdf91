"""Retention against the bits that an agent sends: what messages bring, as a figure and as a table."""

from __future__ import annotations

from matplotlib.lines import Line2D

from kd_marl.report.drawing import INK, MARKERS, Picture, Sheet, grid_of, near, tidy, whisker
from kd_marl.report.estimates import Estimate, estimate
from kd_marl.report.groups import Group, Groups, Task
from kd_marl.report.markdown import short
from kd_marl.report.methods import LIMITS, setting_title, task_title
from kd_marl.report.scores import TaskScores, cost
from kd_marl.report.tables import RUNS, Rows, percent, seeds_and_episodes

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499")
_Points = list[tuple[Group, float, Estimate]]


def retention_against_bits(groups: Groups) -> Picture | None:
    """Draw each task's students by the bits that an agent sends a step; None where no student talks."""
    by_task = {task: points for task in groups.tasks if (points := _points(groups, task))}
    if not by_task:
        return None
    name, title = "retention-bits", "Retention against the bits that one agent sends a step"
    rows, columns = grid_of(len(by_task), 2)
    settings = sorted({group.cell[2:] for points in by_task.values() for group, *_ in points})
    colours = {setting: _COLOURS[number % len(_COLOURS)] for number, setting in enumerate(settings)}
    with Sheet(name, rows, columns, (5.0, 3.5)) as sheet:
        for axes, (task, points) in sheet.panels(by_task.items()):
            axes.axhline(100, color=INK, linestyle=":", linewidth=1)
            for setting in settings:
                mine = [(bits, share) for group, bits, share in points if group.cell[2:] == setting]
                bars = [[100 * whisker(share)[side][0] for _, share in mine] for side in (0, 1)]
                style = {"color": colours[setting], "marker": MARKERS[setting[0]], "markersize": 6, "capsize": 2.5}
                ends = [100 * share.centre for _, share in mine]
                axes.errorbar([bits for bits, _ in mine], ends, yerr=bars, linewidth=1, **style)
            shares = [100 * share.centre for *_, share in points]
            ends = [100 * end for *_, share in points for end in (share.low, share.high) if end is not None]
            axes.set_ylim(*near([*shares, 100], ends))
            axes.set_xscale("symlog", base=2, linthresh=1)
            ticks = sorted({bits for _, bits, _ in points})
            axes.set_xticks(ticks, [f"{bits:g}" for bits in ticks])
            axes.minorticks_off()
            axes.set_title(task_title(task))
            axes.set_xlabel("bits a step (logarithmic)")
            axes.set_ylabel(f"retention of the {TaskScores.of(groups, task).measure}, per cent")
            tidy(axes)
        handles = [
            Line2D([], [], color=colours[setting], marker=MARKERS[setting[0]], label=setting_title(*setting))
            for setting in settings
        ]
        sheet.legend(handles, 4)
        note = "Bars are 95 % intervals over seeds. Students that differ in more than their messages are drawn too."
        return Picture(name, title, sheet.svg(title), note)


def bits_table(groups: Groups) -> Rows:
    """Write the same as a table: bandwidth, retention and FLOPs of all students of tasks where some talk."""
    head = ["task", "limits", "bits a step", "bits a second", "retention", "FLOPs per decision", RUNS]
    rows = []
    for task in groups.tasks:
        for group, bits, share in _points(groups, task):
            second, flops = group.runs[0].summary.get("bits_per_second"), cost(group, "flops_per_decision")
            rows.append(
                [
                    task_title(task),
                    group.cell.setting,
                    f"{bits:g}",
                    "-" if second is None else f"{second:g}",
                    percent(share),
                    "-" if flops is None else short(flops.centre),
                    seeds_and_episodes(group.runs),
                ]
            )
    return head, rows


def _points(groups: Groups, task: Task) -> _Points:
    """Collect a task's students with their bits and retention, by limits and bits; empty where none talks."""
    found, wanted = TaskScores.of(groups, task), groups.teachers.get(task)
    others = [group for group in groups.others if group.cell.task == task and group.teacher == wanted]
    points = []
    for group in [*groups.students(task), *others]:
        bits, share = group.runs[0].summary.get("bits_per_step"), estimate(found.retention(group))
        if bits is not None and share is not None and group.cell.limits in MARKERS:
            points.append((group, float(bits), share))
    if not any(bits for _, bits, _ in points):
        return []
    return sorted(points, key=lambda point: (LIMITS.index(point[0].cell.limits), point[0].cell.sight, point[1]))
