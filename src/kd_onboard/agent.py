"""`OnboardAgent`: one agent of a bundle, which decides from its own features."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np

from kd_onboard import int8, memory
from kd_onboard.backend import Backend, TalkingBackend, make_backend
from kd_onboard.bundle import Bundle, read_bundle
from kd_onboard.errors import BAD_FEATURE, BAD_STATE, FaultError
from kd_onboard.profile import AgentProfile
from kd_onboard.sampling import Generator, draw
from kd_onboard.signature import admit
from kd_onboard.tensors import weights_digest

_NUMBERS = "fiu"
_FLAGS = _NUMBERS + "b"
# The types that are checked and copied at the lowest cost.
_FLOAT32, _BOOL = np.dtype(np.float32), np.dtype(bool)
# The sum of squares overflows only for features that are refused: to switch numpy's warning off at each decision would
# cost more than all that an agent does beside its network.
warnings.filterwarnings("ignore", "overflow encountered", RuntimeWarning, "kd_onboard.agent")


class OnboardAgent:
    """One agent with its recurrent state.

    Bad input never reaches the network: a wrong number of features, a value that is not finite, no available action.
    Then the state stays as it was, :attr:`faults` counts, and the bundle's ``on_fault`` decides. ``raise`` raises;
    ``hold`` repeats the last action if it is available; ``noop`` takes the agent's ``noop_action`` if that is
    available. Without such an action ``hold`` and ``noop`` raise too.

    Attributes:
        profile: this agent's part of the bundle's profile.
        on_fault: ``raise``, ``hold`` or ``noop``.
        faults: number of bad inputs since the agent was loaded.
        last_fault: message of the latest of them, or None.
    """

    def __init__(self, profile: AgentProfile, backend: Backend, on_fault: str, digest: str = "") -> None:
        self.profile, self.on_fault = profile, on_fault
        self._digest = digest
        self.faults = 0
        self.last_fault: str | None = None
        self._backend, self._decide = backend, backend.decide
        self._features = backend.features
        self._features_dot = None if backend.tests_features else backend.features.dot
        self._features_shape, self._available_shape = backend.features.shape, backend.available.shape
        # The same memory as `features` and as `available`: bytes are copied several times faster than arrays.
        self._numbers = backend.features.data.cast("B")
        self._flags, self._nothing = backend.available.data.cast("B"), bytes(backend.available.size)
        self._last: int | None = None

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str] | Bundle,
        agent: int | str,
        backend: str = "numpy",
        library: str | os.PathLike[str] | None = None,
        *,
        key: str | os.PathLike[str] | None = None,
        trust: bool = False,
    ) -> OnboardAgent:
        """Read and check a bundle, and build one of its agents.

        The ``c`` backend compiles and runs the bundle's C, so it wants a key, or to be told to trust the bundle.

        Args:
            bundle: its folder, or the result of :func:`kd_onboard.read_bundle`.
            agent: index or name.
            backend: ``numpy``; ``onnx`` or ``onnx-int8`` (needs onnxruntime); ``c`` (needs a compiler, or ``library``).
            library: for ``c``: the agent's program, compiled as a shared library for this machine.
            key: file of the public key that must have signed the bundle; needs ``cryptography``.
            trust: run the bundle's C although no key vouches for it.

        Returns:
            The agent; a `TalkingAgent` if it talks.

        Raises:
            BundleError: the bundle is damaged, has no such agent, or is not signed by the key, or is older than one
                that was accepted here.
            TrustError: nobody vouches for C that would run, or the key cannot be read.
            BackendError: this machine cannot run the backend, or the bundle does not have it.
        """
        read = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
        admit(read, key, backend == "c" and library is None, trust)
        profile = read.agent(agent)
        network = make_backend(read, profile, backend, library)
        weights = read.weights(profile)
        calibration = profile.c.int8 if backend == "c" and profile.c is not None else None
        digest = weights_digest(weights) if calibration is None else int8.program_digest(weights, calibration)
        kind = cls if profile.messages is None else TalkingAgent
        return kind(profile, network, read.profile.on_fault, digest)

    def reset(self) -> None:
        """Begin an episode: reset the recurrent state and the last action."""
        self._backend.reset()
        self._last = None

    def act(self, features: Any, available: Any) -> int:
        """Choose an action.

        Args:
            features: the agent's own, in the profile's order: ``(inputs,)`` finite real numbers, float32 for speed.
            available: ``(actions,)`` of 0 and 1, or bool for speed; 1 for actions that are available now.

        Returns:
            The number of an available action.

        Raises:
            FaultError: the input is bad and ``on_fault`` gives no action.
        """
        try:
            values = features if type(features) is np.ndarray else _as_array(features)
            if values.shape != self._features_shape:
                self._fail(f"features of shape {values.shape} given, expected {self._features_shape}")
            if values.dtype is _FLOAT32:
                self._numbers[:] = values.tobytes()
            else:
                self._convert(values)
            if self._features_dot is not None:
                # If the sum of squares overflows, the network may too. One product tests all features at the lowest
                # cost, and still takes as long as all else here: a program that tests them does not wait for it.
                try:
                    finite = isfinite(self._features_dot(self._features))
                except (RuntimeWarning, FloatingPointError):
                    finite = False
                if not finite:
                    self._fail_features(values)
            allowed = self._read_available(available)
            action = self._decide()
            if action < 0 or action >= len(allowed) or not allowed[action]:
                self._refuse(action, values)
        except FaultError as fault:
            action = self._fall_back(fault, available)
        self._last = action
        return action

    def sample(self, features: Any, available: Any, generator: Generator) -> int:
        """Choose an action as :meth:`act` does, but draw it by the softmax of the logits.

        Args:
            features: as for :meth:`act`.
            available: as for :meth:`act`.
            generator: equal logits and an equal generator give the same action in every backend, and in C.

        Raises:
            FaultError: as :meth:`act`. What ``on_fault`` gives is not drawn, and leaves the generator as it was.
        """
        faults, action = self.faults, self.act(features, available)
        if self.faults == faults:
            action = self._last = draw(self._backend.logits, self._backend.available, generator)
        return action

    def logits(self) -> np.ndarray | None:
        """Return the logits of the last decision, float32 ``(actions,)``; None before the first of an episode."""
        found = self._backend.logits.copy()
        return None if np.isnan(found).any() else found

    def state(self) -> np.ndarray:
        """Return the recurrent state, ``(width,)``: float32, or int16 of a C program with int8 weights."""
        return self._backend.state.copy()

    def save(self) -> bytes:
        """Return what the agent remembers, for :meth:`restore` in any backend, or in C on a board."""
        return memory.pack(self._backend.state, self._last, self._digest)

    def restore(self, saved: bytes) -> None:
        """Go on from what :meth:`save` returned, or ``PREFIX_save`` wrote.

        Raises:
            SavedError: the bytes are damaged, or of an agent with other weights; the agent stays as it was.
        """
        size = self._backend.available.size
        state, self._last, _ = memory.unpack(saved, self._backend.state, size, self._digest, self.profile.label)
        self._backend.restore(state)

    def _convert(self, values: np.ndarray) -> None:
        """Copy features that are not float32 into the backend's buffer."""
        if values.dtype.kind not in _NUMBERS:
            self._fail(f"features of type {values.dtype} given, expected numbers, best float32")
        with np.errstate(over="ignore"):
            self._features[...] = values

    def _fail_features(self, values: np.ndarray) -> None:
        """Name the feature that is not finite, or the largest."""
        largest = int(np.where(np.isfinite(self._features), np.abs(self._features), np.inf).argmax())
        name = self.profile.features[largest].name
        bound = "that cannot overflow the network" if self._backend.tests_features else "below 1e19"
        self._fail(f"feature {largest} ('{name}') is {values[largest]}, expected a finite number {bound}")

    def _read_available(self, given: Any) -> bytes:
        """Check availability and copy it into the backend's buffer; return its bytes."""
        values = given if type(given) is np.ndarray else _as_array(given)
        if values.shape != self._available_shape:
            self._fail(f"availability of shape {values.shape} given, expected {self._available_shape}")
        if values.dtype is not _BOOL:
            if values.dtype.kind not in _FLAGS or not ((values == 0) | (values == 1)).all():
                self._fail("availability that is not all 0 or 1 given")
            values = values.astype(bool)
        self._flags[:] = allowed = values.tobytes()
        if allowed == self._nothing:
            self._fail("no action is available")
        return allowed

    def _refuse(self, action: int, values: np.ndarray) -> None:
        """Say why what the backend returned is no action that can be taken."""
        if action == BAD_FEATURE:
            self._fail_features(values)
        if action == BAD_STATE:
            self._fail("its memory is damaged: reset the agent")
        if action < 0:
            self._fail("the features are so large that the network overflowed")
        self._fail(f"its program chose action {action}, which is not available: the program is damaged")

    def _fail(self, reason: str) -> None:
        raise FaultError(f"{self.profile.label}: {reason}")

    def _fall_back(self, fault: FaultError, available: Any) -> int:
        """Return the action that ``on_fault`` names, if it is available.

        Raises:
            FaultError: ``on_fault`` is ``raise``, or names no available action.
        """
        self.faults += 1
        self.last_fault = str(fault)
        if self.on_fault == "raise":
            raise fault
        action = self._last if self.on_fault == "hold" else self.profile.noop_action
        if action is None:
            lacks = "nothing was done yet" if self.on_fault == "hold" else "this agent has no noop"
            raise FaultError(f"{fault}; on_fault is {self.on_fault}, but {lacks}") from None
        try:
            allowed = self._read_available(available)
        except FaultError:
            raise fault from None
        if not allowed[action]:
            raise FaultError(f"{fault}; on_fault is {self.on_fault}, but action {action} is not available") from None
        return action


class TalkingAgent(OnboardAgent):
    """An agent that hears messages and says some.

    A message is the bytes that a radio carries: the packed bits, ``profile.messages.payload_bytes`` of them. A message
    that is missing is None. One that is malformed counts as missing, and in :attr:`malformed`.

    Attributes:
        malformed: number of messages since the agent was loaded that were of another length or type.
    """

    _backend: TalkingBackend

    def __init__(self, profile: AgentProfile, backend: Backend, on_fault: str, digest: str = "") -> None:
        super().__init__(profile, backend, on_fault, digest)
        self.malformed = 0

    def act(  # type: ignore[override]
        self, features: Any, available: Any, inbox: Sequence[bytes | None]
    ) -> tuple[int, bytes | None]:
        """Choose an action, and a message.

        Args:
            features: as for `OnboardAgent.act`.
            available: as for `OnboardAgent.act`.
            inbox: a message of each agent in ``profile.messages.hears``, in that order: what it said
                ``profile.messages.latency`` steps ago; None where nothing arrived.

        Returns:
            The number of an available action, and the message to send; None where the agent is silent.

        Raises:
            FaultError: the input is bad and ``on_fault`` gives no action.
        """
        outbox = self._backend.outbox
        outbox.fill(0)
        try:
            self._read_inbox(inbox)
        except FaultError as fault:
            self._last = self._fall_back(fault, available)
            return self._last, None
        action = super().act(features, available)
        return action, outbox[1:].tobytes() if outbox.size and outbox[0] else None

    def sample(  # type: ignore[override]
        self, features: Any, available: Any, inbox: Sequence[bytes | None], generator: Generator
    ) -> tuple[int, bytes | None]:
        """Choose as :meth:`act` does, but draw the action as `OnboardAgent.sample` does."""
        faults, (action, message) = self.faults, self.act(features, available, inbox)
        if self.faults == faults:
            action = self._last = draw(self._backend.logits, self._backend.available, generator)
        return action, message

    def save(self) -> bytes:
        """Return what the agent remembers, its turn to speak included; see `OnboardAgent.save`."""
        return memory.pack(self._backend.state, self._last, self._digest, self._backend.turn)

    def restore(self, saved: bytes) -> None:
        """Go on from what :meth:`save` returned; errors as for `OnboardAgent.restore`."""
        messages, like = self.profile.messages, self._backend.state
        turns = 1 if messages is None else messages.every
        size, label = self._backend.available.size, self.profile.label
        state, self._last, turn = memory.unpack(saved, like, size, self._digest, label, turns)
        self._backend.restore(state)
        self._backend.turn = turn

    def _read_inbox(self, given: Sequence[bytes | None]) -> None:
        """Copy the messages that arrived into the backend's buffer."""
        inbox = self._backend.inbox
        if not isinstance(given, list | tuple) or len(given) != len(inbox):
            found = f"{len(given)} messages" if isinstance(given, list | tuple) else f"a {type(given).__name__}"
            self._fail(f"an inbox of {found} given, expected a list of {len(inbox)}: bytes, or None for a missing one")
        inbox.fill(0)
        for row, message in zip(inbox, given, strict=True):
            if message is None:
                continue
            if type(message) is not bytes or len(message) != row.size - 1:
                self.malformed += 1
                continue
            row[0] = 1
            row[1:] = np.frombuffer(message, np.uint8)


def _as_array(given: Any) -> np.ndarray:
    """Convert anything to an array; a failed conversion gives an array of objects, which every check refuses."""
    try:
        # Masked entries count as missing, but asarray would return their hidden numbers.
        return np.ma.filled(given.astype(float), np.nan) if np.ma.isMaskedArray(given) else np.asarray(given)
    # What is given may raise anything; whatever it is, it is no array.
    except Exception:
        return np.empty((), object)
