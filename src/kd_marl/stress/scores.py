"""From the episodes of two policies to a flat row of the result: means, intervals, and retention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kd_core.metrics.intervals import mean_interval, share_interval
from kd_core.metrics.retention import retention
from kd_marl.stress.plan import Trial

RESAMPLES = 2000
_AT_ONCE = 100


@dataclass(frozen=True)
class Scores:
    """What one policy did, an entry an episode.

    Attributes:
        returns: ``(episodes,)`` float64.
        won: ``(episodes,)`` float64: 1 won, 0 not; NaN where nothing says so.
    """

    returns: np.ndarray
    won: np.ndarray

    @property
    def has_wins(self) -> bool:
        """Return whether the environment says which episodes are won."""
        return not np.isnan(self.won).any()

    @property
    def values(self) -> np.ndarray:
        """Return the measure of each episode: 1 or 0 for won or lost, else its return."""
        return self.won if self.has_wins else self.returns

    @property
    def mean(self) -> float:
        """Return the win rate, else the mean return."""
        return float(self.values.mean())

    def interval(self) -> tuple[float | None, float | None]:
        """Return the 95 % interval of `mean` over the episodes: Wilson's of a win rate, Student's of a return."""
        count = len(self.values)
        if self.has_wins:
            return share_interval(self.mean, count)
        return mean_interval(self.mean, float(self.values.std()), count) if count > 1 else (None, None)


def row(trial: Trial, teacher: Scores, student: Scores, whole: Scores) -> dict[str, Any]:
    """Return one entry of ``rows`` in ``stress.json`` (docs/reference/formats/stress.md).

    Args:
        trial: what both met.
        teacher: the teacher under it.
        student: the student under it.
        whole: the undisturbed teacher.
    """
    result: dict[str, Any] = {
        "name": trial.name,
        "kind": trial.kind,
        "level": trial.level,
        "task": trial.task,
        "episodes": len(student.returns),
    }
    for who, scores in (("teacher", teacher), ("student", student)):
        low, high = scores.interval()
        result |= {f"{who}_mean": scores.mean, f"{who}_low": low, f"{who}_high": high}
        result[f"{who}_return"] = float(scores.returns.mean())
    for name, of, against in (
        ("retention_undisturbed", student, whole),
        ("retention_disturbed", student, teacher),
        ("retention_teacher", teacher, whole),
    ):
        share, low, high = retention_of(of, against)
        result |= {name: share, f"{name}_low": low, f"{name}_high": high}
    return result


def retention_of(scores: Scores, against: Scores) -> tuple[float | None, float | None, float | None]:
    """Return the retention, and its 95 % interval over the episodes by the paired percentile bootstrap.

    Where none or all of the episodes are won, all resamples are alike and say nothing: there the ends are those of the
    win rate's own interval, over the other's win rate.

    Args:
        scores: whose.
        against: of what, in the same episodes.

    Returns:
        The retention (None where it is not defined), and the interval's ends (None for fewer than two episodes, or
        where a resample has no retention).
    """
    wins = scores.has_wins
    share, count = retention(scores.mean, against.mean, wins), len(scores.values)
    if share is None or count < 2:
        return share, None, None
    if wins and scores.mean in (0.0, 1.0):
        low, high = share_interval(scores.mean, count)
        return share, low / against.mean, high / against.mean
    generator, both = np.random.default_rng(0), np.stack([scores.values, against.values], axis=1)
    drawn: list[float | None] = []
    while len(drawn) < RESAMPLES:
        # How often each episode is drawn in a resample, as its weight; not all at once, for want of memory.
        several = min(_AT_ONCE, RESAMPLES - len(drawn))
        weights = generator.multinomial(count, np.full(count, 1 / count), several) / count
        drawn += [retention(float(one), float(other), wins) for one, other in weights @ both]
    if None in drawn:
        return share, None, None
    low, high = np.quantile(np.array(drawn, float), (0.025, 0.975))
    return share, float(low), float(high)
