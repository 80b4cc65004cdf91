"""The student's network in numpy.

a = relu(A x + a0),   r, z = sigmoid(I_rz a + i_rz + H_rz h + h_rz),   n = tanh(I_n a + i_n + r (H_n h + h_n))
h' = (1 - z) n + z h,   logits = L h' + l0

An agent that talks has a = relu(A x + a0 + R inbox), and says S h', as numbers of
a few bits each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from kd_onboard import int8
from kd_onboard.messages import Talker, numbers, spoken
from kd_onboard.profile import AgentMessages, AgentProfile


class NumpyBackend:
    """Backend that needs only numpy; see :class:`kd_onboard.backend.Backend`.

    Attributes:
        logits: of the last decision, float32 ``(actions,)``.
        state: the recurrent state, float32 ``(width,)``.
    """

    tests_features = False

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
        aligned = np.maximum(self._aligned(), 0)
        new = weights["gru.weight_ih"] @ aligned + weights["gru.bias_ih"]
        old = weights["gru.weight_hh"] @ self.state + weights["gru.bias_hh"]
        # The sigmoid as a tanh: exp of a large number would overflow.
        gates = 0.5 * np.tanh(0.5 * (new[: 2 * width] + old[: 2 * width])) + 0.5
        candidate = np.tanh(new[2 * width :] + gates[:width] * old[2 * width :])
        return candidate + gates[width:] * (self.state - candidate)

    def _aligned(self) -> np.ndarray:
        """Compute what the input layer gives, before its ReLU."""
        return self._weights["align.weight"] @ self.features + self._weights["align.bias"]


class TalkingNumpyBackend(Talker, NumpyBackend):
    """The same of an agent that talks; see :class:`kd_onboard.backend.TalkingBackend`.

    Attributes:
        voice: S h' of the last decision, float32 ``(numbers,)``; empty for an agent that nobody hears.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], agent: AgentProfile, messages: AgentMessages) -> None:
        self._messages = messages
        self.voice: np.ndarray = np.zeros(agent.exchanged[1], np.float32)
        Talker.__init__(self, messages)
        NumpyBackend.__init__(self, weights, agent)

    def reset(self) -> None:
        """Reset the recurrent state."""
        super().reset()
        self.turns.reset()

    def decide(self) -> int:
        """Return the best available action and write the outbox, or -1 if the numbers overflowed."""
        action = super().decide()
        if action >= 0:
            speak = self._weights.get("speak.weight")
            self.voice = self.state[:0] if speak is None else speak @ self.state
            self.turns.end(spoken(self.voice, self._messages.number_bits), self.available)
        return action

    def _aligned(self) -> np.ndarray:
        own, hear = super()._aligned(), self._weights.get("hear.weight")
        return own if hear is None else own + hear @ numbers(self.inbox, self._messages)


class Int8Backend:
    """The whole numbers of an int8 C program; see :class:`kd_onboard.backend.Backend`.

    Attributes:
        logits: of the last decision, float32 ``(actions,)``.
        state: the recurrent state, int16 ``(width,)``.
    """

    tests_features = False

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
    if agent.messages is not None:
        return TalkingNumpyBackend(weights, agent, agent.messages)
    if agent.c is None or agent.c.int8 is None:
        return NumpyBackend(weights, agent)
    return Int8Backend(weights, agent, agent.c.int8)
