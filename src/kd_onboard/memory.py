"""What an agent remembers as bytes, in the form of the C program: saved on one machine, restored on another.

The bytes are "KDM" and the version 1; the first 16 bytes of the weights' sha256; the last action, or -1; the recurrent
state; of an agent that talks, the steps since its turn to speak; and the CRC-32 of all before. Numbers are
little-endian; those of the state are float32, or, of a program with int8 weights, whole numbers of 32 bits.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from kd_onboard.errors import SavedError

_MAGIC, _DIGEST_BYTES = b"KDM\x01", 16
_LAST = struct.Struct("<i")
_TURN = struct.Struct("<I")
_CRC = struct.Struct("<I")
_HEAD_BYTES = len(_MAGIC) + _DIGEST_BYTES + _LAST.size
# A recurrent state lies between -1 and 1, up to rounding.
_LARGEST, _LARGEST_FIXED = np.float32(1.0078125), 2**15 - 1


def pack(state: np.ndarray, last: int | None, digest: str, turn: int | None = None) -> bytes:
    """Return a memory's bytes.

    Args:
        state: float32 or int16 ``(width,)``.
        last: the last action, or None.
        digest: of the agent's weights, as :func:`kd_onboard.tensors.weights_digest` or, in int8,
            :func:`kd_onboard.int8.program_digest` gives it.
        turn: of an agent that talks.
    """
    body = _MAGIC + bytes.fromhex(digest)[:_DIGEST_BYTES] + _LAST.pack(-1 if last is None else last)
    body += state.astype("<f4" if state.dtype == np.float32 else "<i4").tobytes()
    body += b"" if turn is None else _TURN.pack(turn)
    return body + _CRC.pack(zlib.crc32(body))


def unpack(
    data: bytes, like: np.ndarray, n_actions: int, digest: str, label: str, turns: int | None = None
) -> tuple[np.ndarray, int | None, int]:
    """Return the state, the last action and the turn to speak of a memory's bytes.

    Args:
        data: the bytes.
        like: a state of the agent, float32 or int16 ``(width,)``.
        n_actions: of the agent.
        digest: of the agent's weights.
        label: the agent's name in messages.
        turns: of an agent that talks at each so many-th step; None: it is silent, and its turn is 0.

    Raises:
        SavedError: they are no such bytes, or of an agent with other weights.
    """
    if len(data) < _HEAD_BYTES + _CRC.size or data[: len(_MAGIC)] != _MAGIC:
        raise SavedError(f"{label}: the {len(data)} bytes are no saved memory: give what save() returned")
    if _CRC.unpack(data[-_CRC.size :])[0] != zlib.crc32(data[: -_CRC.size]):
        raise SavedError(f"{label}: the saved memory is damaged: save it again, or begin with reset()")
    if data[len(_MAGIC) : len(_MAGIC) + _DIGEST_BYTES] != bytes.fromhex(digest)[:_DIGEST_BYTES]:
        raise SavedError(f"{label}: the memory was saved by an agent with other weights: begin with reset()")
    foreign = SavedError(f"{label}: the saved memory holds what no agent of this bundle has: begin with reset()")
    end = _HEAD_BYTES + 4 * like.size
    if len(data) != end + (0 if turns is None else _TURN.size) + _CRC.size:
        raise foreign
    exact = like.dtype == np.float32
    largest = _LARGEST if exact else _LARGEST_FIXED
    state = np.frombuffer(data, "<f4" if exact else "<i4", offset=_HEAD_BYTES, count=like.size)
    (last,) = _LAST.unpack_from(data, _HEAD_BYTES - _LAST.size)
    turn = 0 if turns is None else _TURN.unpack_from(data, end)[0]
    sound = -1 <= last < n_actions and (turns is None or turn < turns)
    if not sound or not ((state >= -largest) & (state <= largest)).all():
        raise foreign
    return state.astype(like.dtype), None if last < 0 else last, turn
