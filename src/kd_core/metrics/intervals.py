"""95 % intervals of what was measured over episodes or seeds: Student's of a mean, Wilson's of a proportion."""

from __future__ import annotations

from scipy.stats import binomtest, t


def mean_interval(mean: float, std: float, count: int) -> tuple[float, float]:
    """Compute the 95 % interval of a mean by Student's t.

    Args:
        mean: of the sample.
        std: of the sample, with divisor ``count``.
        count: its size; for one alone the interval is the whole line.
    """
    if count < 2:
        return float("-inf"), float("inf")
    half = float(t.ppf(0.975, count - 1)) * std / (count - 1) ** 0.5
    return mean - half, mean + half


def share_interval(share: float, count: int) -> tuple[float, float]:
    """Compute the 95 % interval of a proportion by Wilson's score.

    Args:
        share: of the trials that succeeded, in [0, 1].
        count: how many trials there were, one at least.
    """
    ends = binomtest(round(share * count), count).proportion_ci(confidence_level=0.95, method="wilson")
    return float(ends.low), float(ends.high)
