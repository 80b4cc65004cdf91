"""Estimates over seeds, with 95 % intervals.

The tables of the report have interquartile means with bootstrap intervals (Agarwal et al., NeurIPS 2021, arXiv
2108.13264). The page of results has plain means with Student's intervals.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import mean as exact_mean
from statistics import stdev
from typing import Any

import numpy as np
from scipy.stats import bootstrap, trim_mean
from scipy.stats import t as student_t

RESAMPLES = 10_000
CONFIDENCE = 0.95
# So that the same runs give the same page.
_SEED = 20_260_406


@dataclass(frozen=True)
class Estimate:
    """A (interquartile) mean and the ends of its interval; the ends are None where there is nothing to resample."""

    centre: float
    low: float | None
    high: float | None
    count: int

    def text(self, scale: float = 1.0, digits: int = 2, unit: str = "") -> str:
        """Write ``centre [low, high]``, all multiplied by ``scale``."""
        centre = f"{scale * self.centre:.{digits}f}{unit}"
        if self.low is None or self.high is None:
            return centre
        return f"{centre} [{scale * self.low:.{digits}f}, {scale * self.high:.{digits}f}]"


@dataclass(frozen=True)
class Mean:
    """A mean and half the width of its interval (Student's t); None with fewer than two seeds."""

    centre: float
    half: float | None

    def text(self, scale: float = 1.0, digits: int = 2, unit: str = "") -> str:
        """Write ``mean ± half``, both multiplied by ``scale``."""
        half = "" if self.half is None else f" ± {scale * self.half:.{digits}f}"
        return f"{scale * self.centre:.{digits}f}{half}{unit}"

    @property
    def ends(self) -> tuple[float, float] | None:
        """The interval's ends."""
        return None if self.half is None else (self.centre - self.half, self.centre + self.half)

    def overlaps(self, other: Mean) -> bool:
        """Tell whether two intervals have a point in common."""
        return abs(self.centre - other.centre) <= (self.half or 0.0) + (other.half or 0.0)


def mean_of(values: Sequence[float | None]) -> Mean | None:
    """Estimate the mean over seeds; None if there is no value, or one that is not defined."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    # Exact sums: equal values have no spread, and a mean at a target is not below it.
    count, centre = len(known), exact_mean(known)
    if count == 1:
        return Mean(centre, None)
    return Mean(centre, float(student_t.ppf(0.975, count - 1)) * stdev(known, centre) / count**0.5)


def iqm(*samples: Any, axis: int = -1) -> Any:
    """Compute the mean of what is left when a quarter of all values, rounded down, is cut off at either end.

    Args:
        samples: arrays that are joined along ``axis``.
        axis: along which the mean is taken.
    """
    return trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)


def mean(*samples: Any, axis: int = -1) -> Any:
    """Compute the plain mean; arguments as for `iqm`."""
    return np.mean(np.concatenate(samples, axis=axis), axis=axis)


def estimate(values: Sequence[float | None]) -> Estimate | None:
    """Estimate over the seeds of one group; None if there is no value, or one that is not defined."""
    return stratified([values])


def stratified(strata: Sequence[Sequence[float | None]], statistic: Callable[..., Any] = iqm) -> Estimate | None:
    """Estimate over the seeds of several tasks together: each resample draws every task's seeds by themselves.

    Args:
        strata: the values of each task's runs; their numbers may differ.
        statistic: `iqm` or `mean`.

    Returns:
        None if there is no value, or one that is not defined. Without an interval if a task has a single run.
    """
    return _stratified(tuple(map(tuple, strata)), statistic)


# One page asks for the same estimate in several places, and a bootstrap takes a few milliseconds.
@cache
def _stratified(strata: tuple[tuple[float | None, ...], ...], statistic: Callable[..., Any]) -> Estimate | None:
    every = [value for stratum in strata for value in stratum]
    if not every or any(value is None or not np.isfinite(value) for value in every):
        return None
    samples = [np.asarray(stratum, float) for stratum in strata if len(stratum)]
    centre = float(statistic(*samples))
    if min(len(sample) for sample in samples) < 2:
        return Estimate(centre, None, None, len(every))
    with warnings.catch_warnings():
        # Equal values have an interval of width 0, which is right.
        warnings.simplefilter("ignore")
        found = bootstrap(
            samples,
            statistic,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            vectorized=True,
            random_state=np.random.default_rng(_SEED),
        ).confidence_interval
    return Estimate(centre, float(found.low), float(found.high), len(every))
