"""Running mean and variance of a stream of values, which normalise the critic's targets."""

from __future__ import annotations

from torch import Tensor


class RunningMoments:
    """Mean and variance of all values so far, in float64 (parallel update of Chan et al., 1979)."""

    def __init__(self) -> None:
        self.mean, self.variance, self.count = 0.0, 1.0, 0.0

    @property
    def std(self) -> float:
        """Standard deviation, never below 1e-4."""
        return max(self.variance, 1e-8) ** 0.5

    def update(self, values: Tensor) -> None:
        """Add a 1-D tensor of values."""
        values = values.double()
        count, mean = float(values.numel()), float(values.mean())
        variance = float(values.var(unbiased=False))
        total = self.count + count
        delta = mean - self.mean
        between = delta**2 * self.count * count / total
        self.variance = (self.variance * self.count + variance * count + between) / total
        self.mean += delta * count / total
        self.count = total
