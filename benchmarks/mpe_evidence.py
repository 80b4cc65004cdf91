"""What the finished runs say: estimates over seeds, and whether a student is at least as good as its baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mpe_grid import BASELINE, BASELINE_OF, STUDENT, Cell, Grid, Record
from scipy.stats import t as student_t

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and half the width of its 95 % interval (Student's t); None with fewer than two seeds."""

    mean: float
    half: float | None

    def text(self, scale: float = 1.0, digits: int = 2, unit: str = "") -> str:
        """``mean ± half``, both multiplied by ``scale``."""
        half = "" if self.half is None else f" ± {scale * self.half:.{digits}f}"
        return f"{scale * self.mean:.{digits}f}{half}{unit}"

    def overlaps(self, other: Estimate) -> bool:
        """Whether the two intervals have a point in common."""
        return abs(self.mean - other.mean) <= (self.half or 0.0) + (other.half or 0.0)


def estimate(values: Sequence[float | None]) -> Estimate | None:
    """Mean and interval; None if there is no value, or one that was not defined."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    n, mean = len(known), sum(known) / len(known)
    if n == 1:
        return Estimate(mean, None)
    variance = sum((value - mean) ** 2 for value in known) / (n - 1)
    return Estimate(mean, float(student_t.ppf(0.975, n - 1)) * (variance / n) ** 0.5)


@dataclass
class Evidence:
    """The finished runs of a grid, by cell, and what is missing."""

    grid: Grid
    found: dict[Cell, Record]
    missing: list[str]
    passed_over: list[str]

    @classmethod
    def collect(cls, grid: Grid) -> Evidence:
        """Read every summary that counts."""
        evidence = cls(grid, {}, [], [])
        for task in grid.tasks:
            if grid.teacher(task) is None:
                evidence.missing.append(f"all of {task}: there is no teacher in {grid.zoo / task}")
                continue
            for cell in grid.cells(task):
                record, reasons = grid.find(cell)
                evidence.passed_over += reasons
                if record is None:
                    evidence.missing.append(f"{cell.algorithm} on {task}, {cell.setting}, seed {cell.seed}")
                else:
                    evidence.found[cell] = record
        return evidence

    def summaries(self, algorithm: str, task: str, setting: str) -> list[dict[str, Any]]:
        """The summaries of one row, in the order of the seeds."""
        cells = [Cell(algorithm, task, setting, seed) for seed in self.grid.seeds]
        return [self.found[cell].summary for cell in cells if cell in self.found]

    def student(self, task: str, setting: str, *path: str) -> Estimate | None:
        """Over the seeds, the number at ``path`` of the students' summaries."""
        return over_seeds(self.summaries(STUDENT, task, setting), *path)

    def acting(self, algorithm: str, task: str, setting: str) -> tuple[Estimate | None, Estimate | None]:
        """Return of a student or a baseline when it acts greedily, and when it samples its actions."""
        policy = "student" if algorithm == STUDENT else "policy"
        rows = self.summaries(algorithm, task, setting)
        return over_seeds(rows, policy, "return_mean"), over_seeds(rows, policy, "sampled", "return_mean")


def over_seeds(summaries: Sequence[dict[str, Any]], *path: str) -> Estimate | None:
    """The estimate of one number of several summaries."""
    values = []
    for summary in summaries:
        value: Any = summary
        for key in path:
            value = value[key]
        values.append(value)
    return estimate(values)


def best(acting: tuple[Estimate | None, Estimate | None]) -> Estimate | None:
    """The better way of acting, by its mean."""
    return max((way for way in acting if way is not None), key=lambda way: way.mean, default=None)


def against_baseline(evidence: Evidence, task: str, setting: str) -> tuple[str, str]:
    """Whether a student is at least as good as MAPPO under the same limit: ``yes | undecided | no`` and a sentence.

    Each is taken at its better way of acting. Undecided: a lower mean, but the intervals overlap.
    """
    ours = best(evidence.acting(STUDENT, task, setting))
    theirs = best(evidence.acting(BASELINE, task, BASELINE_OF.get(setting, setting)))
    if ours is None or theirs is None:
        return NOT_MEASURED, NOT_MEASURED
    overlap = "the intervals overlap" if ours.overlaps(theirs) else "the intervals do not overlap"
    if ours.half is None or theirs.half is None:
        overlap = "too few seeds for intervals"
    numbers = f"{ours.text()} against {theirs.text()}; {overlap}"
    if ours.mean >= theirs.mean:
        return "yes", f"the student is at least as good as MAPPO ({numbers})"
    if ours.half is None or theirs.half is None or ours.overlaps(theirs):
        return "undecided", f"the student's mean is lower than MAPPO's ({numbers})"
    return "no", f"the student is worse than MAPPO ({numbers})"
