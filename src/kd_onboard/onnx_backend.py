"""The student's network in ONNX Runtime; buffers are bound once, so a decision copies and allocates nothing."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kd_onboard.bundle import Bundle
from kd_onboard.errors import BackendError, BundleError
from kd_onboard.messages import Talker, bits_of_numbers, numbers
from kd_onboard.onnx_guard import check_model
from kd_onboard.profile import AgentMessages, AgentProfile

_ERRORS_ONLY = 3


class OnnxBackend:
    """Backend that needs ``onnxruntime``; see :class:`kd_onboard.backend.Backend`.

    The recurrent state has two buffers: a decision reads one and writes the other. Only a decision without overflow
    swaps them.

    Attributes:
        logits: of the last decision, float32 ``(actions,)``, else NaN.
        steps: the two decisions, each the runtime's call and the buffer that is finite if nothing overflowed.
    """

    tests_features = False

    def __init__(self, model: bytes, agent: AgentProfile, where: str) -> None:
        """Open a model.

        Args:
            model: the bytes of the ONNX file.
            agent: the profile of the model's agent.
            where: its name in messages.

        Raises:
            BackendError: ONNX Runtime is not installed.
            BundleError: the model is damaged, or not this agent's.
        """
        runtime = _runtime()
        check_model(model, agent, where)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        # With every output bound there is almost nothing to allocate, and the arena costs more than it saves.
        options.enable_cpu_mem_arena = False
        try:
            session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        # The runtime's own exceptions have no other common class.
        except Exception as error:
            raise BundleError(
                f"{where} cannot be loaded by ONNX Runtime: {' '.join(str(error).split())[:200]}"
            ) from None
        _check_interface(session, agent, where)
        self.features = np.zeros(agent.inputs, np.float32)
        self.available = np.zeros(agent.n_actions, bool)
        self.logits = np.full(agent.n_actions, np.nan, np.float32)
        self._masked = np.zeros_like(self.logits)
        self._action = np.zeros(1, np.int64)
        self._states = [np.zeros(agent.width, np.float32) for _ in range(2)]
        # What an agent that talks hears and says, as numbers from -1 to 1.
        inbox, outbox, _ = agent.exchanged
        self._heard = {"inbox": np.zeros(inbox, np.float32)} if inbox else {}
        self._said = {"outbox": np.zeros(outbox, np.float32)} if outbox else {}
        # A decision with its buffers, and the state that it writes, which is finite only without overflow.
        self.steps = [(self._bind(session, i), self._states[1 - i]) for i in range(2)]
        self._session = session
        self._reads = 0

    def _bind(self, session: Any, reads: int) -> Callable[[], Any]:
        """Bind the decision that reads the state ``reads``. Every output has a buffer, or it would be allocated."""
        binding = session.io_binding()
        inputs = {"features": self.features, "available": self.available, "state": self._states[reads], **self._heard}
        outputs: dict[str, np.ndarray] = {
            **{"logits": self.logits, "masked_logits": self._masked, "action": self._action},
            **{"next_state": self._states[1 - reads], **self._said},
        }
        for name, buffer in inputs.items():
            binding.bind_input(name, "cpu", 0, buffer.dtype.type, (1, buffer.size), buffer.ctypes.data)
        for name, buffer in outputs.items():
            shape = (1,) if name == "action" else (1, buffer.size)
            binding.bind_output(name, "cpu", 0, buffer.dtype.type, shape, buffer.ctypes.data)
        return _call(session, binding)

    @property
    def state(self) -> np.ndarray:
        """The recurrent state."""
        return self._states[self._reads]

    def reset(self) -> None:
        """Reset the recurrent state."""
        self.restore(np.zeros_like(self.state))

    def restore(self, state: np.ndarray) -> None:
        """Set the recurrent state."""
        self.state[:] = state
        self.logits.fill(np.nan)

    def decide(self) -> int:
        """Return the best available action, or -1 if the numbers overflowed."""
        reads = self._reads
        run, written = self.steps[reads]
        run()
        # A finite state lies in [-1, 1], so its logits are finite too: one product tests everything.
        if not math.isfinite(written.dot(written)):
            return -1
        self._reads = 1 - reads
        return self._action.item()


class TalkingOnnxBackend(Talker, OnnxBackend):
    """The same of an agent that talks; see :class:`kd_onboard.backend.TalkingBackend`."""

    def __init__(self, model: bytes, agent: AgentProfile, where: str, messages: AgentMessages) -> None:
        """Open a model; arguments and errors as for `OnnxBackend`."""
        self._messages = messages
        Talker.__init__(self, messages)
        OnnxBackend.__init__(self, model, agent, where)

    def reset(self) -> None:
        """Reset the recurrent state."""
        super().reset()
        self.turns.reset()

    def decide(self) -> int:
        """Return the best available action and write the outbox, or -1 if the numbers overflowed."""
        for heard in self._heard.values():
            heard[:] = numbers(self.inbox, self._messages)
        action = super().decide()
        if action >= 0:
            self.turns.end(bits_of_numbers(self._said.get("outbox", self.logits[:0]), self._messages), self.available)
        return action


def open_onnx(bundle: Bundle, agent: AgentProfile, int8: bool) -> OnnxBackend:
    """Build an agent's ONNX backend.

    Raises:
        BackendError: the bundle has no such model, or ONNX Runtime is not installed.
        BundleError: the model is damaged.
    """
    path = agent.onnx_int8 if int8 else agent.onnx
    if path is None:
        kind = "int8 ONNX model" if int8 else "ONNX model"
        hint = "int8 was not tried, or chose other actions too often; " if int8 else ""
        raise BackendError(f"{bundle.folder} has no {kind} of {agent.label}: {hint}use another backend")
    if agent.messages is not None:
        return TalkingOnnxBackend(bundle.read(path), agent, str(bundle.folder / path), agent.messages)
    return OnnxBackend(bundle.read(path), agent, str(bundle.folder / path))


def _call(session: Any, binding: Any) -> Callable[[], Any]:
    """Build a session's call on bound buffers.

    The public method creates new options every time and first asks for a GPU's graphs, an eighth of a small network's
    time. It is used where the runtime's inner objects have other names.
    """
    inner: Any = getattr(session, "_sess", None)
    bound = getattr(binding, "_iobinding", None)
    if not hasattr(inner, "run_with_iobinding") or bound is None:
        return functools.partial(session.run_with_iobinding, binding)
    return functools.partial(inner.run_with_iobinding, bound, _runtime().RunOptions())


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise BackendError("this backend needs ONNX Runtime: pip install 'kd-onboard[onnx]'") from None
    return onnxruntime


def _check_interface(session: Any, agent: AgentProfile, where: str) -> None:
    """Check that the model's inputs and outputs match the profile; else buffers would be misread.

    Raises:
        BundleError: an input or output is missing, surplus, or of another type or shape.
    """
    inputs = {
        "features": ("tensor(float)", [agent.inputs]),
        "available": ("tensor(bool)", [agent.n_actions]),
        "state": ("tensor(float)", [agent.width]),
    }
    outputs = {
        "action": ("tensor(int64)", []),
        "logits": ("tensor(float)", [agent.n_actions]),
        "masked_logits": ("tensor(float)", [agent.n_actions]),
        "next_state": ("tensor(float)", [agent.width]),
    }
    for ports, name, count in zip((inputs, outputs), ("inbox", "outbox"), agent.exchanged[:2], strict=True):
        if count:
            ports[name] = ("tensor(float)", [count])
    for expected, values in ((inputs, session.get_inputs()), (outputs, session.get_outputs())):
        found = {value.name: (value.type, list(value.shape)[1:]) for value in values}
        for name, kind in expected.items():
            if found.get(name) != kind:
                raise BundleError(
                    f"{where}: '{name}' is {found.get(name, 'missing')}, expected {kind} after the batch axis"
                )
        for value in values:
            if not value.shape or isinstance(value.shape[0], int):
                raise BundleError(f"{where}: the batch axis of '{value.name}' is not free")
    if surplus := {value.name for value in session.get_inputs()} - inputs.keys():
        raise BundleError(f"{where} wants an input that no agent has: {min(surplus)}")
