"""What the finished runs say: estimates over seeds, and how they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import speed_page
from results_grid import STUDENT, Grid
from scipy.stats import t as student_t

from kd_marl.runs.finished import Run
from kd_marl.suite.document import Cell

NOT_MEASURED = "not measured"
PERCENT: dict[str, Any] = {"scale": 100.0, "digits": 1, "unit": " %"}


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and half the width of its 95 % interval (Student's t); None with fewer than two seeds."""

    mean: float
    half: float | None

    def text(self, scale: float = 1.0, digits: int = 2, unit: str = "") -> str:
        """``mean ± half``, both multiplied by ``scale``."""
        half = "" if self.half is None else f" ± {scale * self.half:.{digits}f}"
        return f"{scale * self.mean:.{digits}f}{half}{unit}"

    @property
    def ends(self) -> tuple[float, float] | tuple[None, None]:
        """The interval's ends; None with fewer than two seeds."""
        return (None, None) if self.half is None else (self.mean - self.half, self.mean + self.half)

    def overlaps(self, other: Estimate) -> bool:
        """Whether the two intervals have a point in common."""
        return abs(self.mean - other.mean) <= (self.half or 0.0) + (other.half or 0.0)


def estimate(values: Sequence[float | None]) -> Estimate | None:
    """Mean and interval; None if there is no value, or one that was not defined."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    # Exact sums: equal values have no spread, and a mean at a target is not below it.
    n, centre = len(known), mean(known)
    if n == 1:
        return Estimate(centre, None)
    return Estimate(centre, float(student_t.ppf(0.975, n - 1)) * stdev(known, centre) / n**0.5)


@dataclass
class Evidence:
    """The finished runs of a grid, by cell, and what is missing."""

    grid: Grid
    found: dict[Cell, Run]
    missing: list[str]

    @classmethod
    def collect(cls, grid: Grid) -> Evidence:
        """Read every summary that counts."""
        evidence = cls(grid, {}, [])
        for task in grid.tasks:
            for cell in grid.cells(task):
                record = grid.find(cell)
                if record is None:
                    evidence.missing.append(f"{grid.algorithm(cell)} on {task}, {cell.limits}, seed {cell.seed}")
                else:
                    evidence.found[cell] = record
        return evidence

    @property
    def episodes(self) -> list[int]:
        """How many episodes each policy was evaluated over; one number if all runs agree."""
        return sorted({record.summary["episodes"] for record in self.found.values()})

    def summaries(self, algorithm: str, task: str, setting: str) -> list[dict[str, Any]]:
        """The summaries of one row, in the order of the seeds."""
        return [self.found[cell].summary for cell in self.grid.row(algorithm, task, setting) if cell in self.found]

    def student(self, task: str, setting: str, *path: str) -> Estimate | None:
        """Over the seeds, the number at ``path`` of the students' summaries."""
        return over_seeds(self.summaries(STUDENT, task, setting), *path)

    def widths(self, task: str, setting: str) -> str:
        """Each student's width, as a table's cell."""
        return ", ".join(map(str, next(iter(self.summaries(STUDENT, task, setting)), {"widths": "-"})["widths"]))

    def made(self, algorithm: str, task: str, setting: str) -> str:
        """How many of a row's runs there are: ``2 of 3``."""
        return f"{len(self.summaries(algorithm, task, setting))} of {len(self.grid.row(algorithm, task, setting))}"

    @property
    def seeds(self) -> str:
        """How many seeds the students' rows have: ``3 seeds (fo), 5 (lh, lha)``; ``3 seeds`` if all have as many."""
        counts: dict[int, list[str]] = {}
        for setting in self.grid.settings:
            counts.setdefault(len(self.grid.seeds(STUDENT, setting)), []).append(setting)
        if len(counts) == 1:
            return f"{next(iter(counts))} seeds"
        units = [" seeds", *[""] * (len(counts) - 1)]
        rows = zip(sorted(counts.items()), units, strict=True)
        return ", ".join(f"{count}{unit} ({', '.join(settings)})" for (count, settings), unit in rows)


def over_seeds(summaries: Sequence[dict[str, Any]], *path: str) -> Estimate | None:
    """The estimate of one number of several summaries."""
    values = []
    for summary in summaries:
        value: Any = summary
        for key in path:
            value = value[key]
        values.append(value)
    return estimate(values)


def shown(value: Estimate | None, **style: Any) -> str:
    """A table's cell: `Estimate.text`, or a dash where nothing was measured."""
    return "-" if value is None else value.text(**style)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(speed_page.table(head, rows))
