"""One agent of a bundle as a process of its own, and the pipe that carries its features to it."""

from __future__ import annotations

import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import kd_onboard
from kd_core.errors import UserError
from kd_onboard import serve
from kd_onboard.bundle import Bundle
from kd_onboard.profile import AgentProfile
from kd_onboard.radio import TOKEN_BYTES

# Seconds: a C backend compiles before its first answer.
START_PATIENCE_S, ANSWER_PATIENCE_S = 600.0, 60.0


@dataclass(frozen=True)
class BadRadio:
    """What the messages between agents go through.

    Attributes:
        loss: probability that a message is lost, for each link and step.
        delay: steps by which messages are heard later than in training.
        seed: of the losses.
    """

    loss: float = 0.0
    delay: int = 0
    seed: int = 0


def join_team(agents: Sequence[AgentProcess]) -> None:
    """Tell the agents of a team that have started, and that talk, where those are that hear them."""
    token = secrets.token_bytes(TOKEN_BYTES)
    for agent in agents:
        if (messages := agent.profile.messages) is not None:
            agent.join(token, [agents[hearer].port for hearer in messages.heard_by])


class AgentProcess:
    """`kd_onboard.serve` in a process that imports neither torch nor kd_marl.

    It ends with its input, so with this process, however that ends.

    Attributes:
        profile: the agent's.
        port: where its radio listens; 0 for a silent agent.
    """

    def __init__(
        self,
        bundle: Bundle,
        profile: AgentProfile,
        backend: str,
        slots: int,
        key: Path | None = None,
        trust: bool = False,
        sample: int | None = None,
        radio: BadRadio | None = None,
    ) -> None:
        """Start it, with the key that must have signed the bundle, or with trust in its C.

        With ``sample``, a seed, it draws its actions.
        """
        self.profile, self.port = profile, 0
        self._rows, self._replies = serve.row_type(profile), serve.answer_type(profile)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        package = Path(kd_onboard.__file__).parents[1]
        paths = [path for path in [os.environ.get("PYTHONPATH")] if path]
        options = ["--agent", str(profile.index), "--backend", backend, "--slots", str(slots)]
        options += [] if key is None else ["--key", str(key.expanduser().absolute())]
        options += ["--trust"] if trust else []
        options += [] if sample is None else ["--sample", str(sample)]
        if radio is not None:
            options += ["--message-loss", str(radio.loss), "--message-delay", str(radio.delay)]
            options += ["--seed", str(radio.seed)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kd_onboard.serve", str(bundle.folder.absolute()), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=package,
            # Its packages may come from there too.
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(package), *paths]), "OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Wait for it to have loaded its network.

        Raises:
            UserError: it could not.
        """
        self._expect(serve.RESET, START_PATIENCE_S)
        if self.profile.messages is not None:
            (self.port,) = serve.COUNT.unpack(self._read(serve.COUNT.size, ANSWER_PATIENCE_S))

    def join(self, token: bytes, hearers: Sequence[int]) -> None:
        """Tell an agent that talks its team's token, and the ports of those that hear it."""
        ports = b"".join(serve.COUNT.pack(port) for port in hearers)
        self._send(serve.LINK + serve.COUNT.pack(len(hearers)) + token + ports)
        self._expect(serve.LINK, ANSWER_PATIENCE_S)

    def reset(self, slots: int) -> None:
        """Begin an episode in each of the first ``slots`` slots."""
        self._send(b"".join(serve.RESET + serve.COUNT.pack(slot) for slot in range(slots)))
        for _ in range(slots):
            self._expect(serve.RESET, ANSWER_PATIENCE_S)

    def ask(self, slots: np.ndarray, features: np.ndarray, available: np.ndarray) -> None:
        """Send one decision for each of some episodes; :meth:`answer` waits for the actions.

        Args:
            slots: the episodes, ``(k,)``.
            features: this agent's own, ``(k, inputs)`` float32.
            available: ``(k, actions)``, nonzero where an action may be taken.
        """
        table = np.empty(len(slots), self._rows)
        table["slot"], table["features"], table["available"] = slots, features, available
        self._send(serve.ACT + serve.COUNT.pack(len(slots)) + table.tobytes())
        self._asked = len(slots)

    def answer(self) -> np.ndarray:
        """Return the actions asked for, int32 ``(k,)``; errors as for :meth:`reply`."""
        return self.reply()["action"]

    def reply(self) -> np.ndarray:
        """Return all that was answered, ``(k,)`` of `serve.answer_type`.

        Raises:
            UserError: the agent refused its input, hangs or died.
        """
        self._expect(serve.ACT, ANSWER_PATIENCE_S)
        return np.frombuffer(self._read(self._replies.itemsize * self._asked, ANSWER_PATIENCE_S), self._replies)

    def close(self) -> None:
        """End it."""
        for pipe in (self._requests, self._answers):
            # Its last words may find nobody to hear them.
            try:
                pipe.close()
            except OSError:
                continue
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _send(self, data: bytes) -> None:
        try:
            self._requests.write(data)
            self._requests.flush()
        except OSError:
            # What it said before it went is a better message than the broken pipe.
            self._expect(b"", ANSWER_PATIENCE_S)

    def _expect(self, kind: bytes, patience_s: float) -> None:
        found = self._read(1, patience_s)
        if found == serve.ERROR:
            (length,) = serve.LENGTH.unpack(self._read(serve.LENGTH.size, patience_s))
            raise UserError(self._read(length, patience_s).decode(errors="replace"))
        if found != kind:
            raise UserError(f"{self.profile.label} answered {found!r}, expected {kind!r}: end it and start again")

    def _read(self, size: int, patience_s: float) -> bytes:
        """Return exactly ``size`` bytes of its answer."""
        data, until = b"", time.monotonic() + patience_s
        descriptor = self._answers.fileno()
        while len(data) < size:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise UserError(f"{self.profile.label} gave no answer within {patience_s:.0f} s: its process hangs")
            piece = os.read(descriptor, size - len(data))
            if not piece:
                raise UserError(self._death())
            data += piece
        return data

    def _death(self) -> str:
        status = self._process.wait()
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"the process of {self.profile.label} died ({how})" + (f": {lines[-1]}" if lines else "")
