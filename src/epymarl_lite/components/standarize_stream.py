"""Running mean and variance of a stream of batches.

The module has EPyMARL's spelling of its name, which plug-ins import.
"""

from __future__ import annotations

import torch as th


class RunningMeanStd:
    """Mean and variance of all rows so far, per entry of the last dimension.

    Attributes:
        mean: `shape`, starts at 0.
        var: `shape`, starts at 1.
        count: number of rows seen; starts at `epsilon`, the weight of the initial values.
    """

    def __init__(self, epsilon: float = 1e-4, shape: tuple[int, ...] = (), device: str | th.device = "cpu") -> None:
        """Start at mean 0 and variance 1 with the weight of `epsilon` rows."""
        self.mean = th.zeros(shape, dtype=th.float32, device=device)
        self.var = th.ones(shape, dtype=th.float32, device=device)
        self.count = epsilon

    def update(self, arr: th.Tensor) -> None:
        """Add a batch `(..., features)`; every leading dimension counts as rows."""
        rows = arr.reshape(-1, arr.shape[-1])
        # The unbiased variance of a single row is undefined, so it counts as 0.
        var = rows.var(dim=0) if len(rows) > 1 else th.zeros_like(rows[0])
        self.update_from_moments(rows.mean(dim=0), var, len(rows))

    def update_from_moments(self, batch_mean: th.Tensor, batch_var: th.Tensor, batch_count: int) -> None:
        """Merge the moments of `batch_count` further rows into the running ones."""
        total = self.count + batch_count
        delta = batch_mean - self.mean
        spread = self.var * self.count + batch_var * batch_count + delta.square() * (self.count * batch_count / total)
        self.mean = self.mean + delta * (batch_count / total)
        self.var = spread / total
        self.count = total

    def normalise(self, arr: th.Tensor) -> th.Tensor:
        """Standardise `(..., features)` by the running moments."""
        return (arr - self.mean) / self.var.sqrt()

    def denormalise(self, arr: th.Tensor) -> th.Tensor:
        """Undo `normalise`."""
        return arr * self.var.sqrt() + self.mean
