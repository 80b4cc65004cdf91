"""The weights of a C program as a file that it loads."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np

from kd_marl.deploy import talking
from kd_marl.deploy.onnx_graph import step_constants
from kd_marl.deploy.program import AgentC
from kd_marl.deploy.weights import largest_feature, sizes
from kd_onboard.tensors import weights_digest

# Bytes before the matrices and behind them.
_HEAD, _CRC = 48, 4


def matrices(program: AgentC) -> dict[str, np.ndarray]:
    """Return the matrices and biases of a program with float32 weights, in their order."""
    found, messages = step_constants(program.weights), program.messages
    if messages is not None and messages.hears and messages.number_bits == 1:
        found["hear_weight"] = talking.paired(found["hear_weight"], messages.bits)
    return found


def weights_file(program: AgentC) -> bytes:
    """Return the weights of a program as a file for its ``PREFIX_load``.

    All of it is little-endian: "KDW" and the version 1; inputs, width and actions; the contract; the largest feature;
    16 bytes of the sha256 of the weights; 0 for float32; the bytes of the file; the matrices; the CRC-32 of all before.
    """
    body = b"".join(np.ascontiguousarray(matrix, "<f4").tobytes() for matrix in matrices(program).values())
    largest = int(largest_feature(program.weights).view(np.uint32))
    head = b"KDW\x01" + struct.pack("<5I", *sizes(program.weights), program.contract, largest)
    head += bytes.fromhex(weights_digest(program.weights))[:16] + struct.pack("<2I", 0, _HEAD + len(body) + _CRC)
    return head + body + struct.pack("<I", zlib.crc32(head + body))


def definitions(found: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return what a template needs to find these matrices in a file that was loaded, and the bytes of that file."""
    lines, place = [], 0
    for key, matrix in found.items():
        lines.append(f"#define @PREFIX@_{key} (@UPPER@_NUMBERS + {place})")
        place += matrix.size
    return {"LOADED": "\n".join(lines), "WEIGHTS_BYTES": str(_HEAD + 4 * place + _CRC)}
