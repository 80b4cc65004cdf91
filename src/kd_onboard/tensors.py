"""Reader of safetensors files: 8 bytes with the length of a JSON header, the header, then the numbers.

It accepts only the contents of a bundle: float32, little-endian, one tensor after the other without gap or overlap.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping

import numpy as np

from kd_onboard.errors import BundleError
from kd_onboard.fields import MOST, Fields, parse_object

_LENGTH_BYTES = 8
_LARGEST_HEADER = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_.]{1,200}")


def read_tensors(data: bytes, where: str) -> dict[str, np.ndarray]:
    """Read the tensors of a safetensors file.

    Args:
        data: the whole file.
        where: its name in messages.

    Returns:
        Name to read-only float32 array.

    Raises:
        BundleError: the bytes are not such a file, or a number in it is not finite.
    """
    if len(data) < _LENGTH_BYTES:
        raise BundleError(f"{where} is damaged: {len(data)} bytes are too few for a safetensors file")
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + length
    if length > _LARGEST_HEADER or start > len(data):
        raise BundleError(
            f"{where} is damaged: a header of {length} bytes does not fit (at most {_LARGEST_HEADER}, and the file has "
            f"{len(data)} bytes)"
        )
    header = parse_object(data[_LENGTH_BYTES:start], f"{where}'s header")
    header.pop("__metadata__", None)
    spans = []
    for name in header:
        if not _NAME.fullmatch(name):
            raise BundleError(f"{where} is damaged: {ascii(name)[:60]} is no tensor's name")
        shape, begin, end = _entry(Fields(header, where).object(name))
        spans.append((begin, end, name, shape))
    tensors, reached = {}, 0
    for begin, end, name, shape in sorted(spans):
        if begin != reached:
            raise BundleError(f"{where} is damaged: tensor '{name}' begins at byte {begin}, expected {reached}")
        reached = end
        if start + end > len(data):
            raise BundleError(f"{where} is damaged: tensor '{name}' ends beyond the file")
        values = np.frombuffer(data, "<f4", count=(end - begin) // 4, offset=start + begin).astype(np.float32)
        if not np.isfinite(values).all():
            raise BundleError(f"{where} is damaged: tensor '{name}' has values that are not finite")
        values.setflags(write=False)
        tensors[name] = values.reshape(shape)
    if start + reached != len(data):
        raise BundleError(f"{where} is damaged: {len(data) - start - reached} bytes follow the last tensor")
    return tensors


def weights_digest(weights: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 of all values of a network in hexadecimal: equal for equal networks only."""
    whole = hashlib.sha256()
    for name in sorted(weights):
        whole.update(f"{name}{weights[name].shape}".encode())
        whole.update(np.ascontiguousarray(weights[name]).tobytes())
    return whole.hexdigest()


def _entry(entry: Fields) -> tuple[tuple[int, ...], int, int]:
    """Read shape and first and last byte of one tensor."""
    entry.choice("dtype", ("F32",))
    shape = entry.items("shape", most=4)
    offsets = entry.items("data_offsets", most=2)
    if not all(type(size) is int and 1 <= size <= MOST for size in shape):
        entry.fail("shape", "sizes of at least 1")
    if len(offsets) != 2 or not all(type(offset) is int and 0 <= offset <= MOST for offset in offsets):
        entry.fail("data_offsets", "two positions of at least 0")
    begin, end = offsets
    if end - begin != 4 * math.prod(shape):
        raise BundleError(f"{entry.where}: bytes {begin} to {end} do not hold float32 of shape {shape}")
    return tuple(shape), begin, end
