"""The weights of the best test of a training."""

from __future__ import annotations

from typing import Any


class BestWeights:
    """The best test so far: its value, a tuple that is compared; its step; and the weights that reached it."""

    def __init__(self) -> None:
        self.value: tuple[float, ...] = (float("-inf"), float("-inf"))
        self.step = 0
        self.weights: dict[str, Any] | None = None
        self._last_step = -1

    def offer(self, step: int, value: tuple[float, ...], weights: Any) -> None:
        """Compare the test at ``step`` with the best so far; ``weights()`` is called only if it is better."""
        if step == self._last_step:
            return
        self._last_step = step
        if value > self.value:
            self.value, self.step, self.weights = value, int(step), weights()
