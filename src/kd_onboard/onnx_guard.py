"""A look at an ONNX file before ONNX Runtime opens it: the runtime computes constants as it loads, however large.

Only what the graph is made of is read: operators and the sizes of constants. Protocol buffers are fields of a number, a
wire type and a value; a message inside a message is a field of bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from kd_onboard.errors import BundleError

# How often each operator may occur in a student's graph, in float32 and in int8.
_MOST = {
    **dict.fromkeys(("Add", "Gemm", "MatMul", "MatMulInteger", "Mul", "Cast"), 24),
    **dict.fromkeys(("DynamicQuantizeLinear", "DequantizeLinear", "QuantizeLinear"), 12),
    **dict.fromkeys(("Relu", "Sigmoid", "Tanh", "Sub", "Split", "Concat"), 4),
    **dict.fromkeys(("Where", "ArgMax"), 1),
}
# What an agent that talks has in addition.
_MORE = {"GreaterOrEqual": 1, "Where": 1}
# What one that says numbers of several bits has: it counts up to their level.
_NUMBERS = {"Unsqueeze": 1, "GreaterOrEqual": 1, "ReduceSum": 1}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Field numbers of onnx.proto.
_GRAPH, _FUNCTIONS = 7, 25
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15
_OP_TYPE, _ATTRIBUTE, _DOMAIN = 4, 5, 7
_SUBGRAPH, _SUBGRAPHS, _TENSOR, _TENSORS = 6, 11, 5, 10
_DIMS, _EXTERNAL, _LOCATION = 1, 13, 14


def check_model(data: bytes, agent: Any, where: str) -> None:
    """Refuse a model with operators or constants that a student's network does not have.

    Args:
        data: the bytes of the ONNX file.
        agent: the profile of the model's agent, whose sizes bound those of constants.
        where: its name in messages.

    Raises:
        BundleError: the bytes are no model, or the model holds something else than such a network.
    """
    # The gates of a GRU are the widest; the rest is one unit more, for the biases.
    largest = max(3 * agent.width, 2 * agent.width + 1, agent.inputs, agent.n_actions, *agent.exchanged) + 1
    more = _MORE if any(agent.exchanged[:2]) else {}
    if agent.exchanged[2] > 1:
        largest, more = max(largest, 2 ** agent.exchanged[2]), _NUMBERS
    operators: Counter[str] = Counter()
    try:
        for field, graph in _fields(data):
            if field == _FUNCTIONS:
                raise BundleError(f"{where} defines functions of its own: export it again")
            if field == _GRAPH:
                _check_graph(graph, operators, largest, where)
    except BundleError:
        raise
    except (ValueError, IndexError, TypeError):
        raise BundleError(f"{where} is no ONNX model: export it again") from None
    for name, count in operators.items():
        if count > (most := _MOST.get(name, 0) + more.get(name, 0)):
            raise BundleError(
                f"{where} has {count} operators {name[:40]!a}, a student's network at most {most}: export it again"
            )


def _check_graph(graph: bytes, operators: Counter[str], largest: int, where: str) -> None:
    for field, part in _fields(graph):
        if field == _NODE:
            operators[_operator(part, where)] += 1
        elif field == _INITIALIZER:
            _check_tensor(part, largest, where)
        elif field == _SPARSE:
            raise BundleError(f"{where} has sparse constants: export it again")


def _operator(node: bytes, where: str) -> str:
    """Return a node's operator, with its domain if that is another than ONNX's."""
    name, domain = "", ""
    for field, part in _fields(node):
        if field == _OP_TYPE:
            name = part.decode()
        elif field == _DOMAIN:
            domain = part.decode()
        elif field == _ATTRIBUTE:
            inside = {number for number, _ in _fields(part)}
            if inside & {_SUBGRAPH, _SUBGRAPHS, _TENSOR, _TENSORS}:
                raise BundleError(f"{where} has a graph or a tensor inside an operator: export it again")
    return f"{domain}.{name}" if domain else name


def _check_tensor(tensor: bytes, largest: int, where: str) -> None:
    dims: list[int] = []
    for field, part in _fields(tensor):
        if field == _DIMS:
            dims += [part] if isinstance(part, int) else _varints(part)
        # Location 0 is the file itself; ONNX Runtime writes it beside weights that it leaves as they are.
        elif field == _EXTERNAL or (field == _LOCATION and part != 0):
            raise BundleError(f"{where} has constants in another file: export it again")
    if len(dims) > 2 or any(size > largest for size in dims):
        raise BundleError(f"{where} has a constant of shape {str(dims)[:40]}, larger than its network: export it again")


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field.

    Raises:
        ValueError, IndexError: the bytes are no message.
    """
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == _VARINT:
            value: Any
            value, place = _varint(message, place)
        elif kind in (_BYTES, _FIXED64, _FIXED32):
            size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
            if size is None:
                size, place = _varint(message, place)
            if place + size > len(message):
                raise ValueError("a field ends beyond its message")
            value, place = message[place : place + size], place + size
        else:
            raise ValueError("a field of an unknown kind")
        yield key >> 3, value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number without an end")


def _varints(data: bytes) -> list[int]:
    found, place = [], 0
    while place < len(data):
        value, place = _varint(data, place)
        found.append(value)
    return found
