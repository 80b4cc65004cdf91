"""Messages of one agent's process to others, as UDP datagrams on this machine's loopback.

A datagram has a head, ``token:8s speaker:u16 count:u16``, and ``count`` records, ``slot:u16 episode:u32 step:u32`` and
the bytes of one message; all numbers are little-endian. The token belongs to one team that plays, so that strangers'
datagrams are told apart. Nothing is ever waited for: what has not arrived when its step comes is lost.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Sequence

import numpy as np

from kd_onboard.profile import AgentMessages

TOKEN_BYTES = 8
_HEAD = struct.Struct(f"<{TOKEN_BYTES}sHH")
_PLACE = struct.Struct("<HII")
# Bytes of a datagram, and of what waits to be read; datagrams that are read at once, so that a flood stalls nothing.
_LARGEST, _WAITING, _MOST = 8192, 1 << 20, 4096
_HOST = "127.0.0.1"


class Radio:
    """The radio of one agent that plays several episodes (slots) beside each other.

    Attributes:
        port: where it listens.
        refused: datagrams and records that were malformed, of strangers, or too late.
    """

    def __init__(
        self, agent: int, messages: AgentMessages, slots: int, loss: float = 0.0, delay: int = 0, seed: int = 0
    ) -> None:
        """Open it.

        Args:
            agent: index of the agent.
            messages: what it tells and hears.
            slots: episodes beside each other.
            loss: probability that a message which arrived is lost all the same, for each link and step.
            delay: steps by which messages are heard later than in training.
            seed: of the losses.
        """
        self._agent, self._messages, self._loss, self._seed = agent, messages, loss, seed
        self._late = messages.latency + delay
        self._record = _PLACE.size + messages.payload_bytes
        self._episode, self._step = [0] * slots, [0] * slots
        self._arrived: list[dict[tuple[int, int], bytes]] = [{} for _ in range(slots)]
        self._draws = [np.random.default_rng() for _ in range(slots)]
        self._said: list[bytes] = []
        self._token, self._hearers = b"", list[int]()
        self.refused = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WAITING)
        self._socket.bind((_HOST, 0))
        self.port: int = self._socket.getsockname()[1]

    def join(self, token: bytes, hearers: Sequence[int]) -> None:
        """Join a team: its token, and the ports of those that hear this agent."""
        self._token, self._hearers = token, list(hearers)

    def begin(self, slot: int) -> None:
        """Begin an episode."""
        self._episode[slot] += 1
        self._step[slot] = 0
        self._arrived[slot].clear()
        self._draws[slot] = np.random.default_rng([self._seed, self._agent, slot, self._episode[slot]])

    def receive(self) -> None:
        """Read what has arrived."""
        for _ in range(_MOST):
            try:
                self._take(self._socket.recv(_LARGEST + 1))
            except BlockingIOError:
                return
            # Of an earlier datagram that nobody took.
            except ConnectionError:
                continue

    def hear(self, slot: int) -> list[bytes | None]:
        """Return the messages that are heard at the slot's step, in the order of the inbox; None for a missing one."""
        due, arrived = self._step[slot] - self._late, self._arrived[slot]
        heard = [arrived.pop((speaker, due), None) for speaker in self._messages.hears]
        if self._loss:
            lost = self._draws[slot].random(len(heard)) < self._loss
            heard = [None if gone else message for message, gone in zip(heard, lost, strict=True)]
        return heard

    def say(self, slot: int, message: bytes | None) -> None:
        """End the slot's step with a message; None: the agent is silent. :meth:`send` sends it."""
        if message is not None:
            self._said.append(_PLACE.pack(slot, self._episode[slot], self._step[slot]) + message)
        self._step[slot] += 1

    def send(self) -> None:
        """Send what was said to every hearer."""
        most = (_LARGEST - _HEAD.size) // self._record
        for start in range(0, len(self._said), most):
            part = self._said[start : start + most]
            datagram = _HEAD.pack(self._token, self._agent, len(part)) + b"".join(part)
            for port in self._hearers:
                # A message that cannot be sent is lost, as on any radio.
                with contextlib.suppress(OSError):
                    self._socket.sendto(datagram, (_HOST, port))
        self._said.clear()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def _take(self, datagram: bytes) -> None:
        """Keep what a datagram holds for the steps to come."""
        if len(datagram) < _HEAD.size:
            self.refused += 1
            return
        token, speaker, count = _HEAD.unpack_from(datagram)
        sound = token == self._token and speaker in self._messages.hears
        if not sound or len(datagram) != _HEAD.size + count * self._record:
            self.refused += 1
            return
        for start in range(_HEAD.size, len(datagram), self._record):
            slot, episode, step = _PLACE.unpack_from(datagram, start)
            # Beyond what is due, or ahead of its own step: no speaker of this team is so far.
            if (
                slot >= len(self._step)
                or episode != self._episode[slot]
                or not self._step[slot] - self._late <= step <= self._step[slot]
            ):
                self.refused += 1
                continue
            self._arrived[slot][speaker, step] = datagram[start + _PLACE.size : start + self._record]
