"""The figure of `kd-marl pareto`: retention against three costs, as an SVG without any drawing library."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 1020, 430
LEFT, RIGHT, TOP, BOTTOM, GAP = 66, 16, 92, 62, 34
OURS, PAPER, GRID, INK = "#0b62a4", "#c2500a", "#d9d9d9", "#222222"


@dataclass(frozen=True)
class _Panel:
    """A cost: its title and unit, and where it is found in points, in the paper's and in the teacher's facts."""

    title: str
    key: str
    unit: float = 1.0
    low_key: str = ""
    high_key: str = ""


_PANELS = (
    _Panel("FLOPs of a decision", "flops"),
    _Panel("flash of an agent, KB", "flash_bytes", 1024.0),
    _Panel("C through the runtime, µs", "decision_us", 1.0, "decision_us_low", "decision_us_high"),
)


def figure(facts: Mapping[str, Any]) -> str:
    """Return the SVG.

    Args:
        facts: the content of ``pareto.json``.
    """
    width = (WIDTH - LEFT - RIGHT - GAP * (len(_PANELS) - 1)) / len(_PANELS)
    marks = linear_ticks(*_retained(facts))
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" font-family="Helvetica, Arial, sans-serif" font-size="13">',
        f"<title>{escape(facts['task'])}: retention against FLOPs, bytes and microseconds</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 26, f"{facts['task']}: retention and costs of a student", size=17, weight="bold"),
        _legend(bool(facts["paper"]), len(facts["points"][0]["seeds"]), "knee_bits" in facts),
        f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle" '
        f'fill="{INK}">retention of the {facts["measures"]}, per cent</text>',
    ]
    for number, panel in enumerate(_PANELS):
        body += _panel(facts, panel, LEFT + number * (width + GAP), width, marks, labelled=number == 0)
    return "\n".join([*body, "</svg>"]) + "\n"


def is_knee(facts: Mapping[str, Any], point: Mapping[str, Any]) -> bool:
    """Tell whether a point of ``pareto.json`` is the knee."""
    alike = "knee_bits" not in facts or point["message_bits"] == facts["knee_bits"]
    return alike and bool(point["width"] == facts["knee"])


def linear_ticks(low: float, high: float) -> list[float]:
    """Return four to nine round numbers, the first at or below ``low`` and the last at or above ``high``."""
    rough = max(high - low, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers in a range of positive ones: 1, 2 and 5 of each power of ten, or as many as have room."""
    for factors in ((1, 2, 5), (1, 3), (1,)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
        if len(found) <= 6:
            break
    return found if len(found) > 1 else [mark for mark in linear_ticks(low, high) if low <= mark <= high]


def _retained(facts: Mapping[str, Any]) -> tuple[float, float]:
    """Return the lowest and highest per cent of all points, of the teacher's 100, and of intervals that have room.

    The interval of two or three seeds may be many times as long as all that the points have between them.
    """
    means = [100.0, *(100 * point["retention"] for point in (*facts["paper"], *facts["points"]))]
    low, high = min([90.0, *means]), max(means)
    room = 0.3 * (high - low)
    ends = [100 * (p["retention"] + sign * (p["half"] or 0.0)) for p in facts["points"] for sign in (-1, 1)]
    return max(low - room, min([low, *ends])), min(high + room, max([high, *ends]))


def _panel(
    facts: Mapping[str, Any], panel: _Panel, left: float, width: float, marks: Sequence[float], labelled: bool
) -> list[str]:
    points = [point for point in facts["points"] if point.get(panel.key) is not None]
    middle = left + width / 2
    parts = [_text(middle, HEIGHT - 18, panel.title, anchor="middle", weight="bold")]

    def y(share: float) -> float:
        inside = min(max(100 * share, marks[0]), marks[-1])
        return HEIGHT - BOTTOM - (inside - marks[0]) / (marks[-1] - marks[0]) * (HEIGHT - BOTTOM - TOP)

    for mark in marks:
        parts.append(f'<path d="M{left:.1f} {y(mark / 100):.1f}h{width:.1f}" stroke="{GRID}"/>')
        if labelled:
            parts.append(_text(left - 6, y(mark / 100) + 4, f"{mark:g}", anchor="end", size=12))
    parts.append(f'<path d="M{left:.1f} {y(1.0):.1f}h{width:.1f}" stroke="{INK}" stroke-dasharray="5 4"/>')
    if not points:
        return [*parts, _text(middle, y(marks[0] / 100) - 40, "not measured", anchor="middle")]
    costs = _costs(facts, panel, points)
    # Room on both sides, for the outermost points and their labels.
    low, high = math.log(min(costs)), math.log(max(costs))
    room = 0.08 * (high - low) + 0.06

    def x(cost: float) -> float:
        return left + width * (math.log(cost / panel.unit) - low + room) / (high - low + 2 * room)

    for mark in log_ticks(math.exp(low - room), math.exp(high + room)):
        place = x(mark * panel.unit)
        parts.append(f'<path d="M{place:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="{GRID}"/>')
        parts.append(_text(place, HEIGHT - BOTTOM + 17, _short(mark), anchor="middle", size=12))
    if panel.key in facts["teacher"]:
        place = x(facts["teacher"][panel.key])
        parts.append(f'<rect x="{place - 5:.1f}" y="{y(1.0) - 5:.1f}" width="10" height="10" fill="{INK}"/>')
    parts += _paper(facts, panel, x, y)
    return parts + _ours(facts, panel, points, x, y)


def _costs(facts: Mapping[str, Any], panel: _Panel, points: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return every cost that a panel shows, in its unit."""
    costs = [point[key] for point in points for key in (panel.key, panel.low_key, panel.high_key) if key]
    costs += [facts["teacher"][panel.key]] if panel.key in facts["teacher"] else []
    for point in facts["paper"]:
        costs += _span(point, panel)
    return [cost / panel.unit for cost in costs]


def _span(point: Mapping[str, Any], panel: _Panel) -> list[float]:
    """Return the lowest and highest cost of one of the paper's points; empty where the paper gives none."""
    value = point.get(panel.key)
    return [] if value is None else list(value) if isinstance(value, Sequence) else [value, value]


def _paper(
    facts: Mapping[str, Any], panel: _Panel, x: Callable[[float], float], y: Callable[[float], float]
) -> list[str]:
    parts = []
    for point in facts["paper"]:
        if not (span := _span(point, panel)):
            continue
        low, high, height = x(span[0]), x(span[1]), y(point["retention"])
        if high - low > 1:
            parts.append(f'<path d="M{low:.1f} {height:.1f}H{high:.1f}" stroke="{PAPER}" stroke-width="2"/>')
        # One on each side, for they may lie on each other.
        side, anchor = (9, "start") if point["name"] == "LH" else (-9, "end")
        middle = (low + high) / 2
        parts += [_diamond(middle, height), _text(middle + side, height + 4, point["name"], anchor=anchor, size=11)]
    return parts


def _ours(
    facts: Mapping[str, Any],
    panel: _Panel,
    points: Sequence[Mapping[str, Any]],
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> list[str]:
    parts = []
    on_front = sorted((point for point in points if point["on_front"]), key=lambda point: point["flops"])
    places = " ".join(f"{x(point[panel.key]):.1f},{y(point['retention']):.1f}" for point in on_front)
    parts.append(f'<polyline points="{places}" fill="none" stroke="{OURS}" stroke-width="1.6"/>')
    for number, point in enumerate(points):
        across, up = x(point[panel.key]), y(point["retention"])
        if point["half"] is not None:
            ends = [y(point["retention"] + sign * point["half"]) for sign in (1, -1)]
            # An end that lies outside has no cap.
            caps = "".join(f"M{across - 4:.1f} {end:.1f}h8" for end in ends if TOP < end < HEIGHT - BOTTOM)
            whisker = f"M{across:.1f} {ends[0]:.1f}V{ends[1]:.1f}{caps}"
            parts.append(f'<path d="{whisker}" stroke="{OURS}" stroke-width="1.6" fill="none"/>')
        if panel.low_key:
            low, high = x(point[panel.low_key]), x(point[panel.high_key])
            parts.append(f'<path d="M{low:.1f} {up:.1f}H{high:.1f}" stroke="{OURS}" stroke-width="1.6"/>')
        fill = OURS if point["on_front"] else "white"
        parts.append(
            f'<circle cx="{across:.1f}" cy="{up:.1f}" r="4.5" fill="{fill}" stroke="{OURS}" stroke-width="1.6"/>'
        )
        if is_knee(facts, point):
            parts.append(
                f'<circle cx="{across:.1f}" cy="{up:.1f}" r="9" fill="none" stroke="{OURS}" stroke-width="2"/>'
            )
        # Above and below in turn, for two may be close to each other.
        name = f"{point['width']} ({point['message_bits']})" if "knee_bits" in facts else str(point["width"])
        parts.append(_text(across + 8, up + (17 if number % 2 else -8), name, size=12, weight="bold"))
    return parts


def _legend(with_paper: bool, seeds: int, with_bits: bool) -> str:
    y, label = 50, "width (bits) of the students" if with_bits else "width of the students"
    mean = f"{label}: mean of {seeds} seeds, 95 % interval" if seeds > 1 else f"{label}, one seed"
    parts = [
        f'<circle cx="{LEFT + 6}" cy="{y - 4}" r="4.5" fill="{OURS}" stroke="{OURS}" stroke-width="1.6"/>',
        f'<circle cx="{LEFT + 22}" cy="{y - 4}" r="4.5" fill="white" stroke="{OURS}" stroke-width="1.6"/>',
        _text(LEFT + 33, y, f"{mean} (filled: on the front)"),
        f'<circle cx="{LEFT + 530}" cy="{y - 4}" r="8" fill="none" stroke="{OURS}" stroke-width="2"/>',
        _text(LEFT + 544, y, "the knee"),
        f'<rect x="{LEFT + 620}" y="{y - 9}" width="10" height="10" fill="{INK}"/>',
        _text(LEFT + 636, y, "the teacher"),
    ]
    if with_paper:
        parts += [_diamond(LEFT + 730, y - 4), _text(LEFT + 742, y, "the paper, LH and LH+A")]
    return "\n".join(parts)


def _short(value: float) -> str:
    """Return a number with k or M."""
    for limit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{letter}"
    return f"{value:g}"


def _diamond(x: float, y: float) -> str:
    return (
        f'<path d="M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z" fill="white" stroke="{PAPER}" stroke-width="2"/>'
    )


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 13, weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
        f'fill="{INK}">{escape(words)}</text>'
    )
