"""Hypothesis strategies that damage files: their bytes, and the JSON in them."""

from __future__ import annotations

import copy
import json
import struct

from hypothesis import strategies as st

# What a field is replaced by: every JSON type, and the edges of each.
ODD_VALUES = st.one_of(
    st.sampled_from(
        [None, True, False, 0, -1, 1, 2, 1e308, -0.5, 10**30, -(10**30), "", "x", "../x", "/etc/passwd", "a/../../b"]
    ),
    st.sampled_from(
        ["\x00", "\ud800", "ü", "F32", "I64", "0" * 64, [], [[]], [0, 0], [-8, 0], {}, {"": {}}, [None] * 3]
    ),
    st.integers(-(2**70), 2**70),
    st.text(max_size=8),
    st.lists(st.integers(-5, 2**40), max_size=4),
)


def places(value, path=()):
    """The path of every value inside a JSON value."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


@st.composite
def damaged_json(draw, value):
    """A copy of a JSON object with one or two fields replaced, removed, renamed or doubled."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from([path for path in places(value) if path] or [()]))
        if not path:
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        last = path[-1]
        kind = draw(st.sampled_from(["replace", "replace", "replace", "nudge", "remove", "rename", "double"]))
        if kind == "remove":
            del parent[last]
        elif kind == "rename" and isinstance(parent, dict):
            parent[draw(st.text(max_size=6))] = parent.pop(last)
        elif kind == "double" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[last]))
        elif kind == "nudge" and type(parent[last]) is int:
            parent[last] += draw(st.sampled_from([-1, 1, 4, 2**31, 2**63]))
        else:
            parent[last] = copy.deepcopy(draw(ODD_VALUES))
    return value


def as_text(value) -> bytes:
    """JSON as our writers lay it out; lone surrogates stay escaped."""
    return (json.dumps(value, indent=2) + "\n").encode()


@st.composite
def damaged_bytes(draw, data):
    """Bytes with a bit flipped, a piece removed, doubled, overwritten or inserted, or cut off; perhaps nothing left."""
    at = draw(st.integers(0, max(0, len(data) - 1)))
    # The beginning of a file holds what says how the rest is read.
    at = draw(st.sampled_from([at, at % 512, at % 16]))
    size = draw(st.integers(1, 64))
    kind = draw(st.sampled_from(["flip", "flip", "cut", "remove", "double", "overwrite", "insert", "append", "empty"]))
    if kind == "flip" and data:
        return data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
    if kind == "cut":
        return data[:at]
    if kind == "remove":
        return data[:at] + data[at + size :]
    if kind == "double":
        return data[: at + size] + data[at:]
    if kind == "overwrite":
        return data[:at] + draw(st.binary(min_size=1, max_size=16)) + data[at + size :]
    if kind == "insert":
        return data[:at] + draw(st.binary(min_size=1, max_size=16)) + data[at:]
    if kind == "append":
        return data + draw(st.binary(min_size=1, max_size=16))
    return b""


@st.composite
def damaged_safetensors(draw, data):
    """A safetensors file whose bytes or whose header, with a length that fits, are damaged."""
    if draw(st.booleans()):
        return draw(damaged_bytes(data))
    length = struct.unpack("<Q", data[:8])[0]
    header = draw(damaged_json(json.loads(data[8 : 8 + length])))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]
