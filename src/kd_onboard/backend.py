"""The interface of a backend to an agent: buffers to fill, and one decision from them."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np

from kd_onboard.bundle import Bundle
from kd_onboard.errors import BackendError
from kd_onboard.profile import AgentProfile

BACKENDS = ("numpy", "onnx", "onnx-int8", "c")


class Backend(Protocol):
    """One agent's network with its recurrent state.

    Attributes:
        features: float32 ``(inputs,)``, to be filled with finite numbers before :meth:`decide`.
        available: bool ``(actions,)``, to be filled, at least one of them true.
        tests_features: whether :meth:`decide` refuses features that are not finite or too large, with `BAD_FEATURE`.
    """

    features: np.ndarray
    available: np.ndarray
    tests_features: bool

    @property
    def logits(self) -> np.ndarray:
        """Return the last decision's logits, float32 ``(actions,)``; NaN if none was made since the state was set."""

    @property
    def state(self) -> np.ndarray:
        """Return the recurrent state, float32 or, of int8 C, int16 ``(width,)``; it is not to be written to."""

    def reset(self) -> None:
        """Reset the recurrent state."""

    def restore(self, state: np.ndarray) -> None:
        """Set the recurrent state."""

    def decide(self) -> int:
        """Return the available action with the largest logit, and advance the state.

        If the numbers overflowed, return a negative number and leave the state as it was: `BAD_FEATURE` if they were
        tested before, `BAD_STATE` if the state that it began with is damaged.
        """


class TalkingBackend(Backend, Protocol):
    """The same of an agent that talks; `kd_onboard.messages` describes the rows.

    Attributes:
        inbox: uint8 ``(speakers, 1 + payload)``, to be filled before :meth:`decide`.
        outbox: uint8 ``(1 + payload,)``, what the agent says after its step; empty if nobody hears it.
        turn: steps since its turn to speak; 0 after a reset.
    """

    inbox: np.ndarray
    outbox: np.ndarray
    turn: int


def make_backend(
    bundle: Bundle, agent: AgentProfile, name: str, library: str | os.PathLike[str] | None = None
) -> Backend:
    """Build a backend.

    Args:
        bundle: contains the agent's files.
        agent: the agent's profile.
        name: one of ``BACKENDS``.
        library: for ``c``, a shared library that has already been compiled for this machine.

    Raises:
        BackendError: an unknown name, a package or compiler that is missing, or a model that the bundle lacks.
        BundleError: a file of the bundle is damaged.
    """
    if name not in BACKENDS:
        raise BackendError(f"there is no backend {name!r}: choose one of {', '.join(BACKENDS)}")
    if library is not None and name != "c":
        raise BackendError(f"library= is for backend 'c', not for {name!r}: leave it out")
    # Imported here, so that a board needs the packages of the backend that it uses and no others.
    if name == "numpy":
        from kd_onboard.numpy_backend import NumpyBackend, TalkingNumpyBackend

        weights = bundle.weights(agent)
        if agent.messages is not None:
            return TalkingNumpyBackend(weights, agent, agent.messages)
        return NumpyBackend(weights, agent)
    if name == "c":
        from kd_onboard.c_backend import open_c

        return open_c(bundle, agent, library)
    from kd_onboard.onnx_backend import open_onnx

    return open_onnx(bundle, agent, int8=name == "onnx-int8")
