"""Learning curves, and how often each student does what its teacher would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from kd_marl.report.drawing import DASHES, FAINT, INK, MARKERS, Picture, Sheet, grid_of, short_ticks, tidy, whisker
from kd_marl.report.estimates import estimate
from kd_marl.report.groups import Group, Groups, Task
from kd_marl.report.methods import (
    ABLATIONS,
    LIMITS,
    LIMITS_TITLES,
    STUDENT,
    look,
    place,
    setting_title,
    short_task,
    task_title,
)
from kd_marl.report.scores import TaskScores

# Shades of one colour for the settings of KD-MARL.
_SHADES = ("#0b3c5d", "#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73")


def learning_curves(groups: Groups, tasks: Sequence[Task], name: str, terms: bool = False) -> Picture | None:
    """Draw tests during training: a row of panels for each task, a panel for each limit; None without any curve.

    Args:
        groups: the runs.
        tasks: whose curves.
        name: of the picture.
        terms: KD-MARL beside itself with each term removed, where that was run; else all other methods.

    Raises:
        UserError: a run's ``metrics.json`` is broken.
    """
    removed = {group.cell._replace(method=STUDENT) for t in tasks for group in groups.of_task(t) if _is_term(group)}
    wanted = [
        g for t in tasks for g in groups.of_task(t) if (_is_term(g) or g.cell in removed if terms else not _is_term(g))
    ]
    curves = {group.cell: curve for group in wanted if (curve := _curve(groups, group))}
    drawn = [task for task in tasks if any(cell.task == task for cell in curves)]
    if not drawn:
        return None
    columns = [limits for limits in LIMITS if any(cell.limits == limits for cell in curves)]
    title = f"Learning curves{' with each term removed' if terms else ''}: tests during training"
    methods: set[str] = set()
    with Sheet(name, len(drawn), len(columns), (3.7, 2.7), sharey="row", sharex="row") as sheet:
        for row, task in zip(sheet.axes, drawn, strict=True):
            found = TaskScores.of(groups, task)
            scale = 100.0 if found.wins else 1.0
            level = found.teacher("win_rate" if found.wins else "return_mean")
            for axes, limits in zip(row, columns, strict=True):
                mine = [cell for cell in curves if (cell.task, cell.limits) == (task, limits)]
                for cell in mine:
                    methods.add(cell.method)
                    steps, centre, low, high = curves[cell]
                    colour = look(cell.method).colour
                    style: dict[str, Any] = {"color": colour, "linestyle": DASHES[cell.sight], "marker": "."}
                    axes.plot(steps, scale * centre, linewidth=1.6, markersize=4, **style)
                    axes.fill_between(steps, scale * low, scale * high, color=colour, alpha=0.15, linewidth=0)
                if level is not None:
                    axes.axhline(scale * level.centre, color=INK, linestyle=":", linewidth=1)
                if not mine:
                    axes.text(0.5, 0.5, "not run", transform=axes.transAxes, ha="center", color=INK)
                axes.set_title(f"{short_task(task[1])}, {LIMITS_TITLES[limits]}", fontsize=10)
                axes.set_xlabel("environment steps")
                short_ticks(axes.xaxis)
                tidy(axes)
            row[0].set_ylabel("win rate, per cent" if found.wins else "mean return")
        handles = [Line2D([], [], color=look(m).colour, label=look(m).title) for m in sorted(methods, key=place)]
        masks = sorted({cell.sight for cell in curves} - {""})
        if len(masks) > 1:
            handles += [Line2D([], [], color=FAINT, linestyle=DASHES[mask], label=f"{mask} masks") for mask in masks]
        handles.append(Line2D([], [], color=INK, linestyle=":", linewidth=1, label="teacher, final evaluation"))
        sheet.legend(handles)
        note = (
            "Policies act greedily, but for MAPPO, which EPyMARL tests as it trains: actions are sampled. "
            "Interquartile mean over seeds, shaded its 95 % interval. Steps are those of the environment in this "
            "stage: a student's teacher and expert buffer took steps of their own."
        )
        return Picture(name, title, sheet.svg(title), note)


def teacher_curves(groups: Groups) -> Picture | None:
    """Draw the training of the teachers, of those whose artifacts are still there; None without any."""
    found = {task: TaskScores.of(groups, task).teachers for task in groups.tasks}
    found = {
        task: teachers for task, teachers in found.items() if any(facts.get("tests") for facts in teachers.values())
    }
    if not found:
        return None
    name, title = "teacher-curves", "Learning curves of the teachers (greedy tests; one training each)"
    with Sheet(name, *grid_of(len(found), 4), (3.2, 2.6)) as sheet:
        for axes, (task, teachers) in sheet.panels(found.items()):
            wins = TaskScores.of(groups, task).wins
            for (teacher, facts), dashes in zip(teachers.items(), ("-", "--", ":", "-."), strict=False):
                tests = facts.get("tests") or []
                # A test is [steps, return] or, where battles are won, [steps, return, win rate].
                values = [100 * test[2] if wins and len(test) > 2 else test[1] for test in tests]
                axes.plot(
                    [test[0] for test in tests], values, color=INK, linestyle=dashes, linewidth=1.4, label=teacher
                )
                for test, value in zip(tests, values, strict=True):
                    if test[0] == facts.get("best_test_step"):
                        axes.plot(test[0], value, marker="o", markerfacecolor="white", color=INK, zorder=3)
            if len(teachers) > 1:
                axes.legend(frameon=False, fontsize=8)
            axes.set_title(task_title(task), fontsize=10)
            axes.set_xlabel("environment steps")
            axes.set_ylabel("win rate, per cent" if wins else "mean return")
            short_ticks(axes.xaxis)
            tidy(axes)
        return Picture(name, title, sheet.svg(title), "A ring marks the weights that the teacher has.")


def agreement_per_agent(groups: Groups) -> tuple[Picture | None, list[Group]]:
    """Draw how often each agent of KD-MARL does what the teacher would; the groups whose runs did not measure it."""
    students = [group for task in groups.tasks for group in groups.students(task) if group.cell.method == STUDENT]
    able = [g for g in students if all(run.summary.get("agreement_per_agent") for run in g.runs)]
    lacking = [group for group in students if group not in able]
    tasks = list(dict.fromkeys(group.cell.task for group in able))
    if not able:
        return None, lacking
    name, title = "agreement", "How often each agent takes the action that the teacher would take in its place"
    settings = sorted({g.cell[2:] for g in able}, key=lambda key: (LIMITS.index(key[0]), key[1]))
    shades = dict(zip(settings, _SHADES, strict=False))
    with Sheet(name, *grid_of(len(tasks)), (4.0, 3.0), sharey=True) as sheet:
        for axes, task in sheet.panels(tasks):
            mine = [group for group in able if group.cell.task == task]
            for number, group in enumerate(mine):
                each = zip(*(run.summary["agreement_per_agent"] for run in group.runs), strict=True)
                for agent, values in enumerate(each):
                    if (value := estimate(values)) is None:
                        continue
                    aside = 0.6 * ((number + 0.5) / len(mine) - 0.5)
                    bars = [[100 * end for end in side] for side in whisker(value)]
                    marker, colour = MARKERS[group.cell.limits], shades.get(group.cell[2:], INK)
                    axes.errorbar(
                        agent + aside, 100 * value.centre, yerr=bars, color=colour, marker=marker, capsize=2.5
                    )
            agents = range(len(mine[0].runs[0].summary["agreement_per_agent"]))
            axes.set_xticks(list(agents), [str(agent) for agent in agents])
            axes.set_xlabel("agent")
            axes.set_title(task_title(task))
            tidy(axes)
        for row in sheet.axes:
            row[0].set_ylabel("agreement, per cent of decisions")
        handles = [
            Line2D([], [], color=shade, marker=MARKERS[key[0]], linestyle="", label=setting_title(*key))
            for key, shade in shades.items()
        ]
        sheet.legend(handles, 5)
        note = "KD-MARL in its own episodes, both greedy; interquartile mean over seeds and 95 % interval."
        return Picture(name, title, sheet.svg(title), note), lacking


def _is_term(group: Group) -> bool:
    return group.cell.method in ABLATIONS


def _curve(groups: Groups, group: Group) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Find steps, and the score's interquartile mean, low and high ends at each test that all seeds have made.

    Of each seed it is the test that is nearest.
    """
    wins = TaskScores.of(groups, group.cell.task).wins
    name = "test_battle_won_mean" if wins else "test_return_mean"
    curves = [run.metrics[name] for run in group.runs if name in run.metrics]
    if len(curves) < len(group.runs):
        return None
    # Seeds test at almost the same steps; one that was gone on with may lack the first tests, or have made one twice.
    grid = np.unique(min((steps for steps, _ in curves), key=len))
    slack = np.diff(grid).max(initial=0.0) / 2
    begin, end = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
    grid = grid[(grid >= begin - slack) & (grid <= end + slack)]
    if len(grid) < 2:
        return None
    tests = [values[np.abs(steps[:, None] - grid).argmin(axis=0)] for steps, values in curves]
    found = [estimate([float(values[test]) for values in tests]) for test in range(len(grid))]
    if any(value is None for value in found):
        return None
    centre = [value.centre for value in found if value]
    low = [value.centre if value.low is None else value.low for value in found if value]
    high = [value.centre if value.high is None else value.high for value in found if value]
    return grid, np.array(centre), np.array(low), np.array(high)
