"""The student's network in numpy.

a = relu(A x + a0),   r, z = sigmoid(I_rz a + i_rz + H_rz h + h_rz),   n = tanh(I_n a + i_n + r (H_n h + h_n))
h' = (1 - z) n + z h,   logits = L h' + l0
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from kd_onboard import int8
from kd_onboard.profile import AgentProfile


class NumpyBackend:
    """Backend that needs only numpy; see :class:`kd_onboard.backend.Backend`.

    Attributes:
        logits: of the last decision, float32 ``(actions,)``.
        state: the recurrent state, float32 ``(width,)``.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], agent: AgentProfile) -> None:
        self._weights = dict(weights)
        self._width = agent.width
        self.features = np.zeros(agent.inputs, np.float32)
        self.available = np.zeros(agent.n_actions, bool)
        self.reset()

    def reset(self) -> None:
        """Reset the recurrent state."""
        self.restore(np.zeros(self._width, np.float32))

    def restore(self, state: np.ndarray) -> None:
        """Set the recurrent state."""
        self.state, self.logits = state, np.full(len(self.available), np.nan, np.float32)

    def decide(self) -> int:
        """Return the best available action, or -1 if the numbers overflowed."""
        with np.errstate(all="ignore"):
            state = self._advance()
            logits = self._weights["head.weight"] @ state + self._weights["head.bias"]
            # As for the features, one product tests all logits at the lowest cost.
            squares = logits.dot(logits)
        if not math.isfinite(squares):
            return -1
        self.state, self.logits = state, logits
        return int(np.where(self.available, logits, -np.inf).argmax())

    def _advance(self) -> np.ndarray:
        """Compute the state after this step."""
        weights, width = self._weights, self._width
        aligned = np.maximum(weights["align.weight"] @ self.features + weights["align.bias"], 0)
        new = weights["gru.weight_ih"] @ aligned + weights["gru.bias_ih"]
        old = weights["gru.weight_hh"] @ self.state + weights["gru.bias_hh"]
        # The sigmoid as a tanh: exp of a large number would overflow.
        gates = 0.5 * np.tanh(0.5 * (new[: 2 * width] + old[: 2 * width])) + 0.5
        candidate = np.tanh(new[2 * width :] + gates[:width] * old[2 * width :])
        return candidate + gates[width:] * (self.state - candidate)


class Int8Backend:
    """The whole numbers of an int8 C program; see :class:`kd_onboard.backend.Backend`.

    Attributes:
        logits: of the last decision, float32 ``(actions,)``.
        state: the recurrent state, int16 ``(width,)``.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], agent: AgentProfile, calibration: int8.Calibration) -> None:
        self._network, self._width = int8.quantise(weights, calibration), agent.width
        self.features = np.zeros(agent.inputs, np.float32)
        self.available = np.zeros(agent.n_actions, bool)
        self.reset()

    def reset(self) -> None:
        """Reset the recurrent state."""
        self.restore(np.zeros(self._width, np.int16))

    def restore(self, state: np.ndarray) -> None:
        """Set the recurrent state."""
        self.state, self.logits = state, np.full(len(self.available), np.nan, np.float32)

    def decide(self) -> int:
        """Return the best available action; whole numbers never overflow."""
        (self.logits,), (self.state,) = int8.step(self._network, self.features[None], self.state[None])
        return int(np.where(self.available, self.logits, -np.inf).argmax())


def program_backend(weights: Mapping[str, np.ndarray], agent: AgentProfile) -> NumpyBackend | Int8Backend:
    """Return the backend that computes what the agent's C does: with int8 weights to the bit."""
    if agent.c is None or agent.c.int8 is None:
        return NumpyBackend(weights, agent)
    return Int8Backend(weights, agent, agent.c.int8)
