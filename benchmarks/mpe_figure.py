"""The figure of docs/results.md: retention for each task and setting, as an SVG without any drawing library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 960, 400
LEFT, RIGHT, TOP, BOTTOM, GAP = 66, 12, 92, 66, 58
OURS, PAPER, GRID, INK = "#0b62a4", "#c2500a", "#d9d9d9", "#222222"


@dataclass(frozen=True)
class Point:
    """Retention of a setting (1 is the teacher), half its interval, and the paper's; None where there is none."""

    setting: str
    ours: float | None
    half: float | None
    paper: float | None


def figure(panels: Mapping[str, Sequence[Point]]) -> str:
    """The SVG: a panel for each task, each with a scale of its own."""
    width = (WIDTH - LEFT - RIGHT - GAP * (len(panels) - 1)) / len(panels)
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" font-family="Helvetica, Arial, sans-serif" font-size="13">',
        "<title>Retention of the students, for each task and setting</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 26, "How much of the teacher's return the students keep", size=17, weight="bold"),
        _text(LEFT + 674, 26, "each panel has a scale of its own", size=12),
        _legend(),
        f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle" '
        f'fill="{INK}">retention 1 - |S-T|/|T|, per cent</text>',
    ]
    for number, (task, row) in enumerate(panels.items()):
        body += _panel(task, row, LEFT + number * (width + GAP), width)
    return "\n".join([*body, "</svg>"]) + "\n"


def ticks(low: float, high: float) -> list[float]:
    """Four to nine round numbers, the first at or below ``low`` and the last at or above ``high``."""
    rough = max(high - low, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _panel(task: str, row: Sequence[Point], left: float, width: float) -> list[str]:
    ends = [100.0]
    for point in row:
        if point.ours is not None:
            ends += [100 * (point.ours - (point.half or 0)), 100 * (point.ours + (point.half or 0))]
        if point.paper is not None:
            ends.append(100 * point.paper)
    marks = ticks(min([90.0, *ends]), max([100.0, *ends]))

    def y(per_cent: float) -> float:
        return HEIGHT - BOTTOM - (per_cent - marks[0]) / (marks[-1] - marks[0]) * (HEIGHT - BOTTOM - TOP)

    parts = [_text(left, TOP - 14, task, weight="bold")]
    for mark in marks:
        parts.append(f'<path d="M{left:.1f} {y(mark):.1f}h{width:.1f}" stroke="{GRID}"/>')
        parts.append(_text(left - 6, y(mark) + 4, f"{mark:g}", anchor="end", size=12))
    # The teacher's own level.
    parts.append(f'<path d="M{left:.1f} {y(100):.1f}h{width:.1f}" stroke="{INK}" stroke-dasharray="5 4"/>')
    for number, point in enumerate(row):
        x = left + width * (number + 0.5) / len(row)
        for line, word in enumerate(point.setting.split("-")):
            parts.append(_text(x, HEIGHT - BOTTOM + 20 + 15 * line, word, anchor="middle", size=12))
        if point.paper is not None:
            parts.append(_diamond(x + 12, y(100 * point.paper)))
        if point.ours is None:
            parts.append(_text(x, y((marks[0] + marks[-1]) / 2), "?", anchor="middle"))
            continue
        if point.half is not None:
            top, bottom = y(100 * (point.ours + point.half)), y(100 * (point.ours - point.half))
            whisker = f"M{x:.1f} {top:.1f}V{bottom:.1f}M{x - 4:.1f} {top:.1f}h8M{x - 4:.1f} {bottom:.1f}h8"
            parts.append(f'<path d="{whisker}" stroke="{OURS}" stroke-width="1.6" fill="none"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y(100 * point.ours):.1f}" r="4.5" fill="{OURS}"/>')
    return parts


def _legend() -> str:
    y = 50
    return "\n".join(
        [
            f'<circle cx="{LEFT + 6}" cy="{y - 4}" r="4.5" fill="{OURS}"/>',
            _text(LEFT + 17, y, "this project: mean over seeds, 95 % interval"),
            _diamond(LEFT + 316, y - 4),
            _text(LEFT + 327, y, "the paper, Table II (LH, LH+A)"),
            f'<path d="M{LEFT + 546} {y - 4}h22" stroke="{INK}" stroke-dasharray="5 4"/>',
            _text(LEFT + 574, y, "the teacher"),
            _text(LEFT + 674, y, "? not measured"),
        ]
    )


def _diamond(x: float, y: float) -> str:
    return (
        f'<path d="M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z" fill="white" stroke="{PAPER}" stroke-width="2"/>'
    )


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 13, weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
        f'fill="{INK}">{escape(words)}</text>'
    )
