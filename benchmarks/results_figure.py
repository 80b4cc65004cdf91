"""The figures of docs/results.md: panels of students beside their teacher, and learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kd_marl.report.drawing import INK, Sheet, tidy

OURS, PAPER = "#0b62a4", "#c2500a"
# Colours that the colour-blind can tell apart, and a dash pattern each.
LINES = (("#0072b2", "-"), ("#d55e00", "--"), ("#009e73", ":"), ("#aa4499", "-."), ("#e69f00", (0, (5, 1, 1, 1, 1, 1))))


@dataclass(frozen=True)
class Point:
    """A setting's score, the ends of its interval, and the paper's score: 1 is 100 %, None where there is none."""

    setting: str
    ours: float | None
    low: float | None
    high: float | None
    paper: float | None


@dataclass(frozen=True)
class Panel:
    """The students of one task, and the level of their teacher; None if that is unknown."""

    task: str
    teacher: float | None
    points: Sequence[Point]


@dataclass(frozen=True)
class Words:
    """What a figure of panels says of itself; ``paper`` names the paper's points, where there are any."""

    title: str
    axis: str
    paper: str = ""


@dataclass(frozen=True)
class Curve:
    """A learning curve: (environment steps, win rate in [0, 1]) in order, and the step whose weights were kept."""

    name: str
    points: Sequence[tuple[float, float]]
    kept: float | None


def panels(rows: Sequence[Panel], words: Words, shows: tuple[float, float]) -> str:
    """Scores per setting as SVG, a panel for each task.

    Args:
        rows: the panels, from left to right.
        words: title, axis and legend.
        shows: per cents that every panel's scale takes in; it grows with what lies outside.
    """
    with Sheet("students", 1, len(rows), (3.2, 2.9)) as sheet:
        for axes, panel in zip(sheet.axes[0], rows, strict=True):
            draw_panel(axes, panel, shows)
        sheet.axes[0][0].set_ylabel(words.axis)
        paper = Line2D([], [], ls="", marker="D", mfc="white", mec=PAPER, label=words.paper)
        sheet.legend(
            [
                Line2D([], [], color=OURS, marker="o", label="this project: mean over seeds, 95 % interval"),
                *([paper] if words.paper else []),
                Line2D([], [], color=INK, ls="--", label="the teacher"),
                Line2D([], [], ls="", marker="$?$", color=INK, label="not measured"),
            ]
        )
        return sheet.svg(words.title)


def draw_panel(axes: Axes, panel: Panel, shows: tuple[float, float]) -> None:
    """One task's students; values as per cents."""
    drawn = [value for point in panel.points for value in (point.ours, point.low, point.high, point.paper)]
    ends = [*shows, *(100 * value for value in (*drawn, panel.teacher) if value is not None)]
    low, high = min(ends), max(ends)
    axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    axes.set_xlim(-0.5, len(panel.points) - 0.5)
    axes.set_xticks(range(len(panel.points)), [point.setting.replace("-", "\n") for point in panel.points])
    axes.set_title(panel.task)
    tidy(axes)
    if panel.teacher is not None:
        axes.axhline(100 * panel.teacher, color=INK, ls="--", lw=1.0)
    for number, point in enumerate(panel.points):
        if point.paper is not None:
            axes.plot(number + 0.15, 100 * point.paper, ls="", marker="D", mfc="white", mec=PAPER)
        if point.ours is None:
            axes.text(number, (low + high) / 2, "?", ha="center")
            continue
        if point.low is not None and point.high is not None:
            axes.vlines(number, 100 * point.low, 100 * point.high, color=OURS)
        axes.plot(number, 100 * point.ours, ls="", marker="o", color=OURS)


def curves(lines: Sequence[Curve], title: str) -> str:
    """Win rate against environment steps as SVG, a line for each teacher."""
    with Sheet("curves", 1, 1, (9.6, 3.6)) as sheet:
        draw_curves(sheet.axes[0][0], lines)
        shown = [Line2D([], [], color=LINES[n][0], ls=LINES[n][1], label=line.name) for n, line in enumerate(lines)]
        kept = Line2D([], [], ls="", marker="o", mfc="white", mec=INK, label="the weights that were kept")
        sheet.legend([*shown, kept], columns=len(shown) + 1)
        return sheet.svg(title)


def draw_curves(axes: Axes, lines: Sequence[Curve]) -> None:
    """Steps in millions, win rates in per cent; a ring marks the weights that were kept."""
    axes.set_ylim(-4, 104)
    axes.set_xlabel("environment steps, millions")
    axes.set_ylabel("win rate, per cent")
    tidy(axes)
    for line, (colour, dashes) in zip(lines, LINES, strict=False):
        points = [(steps / 1e6, 100 * wins) for steps, wins in line.points]
        axes.plot(*zip(*points, strict=True), color=colour, ls=dashes)
        for (steps, _), (x, y) in zip(line.points, points, strict=True):
            if steps == line.kept:
                axes.plot(x, y, marker="o", mfc="white", mec=colour, zorder=3)
