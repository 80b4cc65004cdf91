"""95 % intervals of what was measured over episodes or seeds: Student's of a mean, Wilson's of a proportion."""

from __future__ import annotations

# The standard normal distribution's 97.5 % quantile.
Z = 1.959963984540054


def mean_interval(mean: float, std: float, count: int) -> tuple[float, float]:
    """Compute the 95 % interval of a mean by Student's t.

    Args:
        mean: of the sample.
        std: of the sample, with divisor ``count``.
        count: its size; for one alone the interval is the whole line.
    """
    if count < 2:
        return float("-inf"), float("inf")
    from scipy.special import stdtrit  # late: every run starts with this module, and few of them end with an interval

    half = float(stdtrit(count - 1, 0.975)) * std / (count - 1) ** 0.5
    return mean - half, mean + half


def share_interval(share: float, count: int) -> tuple[float, float]:
    """Compute the 95 % interval of a proportion by Wilson's score.

    Args:
        share: of the trials that succeeded, in [0, 1].
        count: how many trials there were, one at least.
    """
    successes = round(share * count)
    share, scale = successes / count, 1 + Z**2 / count
    centre = (share + Z**2 / (2 * count)) / scale
    half = Z / scale * (share * (1 - share) / count + (Z / (2 * count)) ** 2) ** 0.5
    return (centre - half if successes else 0.0), (centre + half if successes < count else 1.0)
