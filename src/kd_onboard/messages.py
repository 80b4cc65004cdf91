"""Messages as a backend has them: rows of bytes, each a mark and the packed bits of one message.

The mark is 1 where there is a message and 0 where there is none: it was lost, or its speaker was silent. Bit k of a
message is bit ``k % 8`` of byte ``k // 8`` behind the mark, 1 for m = 1 and 0 for m = -1.
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


def signs(inbox: np.ndarray, bits: int) -> np.ndarray:
    """Convert an inbox to 1, -1, and 0 where a message is missing: float32 ``(speakers * bits,)``."""
    sent = np.unpackbits(inbox[:, 1:], axis=1, count=bits, bitorder="little").astype(np.float32)
    return ((2.0 * sent - 1.0) * (inbox[:, :1] != 0)).reshape(-1).astype(np.float32, copy=False)


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
