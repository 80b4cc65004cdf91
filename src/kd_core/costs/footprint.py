"""Bytes that an agent's C program takes on a board, by formula: what a width costs is known before it is trained.

So are the instructions of its int8 form, which are the same on all boards of a core.

Tests hold the formulas to what compilers make of the sources at each level, and to the stack that emulated cores paint:
never more, and on a core that is named here not much less.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOAT_BYTES = 4
# How the program is compiled: -O2 is the documented form, -Os is smaller and slower.
LEVELS = ("O2", "Os")
# What the program's weights are.
WEIGHTS = ("float32", "int8")
# At -O2 the products are unrolled: so many rows are added at a time, then what is left in fours and one by one.
PRODUCT_ROWS = (16, 4, 1)
# Vectors of the width that live on the stack during a step: aligned features, two gates, past and candidate; at -Os one
# unit follows the other, and what is left are the aligned features and the next state.
_VECTORS = {"O2": 5, "Os": 2}


@dataclass(frozen=True)
class _Compiled:
    """Bytes that a compiler makes of the program for one core at one level.

    Attributes:
        code: without the lines of the unrolled products, unwinding tables included.
        line: of a product that is added in one go.
        line_in_loop: of one that is a loop, since it has at least two times as many rows.
        frames: saved registers and spilled numbers of the nested calls, and of the compiler's float arithmetic.
        frames_wide: the same, in addition, from a width of two times `PRODUCT_ROWS[0]` on, whose products are loops.
        frames_straight: fewer, of a silent agent up to a width of `PRODUCT_ROWS[0]` and below two times as many inputs:
            no product is a loop of so many rows.
    """

    code: int
    line: int
    line_in_loop: int
    frames: int
    frames_wide: int
    frames_straight: int


# Of any core and compiler, processors of PCs with their vectors included.
_ANY = {"O2": _Compiled(2048, 76, 76, 1088, 0, 0), "Os": _Compiled(1856, 0, 0, 256, 0, 0)}
# Of gcc 12, before a linker shortens calls: what is linked takes less. Stacks are those of `benchmarks/boards.py`.
_CORES: dict[str, dict[str, _Compiled]] = {
    "cortex-m4f": {"O2": _Compiled(1296, 20, 36, 228, 136, 88), "Os": _Compiled(1008, 0, 0, 96, 0, 0)},
    "cortex-m7": {"O2": _Compiled(1296, 20, 36, 228, 136, 88), "Os": _Compiled(1008, 0, 0, 96, 0, 0)},
    "cortex-m33": {"O2": _Compiled(1096, 22, 46, 268, 184, 72), "Os": _Compiled(1008, 0, 0, 96, 0, 0)},
    "cortex-m0plus": {"O2": _Compiled(1328, 29, 53, 332, 120, 64), "Os": _Compiled(1152, 0, 0, 184, 0, 0)},
    "rv32imc": {"O2": _Compiled(2016, 41, 72, 372, 76, 112), "Os": _Compiled(1776, 0, 0, 228, 0, 0)},
    "rv32imafc": {"O2": _Compiled(1424, 25, 44, 240, 144, 64), "Os": _Compiled(1328, 0, 0, 132, 0, 0)},
}
CORES = tuple(_CORES)


@dataclass(frozen=True)
class _CompiledInt8:
    """What a compiler makes of the int8 form for one core at one level.

    Attributes:
        code: bytes, unwinding tables included.
        frames: saved registers of the nested calls.
        instructions: of a feature, of a unit beside its rows, of a row beside its weights, and of four weights.
    """

    code: int
    frames: int
    instructions: tuple[float, float, float, float]


# Of any core and compiler, as above. Instructions are those of a Cortex-M0+, which needs most.
_ANY_INT8 = {
    "O2": _CompiledInt8(3072, 352, (80.0, 312.4, 13.6, 30.5)),
    "Os": _CompiledInt8(1664, 256, (83.4, 360.9, 5.4, 31.6)),
}
_M_INT8 = {
    "O2": _CompiledInt8(1168, 148, (55.0, 71.3, 30.7, 12.6)),
    "Os": _CompiledInt8(960, 116, (53.4, 84.1, 30.9, 12.8)),
}
_RV_INT8 = {
    "O2": _CompiledInt8(1376, 164, (64.7, 275.3, 18.7, 21.3)),
    "Os": _CompiledInt8(1232, 164, (59.0, 307.2, 21.2, 21.8)),
}
_CORES_INT8: dict[str, dict[str, _CompiledInt8]] = {
    **dict.fromkeys(("cortex-m4f", "cortex-m33"), _M_INT8),
    "cortex-m7": {**_M_INT8, "O2": _CompiledInt8(1168, 148, (57.8, 82.0, 29.4, 11.4))},
    "cortex-m0plus": {
        "O2": _CompiledInt8(1152, 140, (80.0, 312.4, 13.6, 30.5)),
        "Os": _CompiledInt8(944, 140, (83.4, 360.9, 5.4, 31.6)),
    },
    **dict.fromkeys(("rv32imc", "rv32imafc"), _RV_INT8),
}
# Of the int8 form: rows of weights are filled up to a multiple of four; bytes of a number of its state, of a row's bias
# and scale, and of its table of tanh.
_LANES, _STATE_BYTES, _ROW_BYTES, _TABLE_BYTES = 4, 2, 6, 194
# Beside the recurrent state: whether it was initialised, and the last action; of an agent that talks, its turn too.
_MARKS_BYTES, _TURN_BYTES = 8, 4
# Of any core: the code of an agent that talks, without the product of its voice, and the frames of that code.
_TALKING = {"O2": (1024, 288), "Os": (736, 64)}


@dataclass(frozen=True)
class Footprint:
    """Bytes of one agent.

    Attributes:
        weights: parameters; of the int8 form with the scales and the table.
        state: what it remembers between steps.
        stack: of `act` and all that it calls; the caller's buffers are the caller's.
        flash: parameters and code.
        ram: state and stack.
    """

    weights: int
    state: int
    stack: int
    flash: int
    ram: int


def parameter_count(inputs: int, width: int, n_actions: int, inbox: int = 0, outbox: int = 0) -> int:
    """Count the parameters of an aligner, a GRU and a head, and of hearing and speaking so many bits."""
    silent = inputs * width + width + 6 * width * width + 6 * width + n_actions * width + n_actions
    return silent + (inbox + outbox) * width


def code_bytes(inputs: int, width: int, level: str, core: str | None = None, inbox: int = 0, outbox: int = 0) -> int:
    """Compute the bytes of the program without its weights."""
    made = _compiled(level, core)
    code = made.code + (_TALKING[level][0] if inbox or outbox else 0)
    if level == "Os":
        return code
    # The aligner has a row for each input, the other five products one for each unit, and so has the voice.
    (once, loops), (unit_once, unit_loops) = _lines(inputs), _lines(width)
    products = 6 if outbox else 5
    return code + made.line * (once + products * unit_once) + made.line_in_loop * (loops + products * unit_loops)


def _compiled(level: str, core: str | None) -> _Compiled:
    return (_ANY if core is None else _CORES[core])[level]


def _lines(rows: int) -> tuple[int, int]:
    """Count the lines that a product of so many rows is unrolled to: those that run once, and those in loops."""
    once = loops = 0
    for step in PRODUCT_ROWS:
        if rows >= 2 * step:
            loops += step
        elif rows >= step:
            once += step
        rows %= step
    return once, loops


def footprint(
    inputs: int,
    width: int,
    n_actions: int,
    level: str = "O2",
    core: str | None = None,
    weights: str = "float32",
    inbox: int = 0,
    outbox: int = 0,
) -> Footprint:
    """Compute the bytes that the C program of a network of these sizes takes.

    Args:
        inputs: features.
        width: hidden width.
        n_actions: number of actions.
        level: one of `LEVELS`.
        core: one of `CORES`; None is any, and more than each of them takes.
        weights: one of `WEIGHTS`.
        inbox: numbers that it hears a step; 0: none.
        outbox: numbers that it says; 0: none.
    """
    if weights == "int8":
        assert not inbox and not outbox, "int8 is for silent students"
        return _footprint_int8(inputs, width, n_actions, _int8(level, core))
    made = _compiled(level, core)
    parameters = FLOAT_BYTES * parameter_count(inputs, width, n_actions, inbox, outbox)
    state = FLOAT_BYTES * width + _MARKS_BYTES
    # Its voice lives on the stack as its logits do.
    logits = n_actions + outbox if level == "O2" else 0
    stack = FLOAT_BYTES * (_VECTORS[level] * width + logits) + made.frames
    if inbox or outbox:
        state += _TURN_BYTES
        stack += _TALKING[level][1]
    if width >= 2 * PRODUCT_ROWS[0]:
        stack += made.frames_wide
    elif width <= PRODUCT_ROWS[0] and inputs < 2 * PRODUCT_ROWS[0] and not (inbox or outbox):
        stack -= made.frames_straight
    # The two biases of a gate are one in the program.
    flash = parameters - FLOAT_BYTES * 2 * width + code_bytes(inputs, width, level, core, inbox, outbox)
    return Footprint(parameters, state, stack, flash, state + stack)


def instructions_int8(inputs: int, width: int, n_actions: int, level: str = "O2", core: str | None = None) -> float:
    """Compute the instructions of a decision of the int8 form, two to fifteen per cent more than are counted.

    Args:
        inputs: features.
        width: hidden width.
        n_actions: number of actions.
        level: one of `LEVELS`.
        core: one of `CORES`; None is the one that needs most.
    """
    counts = (inputs, width, 6 * width + n_actions, _weights_int8(inputs, width, n_actions) / _LANES)
    return sum(count * each for count, each in zip(counts, _int8(level, core).instructions, strict=True))


def _int8(level: str, core: str | None) -> _CompiledInt8:
    return (_ANY_INT8 if core is None else _CORES_INT8[core])[level]


def _padded(size: int) -> int:
    return -(-size // _LANES) * _LANES


def _weights_int8(inputs: int, width: int, n_actions: int) -> int:
    """Count the int8 weights, with the zeros that fill up their rows."""
    return _padded(width) * (_padded(inputs) + 6 * width + n_actions)


def _footprint_int8(inputs: int, width: int, n_actions: int, made: _CompiledInt8) -> Footprint:
    rows = 6 * width + n_actions
    # The aligner's rows have a bias and no scale, and each input has an exponent of one byte.
    numbers = 4 * _padded(width) + inputs + _ROW_BYTES * rows + _TABLE_BYTES
    weights = _weights_int8(inputs, width, n_actions) + numbers
    state = _STATE_BYTES * _padded(width) + _MARKS_BYTES
    # Features and aligned features have room for the longer of both.
    stack = 2 * _STATE_BYTES * max(_padded(inputs), _padded(width)) + _STATE_BYTES * width + made.frames
    return Footprint(weights, state, stack, weights + made.code, state + stack)
