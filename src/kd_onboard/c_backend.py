"""The bundle's C, compiled once for this machine and called through ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kd_onboard import int8
from kd_onboard.bundle import Bundle
from kd_onboard.errors import BAD_FEATURE, BackendError
from kd_onboard.folders import check_own_file, own_folder
from kd_onboard.messages import empty_inbox, empty_outbox, spoken, thresholds
from kd_onboard.numpy_backend import Int8Backend, NumpyBackend, TalkingNumpyBackend, program_backend
from kd_onboard.profile import AgentProfile, CSource

# Without -march=native: the cache may lie in a home folder that machines share.
CFLAGS = ("-std=c99", "-O3")
# Environment variables: the compiler, further flags for it, and the folder of compiled programs.
COMPILER_VARIABLE, FLAGS_VARIABLE, CACHE_VARIABLE = "CC", "KD_ONBOARD_CFLAGS", "KD_ONBOARD_CACHE"
_PATIENCE_S = 300
# Comparison of a program with the weights: its steps, the largest difference of logits relative to the largest logit,
# and the spare floats behind the buffers.
_PROBES, _TOLERANCE, _ROOM = 3, 1e-3, 1 << 16
# Of an agent's struct behind its state: whether it was initialised, and its last action; then its turn, if it talks.
_MARKS_BYTES, _TURN_BYTES = 8, 4


class CBackend:
    """An agent's compiled program; see :class:`kd_onboard.backend.Backend`.

    Attributes:
        reset: resets the recurrent state.
        decide: returns the best available action, or the negative number of the program's fault.
        tests_features: :meth:`check` has seen that the program does.
    """

    tests_features = True

    def __init__(self, library: Path, prefix: str, agent: AgentProfile) -> None:
        """Load a program.

        Args:
            library: a shared library.
            prefix: of its symbols.
            agent: the profile of the program's agent.

        Raises:
            BackendError: it cannot be loaded here, or has a state of another size.
        """
        self.inbox, self.outbox = _radio(agent)
        # Those that every call has in addition, of an agent that talks.
        self._radio = [] if agent.messages is None else [self.inbox, self.outbox]
        init, act, self._logits, self._last_logits, size = _load(library, prefix)
        self._number_bits = agent.exchanged[2]
        self._where, self._label = library, agent.label
        calibration = None if agent.c is None else agent.c.int8
        expected = _MARKS_BYTES + (4 * agent.width if calibration is None else 2 * int8.padded(agent.width))
        expected += 0 if agent.messages is None else _TURN_BYTES
        if size() != expected:
            raise BackendError(
                f"{library} is not the program of {agent.label}: a state of {size()} bytes, expected {expected}"
            )
        self.features = np.zeros(agent.inputs, np.float32)
        self.available = np.zeros(agent.n_actions, bool)
        self._state = np.zeros(expected // 4, np.float32)
        self.state = self._state.view(np.float32 if calibration is None else np.int16)[: agent.width]
        # Of a silent agent the last action is at the end.
        marks = self._state[-1:] if agent.messages is None else self._state[-2:]
        self._last, self._turn = marks[:1].view(np.int32), marks[1:].view(np.uint32)
        # Made once: turning an array into a pointer costs more than the decision, as does checking what is passed.
        buffers = (self._state, self.features, self.available, *self._radio)
        pointers = [ctypes.c_void_p(part.ctypes.data) for part in buffers]
        self.reset: Callable[[], None] = partial(init, pointers[0])
        self.decide: Callable[[], int] = partial(act, *pointers)
        self._init = init
        self.reset()

    def check(self, network: NumpyBackend | Int8Backend) -> None:
        """Check that the program computes the agent's network, and not an earlier export or another agent.

        Args:
            network: the agent's network, from the bundle's weights, as its program computes it.

        Raises:
            BackendError: the program computes another network.
        """
        # Spare room for a wrong program that reads and writes beyond this agent's sizes.
        features, logits = (np.zeros(part.size + _ROOM, np.float32) for part in (self.features, self.available))
        state = np.zeros_like(self._state)
        radio = [np.zeros(part.size + _ROOM, np.uint8) for part in self._radio]
        self._init(ctypes.c_void_p(state.ctypes.data))
        network.available[:] = True
        for step in range(_PROBES):
            network.features[:] = np.cos(np.arange(1, len(network.features) + 1) * (step + 1))
            features[: len(network.features)] = network.features
            logits.fill(np.nan)
            if isinstance(network, TalkingNumpyBackend):
                # Marks and bits of every kind.
                network.inbox[:] = (37 * (step + 1) * _counted(network.inbox.shape)) % 256
                network.inbox[:, 0] %= 2
                radio[0][: network.inbox.size] = network.inbox.reshape(-1)
            buffers: tuple[np.ndarray, ...] = (state, features, logits, *radio)
            refused = self._logits(*(ctypes.c_void_p(part.ctypes.data) for part in buffers))
            network.decide()
            expected = network.logits
            # Whole numbers are the same everywhere.
            share = 0.0 if isinstance(network, Int8Backend) else _TOLERANCE
            most = share * max(1.0, float(np.abs(expected).max()))
            close = np.allclose(logits[: len(expected)], expected, rtol=0, atol=most)
            says = not isinstance(network, TalkingNumpyBackend) or _says(radio[1], network, self._number_bits)
            # Agents of this backend leave it to the program to refuse bad features.
            features[0] = np.nan
            lets_in = self._logits(*(ctypes.c_void_p(part.ctypes.data) for part in buffers)) != BAD_FEATURE
            if refused or lets_in or not close or not says or not np.isnan(logits[len(expected) :]).all():
                raise BackendError(
                    f"{self._where} does not compute the network of {self._label} in this bundle: compile the bundle's "
                    "C again, without flags that change its arithmetic"
                )

    def restore(self, state: np.ndarray) -> None:
        """Set the recurrent state."""
        self.reset()
        self.state[:] = state

    @property
    def logits(self) -> np.ndarray:
        """The logits of the last decision, NaN where there was none since the state was set."""
        found = np.full(self.available.size, np.nan, np.float32)
        if self._last[0] >= 0:
            self._last_logits(ctypes.c_void_p(self._state.ctypes.data), ctypes.c_void_p(found.ctypes.data))
        return found

    @property
    def turn(self) -> int:
        """Steps since the turn to speak, of an agent that talks."""
        return int(self._turn[0])

    @turn.setter
    def turn(self, turn: int) -> None:
        self._turn[0] = turn


def open_c(bundle: Bundle, agent: AgentProfile, library: str | os.PathLike[str] | None) -> CBackend:
    """Build an agent's C backend, from ``library`` or from a program compiled now.

    Raises:
        BackendError: the bundle has no such program, or it cannot be compiled or loaded here.
        BundleError: a source is damaged.
    """
    if agent.c is None:
        raise BackendError(f"{bundle.folder} has no C program of {agent.label}: use another backend")
    path = Path(library) if library is not None else compile_agent(bundle, agent.c)
    backend = CBackend(path, agent.c.prefix, agent)
    backend.check(program_backend(bundle.weights(agent), agent))
    return backend


def _radio(agent: AgentProfile) -> tuple[np.ndarray, np.ndarray]:
    """Build inbox and outbox; empty for a silent agent."""
    if agent.messages is None:
        return np.zeros((0, 1), np.uint8), np.zeros(0, np.uint8)
    return empty_inbox(agent.messages), empty_outbox(agent.messages)


def _counted(shape: tuple[int, ...]) -> np.ndarray:
    """Number the elements of an array, from 1."""
    return np.arange(1, int(np.prod(shape)) + 1).reshape(shape)


def _says(outbox: np.ndarray, network: TalkingNumpyBackend, bits: int) -> bool:
    """Compare what a program says with its network, but for bits that rounding decides."""
    said, expected, voice = outbox[: network.outbox.size], network.outbox, network.voice
    if not expected.any():
        return not said.any()
    same = np.unpackbits(said[1:], count=voice.size * bits, bitorder="little") == spoken(voice, bits)
    distance = np.abs(voice[:, None] - thresholds(bits)).min(1)
    near = distance < _TOLERANCE * max(1.0, float(np.abs(voice).max()))
    return bool(said[0] == expected[0] and (same | near.repeat(bits)).all())


def _load(path: Path, prefix: str) -> tuple[Any, Any, Any, Any, Any]:
    """Load the program's ``init``, ``act``, ``logits``, ``last_logits`` and ``size``.

    Raises:
        BackendError: the library cannot be loaded, or lacks one of them.
    """
    try:
        program = ctypes.PyDLL(str(path.absolute()))
        names = ("init", "act", "logits", "last_logits", "size")
        init, act, logits, last_logits, size = (getattr(program, f"{prefix}_{name}") for name in names)
    # ValueError: a name that no file can have.
    except (OSError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BackendError(f"cannot use {path} ({reason}): compile the bundle's C for this machine") from None
    # Without argtypes: all are called with pointers that are made as such.
    init.restype, size.restype = None, ctypes.c_size_t
    return init, act, logits, last_logits, size


def _words(variable: str) -> list[str]:
    try:
        return shlex.split(os.environ.get(variable, ""))
    except ValueError as error:
        raise BackendError(f"{variable} is {os.environ[variable]!r}, which has no words ({error})") from None


def compile_agent(bundle: Bundle, program: CSource) -> Path:
    """Return a shared library of an agent's program, from the cache or compiled now.

    Args:
        bundle: contains the sources.
        program: the agent's program.

    Raises:
        BackendError: there is no compiler, or it fails.
        TrustError: others can write to the cache, or it cannot be made.
        BundleError: a source is damaged.
    """
    compiler = _words(COMPILER_VARIABLE) or ["cc"]
    if shutil.which(compiler[0]) is None:
        raise BackendError(
            f"backend 'c' needs a C compiler and '{compiler[0]}' is none here: install one, name it in "
            f"{COMPILER_VARIABLE}, or give library="
        )
    flags = [*CFLAGS, *_words(FLAGS_VARIABLE)]
    inside = program.folder + "/"
    files = {path: bundle.read(path) for path in sorted(bundle.profile.files) if path.startswith(inside)}
    digest = hashlib.sha256(repr((compiler, flags, platform.machine(), platform.system())).encode())
    for path, data in files.items():
        digest.update(f"{path} {len(data)}\n".encode() + data)
    cache = own_folder(CACHE_VARIABLE, "XDG_CACHE_HOME", "~/.cache")
    library = cache / f"{program.prefix[:60]}-{digest.hexdigest()[:32]}.so"
    mark = library.with_suffix(".sha256")
    if _is_whole(library, mark):
        return library
    with tempfile.TemporaryDirectory(dir=cache, prefix="compile-") as scratch:
        for path, data in files.items():
            (Path(scratch) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / path).write_bytes(data)
        made = Path(scratch, "agent.so")
        command = [*compiler, *flags, "-shared", "-fPIC", "-o", str(made), *program.sources]
        try:
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=_PATIENCE_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BackendError(f"'{compiler[0]}' does not run ({' '.join(str(error).split())})") from None
        if done.returncode or not made.is_file():
            first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
            raise BackendError(f"'{compiler[0]}' cannot compile {program.sources[0]}: {' '.join(first.split())}")
        made.chmod(0o700)
        noted = Path(scratch, "agent.sha256")
        noted.write_text(hashlib.sha256(made.read_bytes()).hexdigest())
        noted.chmod(0o600)
        # Atomic, so that two processes can compile the same program at once.
        os.replace(made, library)
        os.replace(noted, mark)
    return library


def _is_whole(library: Path, mark: Path) -> bool:
    """Tell whether a program is in the cache as it was compiled: to load half a one would end the process.

    Raises:
        TrustError: others could have changed it.
    """
    if not (os.path.lexists(library) and os.path.lexists(mark)):
        return False
    check_own_file(library)
    check_own_file(mark)
    return mark.read_bytes() == hashlib.sha256(library.read_bytes()).hexdigest().encode()
