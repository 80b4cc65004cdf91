"""The figures of docs/results.md as SVG, without any drawing library: panels of students, and learning curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 960, 400
LEFT, RIGHT, TOP, BOTTOM, GAP = 66, 12, 92, 66, 58
OURS, PAPER, GRID, INK = "#0b62a4", "#c2500a", "#d9d9d9", "#222222"
# Colours that the colour-blind can tell apart, and a dash pattern each.
LINES = (("#0072b2", "none"), ("#d55e00", "9 3"), ("#009e73", "3 3"), ("#aa4499", "9 3 3 3"))


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
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """A learning curve: (environment steps, win rate in [0, 1]) in order, and the step whose weights were kept."""

    name: str
    points: Sequence[tuple[float, float]]
    kept: float | None


def panels(rows: Sequence[Panel], words: Words, shows: tuple[float, float]) -> str:
    """Scores per setting, a panel for each task.

    Args:
        rows: the panels, from left to right.
        words: title, axis and legend.
        shows: per cents that every panel's scale takes in; it grows with what lies outside.
    """
    width = (WIDTH - LEFT - RIGHT - GAP * (len(rows) - 1)) / len(rows)
    body = [*_opening(words.title, words.axis), _text(WIDTH - RIGHT, 26, words.note, anchor="end", size=12)]
    body += _legend(
        [
            (_circle(6, 0, OURS), 17, "this project: mean over seeds, 95 % interval"),
            *([(_diamond(6, 0), 17, words.paper)] if words.paper else []),
            (f'<path d="M0 0h22" stroke="{INK}" stroke-dasharray="5 4"/>', 28, "the teacher"),
            ("", 0, "? not measured"),
        ]
    )
    for number, panel in enumerate(rows):
        body += _panel(panel, LEFT + number * (width + GAP), width, shows)
    return "\n".join([*body, "</svg>"]) + "\n"


def curves(lines: Sequence[Curve], title: str) -> str:
    """Win rate against environment steps, a line for each task; a ring marks the weights that were kept."""
    body = _opening(title, "win rate, per cent")
    body += _legend(
        [(_path([(0, 0), (28, 0)], number), 34, line.name) for number, line in enumerate(lines)]
        + [(_ring(6, 0, INK), 17, "the weights that were kept")]
    )
    width = WIDTH - LEFT - 4 * RIGHT
    across = ticks(0.0, max((step for line in lines for step, _ in line.points), default=1.0) / 1e6)
    scale = Scale.over(0.0, 100.0)

    def x(steps: float) -> float:
        return LEFT + steps / 1e6 / across[-1] * width

    for mark in across:
        body.append(f'<path d="M{x(1e6 * mark):.1f} {HEIGHT - BOTTOM}v5" stroke="{INK}"/>')
        body.append(_text(x(1e6 * mark), HEIGHT - BOTTOM + 20, f"{mark:g}", anchor="middle", size=12))
    body.append(_text(LEFT + width / 2, HEIGHT - 20, "environment steps, millions", anchor="middle"))
    body += scale.rules(LEFT, width)
    for number, line in enumerate(lines):
        body.append(_path([(x(steps), scale.y(100 * wins)) for steps, wins in line.points], number))
        body += [
            _ring(x(steps), scale.y(100 * wins), LINES[number % len(LINES)][0])
            for steps, wins in line.points
            if steps == line.kept
        ]
    return "\n".join([*body, "</svg>"]) + "\n"


def ticks(low: float, high: float) -> list[float]:
    """Four to nine round numbers, the first at or below ``low`` and the last at or above ``high``."""
    rough = max(high - low, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


@dataclass(frozen=True)
class Scale:
    """A vertical scale between the first and the last of its marks."""

    marks: Sequence[float]

    @classmethod
    def over(cls, low: float, high: float) -> Scale:
        """One that takes in both ends."""
        return cls(ticks(low, high))

    def y(self, value: float) -> float:
        """Where a value is drawn."""
        low, high = self.marks[0], self.marks[-1]
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    def rules(self, left: float, width: float) -> list[str]:
        """A line and a number for each mark."""
        lines = [f'<path d="M{left:.1f} {self.y(mark):.1f}h{width:.1f}" stroke="{GRID}"/>' for mark in self.marks]
        return lines + [_text(left - 6, self.y(mark) + 4, f"{mark:g}", anchor="end", size=12) for mark in self.marks]


def _panel(panel: Panel, left: float, width: float, shows: tuple[float, float]) -> list[str]:
    drawn = [value for point in panel.points for value in (point.ours, point.low, point.high, point.paper)]
    ends = [*shows, *(100 * value for value in (*drawn, panel.teacher) if value is not None)]
    scale = Scale.over(min(ends), max(ends))
    parts = [_text(left, TOP - 14, panel.task, weight="bold"), *scale.rules(left, width)]
    if panel.teacher is not None:
        level = scale.y(100 * panel.teacher)
        parts.append(f'<path d="M{left:.1f} {level:.1f}h{width:.1f}" stroke="{INK}" stroke-dasharray="5 4"/>')
    for number, point in enumerate(panel.points):
        x = left + width * (number + 0.5) / len(panel.points)
        for line, word in enumerate(point.setting.split("-")):
            parts.append(_text(x, HEIGHT - BOTTOM + 20 + 15 * line, word, anchor="middle", size=12))
        if point.paper is not None:
            parts.append(_diamond(x + 12, scale.y(100 * point.paper)))
        if point.ours is None:
            parts.append(_text(x, scale.y((scale.marks[0] + scale.marks[-1]) / 2), "?", anchor="middle"))
            continue
        if point.low is not None and point.high is not None:
            top, bottom = scale.y(100 * point.high), scale.y(100 * point.low)
            whisker = f"M{x:.1f} {top:.1f}V{bottom:.1f}M{x - 4:.1f} {top:.1f}h8M{x - 4:.1f} {bottom:.1f}h8"
            parts.append(f'<path d="{whisker}" stroke="{OURS}" stroke-width="1.6" fill="none"/>')
        parts.append(_circle(x, scale.y(100 * point.ours), OURS))
    return parts


def _opening(title: str, axis: str) -> list[str]:
    """What every figure begins with: the sheet, the title and the name of the vertical axis."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" font-family="Helvetica, Arial, sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 26, title, size=17, weight="bold"),
        f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle" '
        f'fill="{INK}">{escape(axis)}</text>',
    ]


def _legend(entries: Sequence[tuple[str, float, str]]) -> list[str]:
    """A row of signs with their meanings: (drawn about the origin, where its words begin, words)."""
    parts, left = [], float(LEFT)
    for sign, indent, meaning in entries:
        parts += [f'<g transform="translate({left:.1f} 46)">{sign}</g>', _text(left + indent, 50, meaning)]
        # Letters of this size are about this wide.
        left += indent + 6.9 * len(meaning) + 22
    return parts


def _path(points: Sequence[tuple[float, float]], number: int) -> str:
    """A line through points, in the colour and dashes of the line with that number."""
    colour, dashes = LINES[number % len(LINES)]
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>'


def _circle(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>'


def _ring(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="white" stroke="{colour}" stroke-width="2"/>'


def _diamond(x: float, y: float) -> str:
    return (
        f'<path d="M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z" fill="white" stroke="{PAPER}" stroke-width="2"/>'
    )


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 13, weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
        f'fill="{INK}">{escape(words)}</text>'
    )
