"""What all figures share: their look, panels in a grid, and how they become SVG."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from kd_marl.report.estimates import Estimate
from kd_marl.report.markdown import short

Item = TypeVar("Item")

INK, GRID, FAINT = "#222222", "#d9d9d9", "#8a8a8a"
MARKERS = {"fo": "o", "lh": "s", "lha": "D"}
# By masks: none, the presets, one's own.
DASHES: dict[str, Literal["-", "--", "-."]] = {"": "-", "paper": "-", "random": "--", "own": "-."}
_LOOK: dict[str, Any] = {
    # Words stay words: small files that can be searched and read aloud.
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
        name: of its file, without ``.svg``.
        title: what it shows, also for those who cannot see it.
        svg: the drawing.
        note: what the reader must know beside it; may be empty.
    """

    name: str
    title: str
    svg: str
    note: str = ""


class Sheet:
    """A drawing of panels in a grid; use as a context, then take `svg`."""

    def __init__(self, name: str, rows: int, columns: int, panel: tuple[float, float], **options: Any) -> None:
        """Lay out the panels.

        Args:
            name: of the picture: the same drawing always gives the same file.
            rows: of panels.
            columns: of panels.
            panel: width and height of one, in inches.
            options: for matplotlib's ``subplots``.
        """
        # A salt of its own for each picture: their parts must not share names when all stand in one page.
        settings: Any = {**_LOOK, "svg.hashsalt": name}
        self._context = matplotlib.rc_context(settings)
        self._context.__enter__()
        self.name = name
        # A legend below needs some width.
        size = (max(7.2, columns * panel[0]), rows * panel[1] + 0.9)
        self.figure = Figure(figsize=size, layout="constrained")
        self.axes = self.figure.subplots(rows, columns, squeeze=False, **options)

    def __enter__(self) -> Sheet:
        return self

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(None, None, None)

    def panels(self, items: Collection[Item]) -> Iterator[tuple[Any, Item]]:
        """Pair each item with a panel, row by row, and hide the panels that are left."""
        flat = list(self.axes.flat)
        for axes in flat[len(items) :]:
            axes.set_visible(False)
        return zip(flat, items, strict=False)

    def legend(self, handles: Sequence[Any], columns: int = 4, size: int = 9) -> None:
        """Draw one legend for all panels, below them, in as many columns as fit and at most ``columns``."""
        if not handles:
            return
        look: Any = {"loc": "outside lower center", "frameon": False, "fontsize": size}
        legend = self.figure.legend(handles=handles, ncols=columns, **look)
        while columns > 1 and legend.get_window_extent().width > self.figure.bbox.width:
            legend.remove()
            columns -= 1
            legend = self.figure.legend(handles=handles, ncols=columns, **look)

    def svg(self, title: str) -> str:
        """Write the drawing under its title, if it has one, as one SVG element."""
        width = int(self.figure.get_figwidth() * 10.5)
        if title:
            self.figure.suptitle("\n".join(textwrap.wrap(title, width)), fontsize=13, x=0.01, ha="left")
        stream = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        self.figure.savefig(stream, format="svg", metadata=nothing)
        return unique_ids(stream.getvalue()[stream.getvalue().index("<svg") :], self.name)


def unique_ids(svg: str, name: str) -> str:
    """Put the drawing's name before every id, so that several can stand in one page.

    Ids that Matplotlib hashes from places, whose last bit is the processor's, are numbered as they come.
    Two equal images have one id; the second gets a number, since references mean the first.
    """
    hashed = dict.fromkeys(re.findall(r'\b(?:id="|href="#|url\(#)([a-z]+[0-9a-f]{10})\b', svg))
    numbers = {old: f"{old[:-10]}{number}" for number, old in enumerate(hashed, 1)}
    svg = re.sub(r"\b[a-z]+[0-9a-f]{10}\b", lambda found: numbers.get(found[0], found[0]), svg)
    met: Counter[str] = Counter()

    def renamed(found: re.Match[str]) -> str:
        met[found[1]] += 1
        again = f"-{met[found[1]]}" if met[found[1]] > 1 else ""
        return f'id="{name}-{found[1]}{again}"'

    svg = re.sub(r'\bid="([^"]+)"', renamed, svg)
    return re.sub(r'(xlink:href="#|url\(#)', rf"\1{name}-", svg)


def tidy(axes: Axes, grid: Literal["x", "y"] = "y") -> None:
    """Draw a light grid and no box."""
    axes.grid(axis=grid, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def short_ticks(axis: Any) -> None:
    """Write large numbers on an axis as ``10k`` and ``2M``."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(FuncFormatter(lambda *_: ""))


def whisker(value: Estimate) -> list[list[float]]:
    """Compute how far the interval reaches on either side, for matplotlib's error bars; 0 without an interval."""
    low = value.centre if value.low is None else value.low
    high = value.centre if value.high is None else value.high
    return [[max(0.0, value.centre - low)], [max(0.0, high - value.centre)]]


def near(values: Sequence[float], ends: Sequence[float]) -> tuple[float, float]:
    """Find a range that shows all values, and the ends of their intervals as far as these do not dwarf the values."""
    low, high = min(values), max(values)
    span = max(high - low, 1e-9)
    low, high = max(min([low, *ends]), low - span), min(max([high, *ends]), high + span)
    room = 0.08 * (high - low)
    return low - room, high + room


def grid_of(count: int, most: int = 3) -> tuple[int, int]:
    """Count rows and columns for so many panels."""
    columns = min(most, max(count, 1))
    return math.ceil(max(count, 1) / columns), columns
