"""The figure of a stress test, as an SVG: above what teacher and student score, below the retention."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, OURS, OTHER, GRID, LINE = "#222222", "#0b62a4", "#c2500a", "#d9d9d9", "#8a8a8a"
# Per cent: a retention beyond is written at the edge, or one hopeless teacher would flatten all the rest.
LEAST, MOST = -100.0, 150.0
# Kind -> title, and what its levels are.
_TITLES = {
    "dropout": ("Sensor dropout", "probability per group and step"),
    "noise": ("Sensor noise", "standard deviations"),
    "delay": ("Delayed observation", "steps"),
    "dead": ("A dead agent", "which"),
    "map": ("An unseen map", "which"),
    "message loss": ("Lost messages", "probability per link and step"),
    "message delay": ("Late messages", "steps beyond the trained latency"),
    "jam": ("A jammed radio", "whose"),
}
# Name, in _RETENTIONS also the row's key, colour, marker, and how far beside its place: no interval hides another.
_SCORES = (("teacher", INK, "s", -0.08), ("student", OURS, "o", 0.08))
_RETENTIONS = (
    ("teacher, of itself\nundisturbed", "retention_teacher", INK, "s", -0.14),
    ("student, of the\nundisturbed teacher", "retention_undisturbed", OURS, "o", 0.0),
    ("student, of the equally\ndisturbed teacher", "retention_disturbed", OTHER, "D", 0.14),
)


def figure(facts: Mapping[str, Any]) -> str:
    """Return the SVG.

    Args:
        facts: the content of ``stress.json``.

    Raises:
        ModuleNotFoundError: matplotlib, which is of the extra ``report``, is not installed.
    """
    # Imported here, since a stress test does without its figure where matplotlib is not installed.
    import matplotlib
    from matplotlib.figure import Figure

    rows = facts["rows"]
    start = next(row for row in rows if row["kind"] == "none")
    panels = {kind: [start, *(row for row in rows if row["kind"] == kind)] for kind in _TITLES}
    panels = {kind: panel for kind, panel in panels.items() if len(panel) > 1} or {"none": [start]}
    widths = [0.8 + 0.55 * len(panel) for panel in panels.values()]
    wins = facts["measures"] == "win rate"
    with matplotlib.rc_context({"svg.hashsalt": "kd-marl", "font.size": 10, "axes.edgecolor": INK}):
        drawing = Figure(figsize=(max(7.5, 1.6 + 1.25 * sum(widths)), 7.4), layout="constrained")
        axes = drawing.subplots(2, len(panels), sharey="row", squeeze=False, width_ratios=widths)
        for (above, below), (kind, panel) in zip(axes.T, panels.items(), strict=True):
            title, unit = _TITLES.get(kind, ("Undisturbed", ""))
            labels = _labels(kind, panel, facts["task"])
            random = (100 if wins else 1) * facts["random_mean"]
            above.axhline(random, color=LINE, linestyle="--", linewidth=1.2, zorder=2, label="random play")
            below.axhline(100, color=LINE, linestyle=":", linewidth=1.2, zorder=2, label="100 %")
            for who, colour, marker, aside in _SCORES:
                ends = [[row[f"{who}_{end}"] for row in panel] for end in ("mean", "low", "high")]
                _points(above, ends, 100 if wins else 1, who, colour, marker, aside)
            for name, key, colour, marker, aside in _RETENTIONS:
                ends = [[row[f"{key}{end}"] for row in panel] for end in ("", "_low", "_high")]
                _points(below, ends, 100, name, colour, marker, aside)
                _beyond(below, ends[0], colour, aside)
            for one in (above, below):
                one.set_xticks(range(len(panel)), labels, rotation=45 if max(map(len, labels)) > 4 else 0, fontsize=9)
                one.set_xlim(-0.5, len(panel) - 0.5)
                one.grid(axis="y", color=GRID, linewidth=0.6)
                one.spines[["top", "right"]].set_visible(False)
            above.set_title(title, fontweight="bold", fontsize=11)
            below.set_xlabel(unit)
        axes[1, 0].set_ylim(*_range(rows))
        axes[0, 0].set_ylabel("win rate, per cent" if wins else "mean return")
        axes[1, 0].set_ylabel(f"retention of the {facts['measures']}, per cent")
        drawing.suptitle(
            f"{facts['task']}, limits {facts['limits']}: what disturbances leave of teacher and student\n"
            f"{start['episodes']} episodes of each; bars are 95 % intervals over episodes",
            fontsize=12,
        )
        found = [axes[row, 0].get_legend_handles_labels() for row in range(2)]
        drawing.legend(*found[0], loc="outside right upper", frameon=False, title="upper panels", alignment="left")
        drawing.legend(*found[1], loc="outside right lower", frameon=False, title="lower panels", alignment="left")
        stream = io.StringIO()
        drawing.savefig(stream, format="svg", metadata={"Date": None, "Title": f"{facts['task']}: disturbances"})
    return stream.getvalue()


def _labels(kind: str, panel: Sequence[Mapping[str, Any]], task: str) -> list[str]:
    """Return the labels under the axis; first the undisturbed level."""
    if kind == "map":
        return [task, *(row["task"] for row in panel[1:])]
    if kind in ("dead", "jam"):
        return ["none", *(row["name"].removeprefix(f"{kind} ") for row in panel[1:])]
    return ["0", *(f"{row['level']:g}" for row in panel[1:])] if kind != "none" else ["none"]


def _range(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Return the per cent at the ends of the lower axis: every retention, 0 to 100 at least, with some room."""
    ends = (f"{key}{end}" for _, key, *_ in _RETENTIONS for end in ("", "_low", "_high"))
    values = [100 * row[end] for end in ends for row in rows if row[end] is not None]
    low = min([0.0, *(max(value, LEAST) for value in values)])
    high = max([100.0, *(min(value, MOST) for value in values)])
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _points(
    axes: Axes,
    ends: Sequence[Sequence[float | None]],
    scale: float,
    label: str,
    colour: str,
    marker: str,
    aside: float,
) -> None:
    """Draw one series: ``ends`` are its means and the lower and upper ends of their intervals; None is left out."""
    middle, low, high = (np.array([np.nan if value is None else scale * value for value in part]) for part in ends)
    bars = np.clip(np.nan_to_num([middle - low, high - middle]), 0, None)
    places = np.arange(len(middle)) + aside
    axes.errorbar(
        places,
        middle,
        yerr=bars,
        label=label,
        color=colour,
        marker=marker,
        markersize=5,
        linestyle="none",
        capsize=2.5,
        zorder=3,
    )


def _beyond(axes: Axes, shares: Sequence[float | None], colour: str, aside: float) -> None:
    """Write what lies beyond the axis at its edge."""
    for place, share in enumerate(shares):
        if share is None or LEAST <= 100 * share <= MOST:
            continue
        edge = 0.97 if 100 * share > MOST else 0.03
        axes.text(
            place + aside,
            edge,
            f"{100 * share:.0f} % {'↑' if edge > 0.5 else '↓'}",
            transform=axes.get_xaxis_transform(),
            color=colour,
            fontsize=8,
            ha="center",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
            zorder=4,
        )
