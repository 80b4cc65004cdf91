"""Interquartile means over seeds with bootstrap intervals (Agarwal et al., NeurIPS 2021, arXiv 2108.13264)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import bootstrap, trim_mean

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
        """``centre [low, high]``, all multiplied by ``scale``."""
        centre = f"{scale * self.centre:.{digits}f}{unit}"
        if self.low is None or self.high is None:
            return centre
        return f"{centre} [{scale * self.low:.{digits}f}, {scale * self.high:.{digits}f}]"


def iqm(*samples: Any, axis: int = -1) -> Any:
    """The mean of what is left when a quarter of all values, rounded down, is cut off at either end.

    Args:
        samples: arrays that are joined along ``axis``.
        axis: along which the mean is taken.
    """
    return trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)


def mean(*samples: Any, axis: int = -1) -> Any:
    """The plain mean; arguments as for `iqm`."""
    return np.mean(np.concatenate(samples, axis=axis), axis=axis)


def estimate(values: Sequence[float | None]) -> Estimate | None:
    """Over the seeds of one group; None if there is no value, or one that is not defined."""
    return stratified([values])


def stratified(strata: Sequence[Sequence[float | None]], statistic: Callable[..., Any] = iqm) -> Estimate | None:
    """Over the seeds of several tasks together: each resample draws every task's seeds anew, task by task.

    Args:
        strata: the values of each task's runs; their numbers may differ.
        statistic: `iqm` or `mean`.

    Returns:
        None if there is no value, or one that is not defined. Without an interval if a task has a single run.
    """
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
