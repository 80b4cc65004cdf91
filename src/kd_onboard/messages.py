"""Messages as a backend has them: rows of bytes, each a mark and the packed bits of one message.

The mark is 1 where there is a message and 0 where there is none: it was lost, or its speaker was silent. Bit k of a
message is bit ``k % 8`` of byte ``k // 8`` behind the mark, 1 for m = 1 and 0 for m = -1. A number of b bits is told by
b bits that follow each other, its lowest first: together they stand for one of 2^b levels from -1 to 1.
"""

from __future__ import annotations

import numpy as np

from kd_onboard.profile import AgentMessages


def empty_inbox(messages: AgentMessages) -> np.ndarray:
    """Build an inbox in which no message is, uint8 ``(speakers, 1 + payload)``."""
    return np.zeros((len(messages.hears), 1 + messages.payload_bytes), np.uint8)


def empty_outbox(messages: AgentMessages) -> np.ndarray:
    """Build an outbox in which no message is, uint8 ``(1 + payload,)``; empty for an agent that nobody hears."""
    return np.zeros(1 + messages.payload_bytes if messages.heard_by else 0, np.uint8)


def numbers(inbox: np.ndarray, messages: AgentMessages) -> np.ndarray:
    """Convert an inbox to numbers from -1 to 1, 0 where a message is missing: float32 ``(speakers * numbers,)``."""
    bits = messages.number_bits
    told = np.unpackbits(inbox[:, 1:], axis=1, count=messages.bits, bitorder="little")
    levels = told.reshape(len(inbox), -1, bits) @ (1 << np.arange(bits))
    return (_values(levels, bits) * (inbox[:, :1] != 0)).reshape(-1)


def thresholds(bits: int) -> np.ndarray:
    """Compute where a number of b bits changes its level: float32 ``(2**b - 1,)``, ascending.

    The levels are even steps from -1 to 1, and tanh of what is said goes to the nearest; of one bit this is the sign.
    """
    steps = 2**bits - 1
    return np.arctanh((2.0 * np.arange(1, steps + 1) - steps - 1.0) / steps).astype(np.float32)


def spoken(voice: np.ndarray, bits: int) -> np.ndarray:
    """Compute the bits that tell numbers of b bits each: bool ``(numbers * b,)``, from what is said ``(numbers,)``."""
    return _bits((voice[:, None] >= thresholds(bits)).sum(1), bits)


def bits_of_numbers(values: np.ndarray, messages: AgentMessages) -> np.ndarray:
    """Compute the bits that tell numbers that are rounded already, ``(numbers,)`` from -1 to 1: bool ``(bits,)``."""
    steps = 2**messages.number_bits - 1
    return _bits(np.rint((values + 1.0) * (0.5 * steps)).astype(np.int64), messages.number_bits)


def _values(levels: np.ndarray, bits: int) -> np.ndarray:
    """Compute the numbers of levels, float32."""
    return np.float32(2.0 / (2**bits - 1)) * levels.astype(np.float32) - np.float32(1.0)


def _bits(levels: np.ndarray, bits: int) -> np.ndarray:
    """Compute the bits of levels, the lowest of each first."""
    return (levels[:, None] >> np.arange(bits) & 1).astype(bool).ravel()


class Turns:
    """Says when an agent speaks, and writes what it says.

    Attributes:
        turn: steps since its turn to speak.
    """

    def __init__(self, messages: AgentMessages, outbox: np.ndarray) -> None:
        """Begin an episode of an agent with these messages, whose backend has this outbox."""
        self._every, self._outbox = messages.every, outbox
        self.turn = 0

    def reset(self) -> None:
        """Begin an episode: it speaks at the first step."""
        self.turn = 0
        self._outbox.fill(0)

    def end(self, said: np.ndarray, available: np.ndarray) -> None:
        """End a step.

        Args:
            said: bool ``(bits,)``, what the agent would say.
            available: bool ``(actions,)``; an agent with one choice is silent.
        """
        self._outbox.fill(0)
        if self._outbox.size and not self.turn and np.count_nonzero(available) > 1:
            self._outbox[0] = 1
            self._outbox[1:] = np.packbits(said, bitorder="little")
        self.turn = (self.turn + 1) % self._every


class Talker:
    """What a backend of an agent that talks has beside its network.

    Attributes:
        inbox: what it hears, see `kd_onboard.backend.TalkingBackend`.
        outbox: what it says.
        turns: when it speaks.
    """

    def __init__(self, messages: AgentMessages) -> None:
        self.inbox, self.outbox = empty_inbox(messages), empty_outbox(messages)
        self.turns = Turns(messages, self.outbox)

    @property
    def turn(self) -> int:
        """Steps since its turn to speak."""
        return self.turns.turn

    @turn.setter
    def turn(self, turn: int) -> None:
        self.turns.turn = turn
