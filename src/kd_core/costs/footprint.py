"""Bytes that an agent's C program takes on a board, by formula: what a width costs is known before it is trained.

A test holds the formulas to what gcc makes of the sources at each level: never more, and not a tenth less.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOAT_BYTES = 4
# How the program is compiled: -O2 is the documented form, -Os is smaller and slower.
LEVELS = ("O2", "Os")
# The code itself, unwinding tables included. At -O2 it grows with the unrolled products: so many rows of a product are
# added at a time, then what is left in fours and one by one. Each of those lines takes at most so many bytes.
PRODUCT_ROWS = (16, 4, 1)
_CODE_BYTES = {"O2": 1024, "Os": 1856}
_LINE_BYTES = {"O2": 76, "Os": 0}
# Vectors of the width that live on the stack during a step: aligned features, two gates, past and candidate; at -Os one
# unit follows the other, and what is left are the aligned features and the next state.
_VECTORS = {"O2": 5, "Os": 2}
# Saved registers and spilled numbers of the nested calls.
_FRAMES_BYTES = {"O2": 1088, "Os": 192}
# Beside the recurrent state: whether it was initialised, and the last action.
_MARKS_BYTES = 8


@dataclass(frozen=True)
class Footprint:
    """Bytes of one agent.

    Attributes:
        weights: float32 parameters.
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


def parameter_count(inputs: int, width: int, n_actions: int) -> int:
    """Count the parameters of an aligner, a GRU and a head."""
    return inputs * width + width + 6 * width * width + 6 * width + n_actions * width + n_actions


def code_bytes(inputs: int, width: int, level: str) -> int:
    """Compute the bytes of the program without its weights."""
    # The aligner has a row for each input, the other five products one for each unit.
    return _CODE_BYTES[level] + _LINE_BYTES[level] * (_lines(inputs) + 5 * _lines(width))


def _lines(rows: int) -> int:
    """Count the lines that a product of so many rows is unrolled to."""
    found = 0
    for step in PRODUCT_ROWS:
        if rows >= step:
            found += step
        rows %= step
    return found


def footprint(inputs: int, width: int, n_actions: int, level: str = "O2") -> Footprint:
    """Compute the bytes that the C program of a network of these sizes takes, compiled at one of `LEVELS`."""
    weights = FLOAT_BYTES * parameter_count(inputs, width, n_actions)
    state = FLOAT_BYTES * width + _MARKS_BYTES
    logits = n_actions if level == "O2" else 0
    stack = FLOAT_BYTES * (_VECTORS[level] * width + logits) + _FRAMES_BYTES[level]
    # The two biases of a gate are one in the program.
    flash = weights - FLOAT_BYTES * 2 * width + code_bytes(inputs, width, level)
    return Footprint(weights, state, stack, flash, state + stack)
