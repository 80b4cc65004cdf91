"""Schedules of the exploration rate."""

from __future__ import annotations

import math


class DecayThenFlatSchedule:
    """Falls from `start` to `finish` over `time_length` environment steps and then stays there."""

    def __init__(self, start: float, finish: float, time_length: int, decay: str = "exp") -> None:
        """Set the end points, the length in environment steps and `decay`: "linear" or "exp".

        Raises:
            ValueError: an unknown `decay`.
        """
        if decay not in ("linear", "exp"):
            raise ValueError(f"unknown decay {decay!r}: use 'linear' or 'exp'")
        self.start = start
        self.finish = finish
        self.time_length = time_length
        self.decay = decay

    def eval(self, T: int) -> float:  # noqa: N803  EPyMARL's callers may pass T by name
        """Compute the value at environment step `T`."""
        if self.time_length <= 0:
            return self.finish
        if self.decay == "linear":
            return max(self.finish, self.start - (self.start - self.finish) * T / self.time_length)
        # exp(-T / scale) reaches `finish` exactly at T = time_length.
        scale = -self.time_length / math.log(self.finish) if self.finish > 0 else 1.0
        return min(self.start, max(self.finish, math.exp(-T / scale)))
