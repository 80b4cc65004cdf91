"""Bytes that an agent's C program takes on a board, by formula: what a width costs is known before it is trained.

A test holds the formulas to what gcc makes of the sources at -Os: never more, and not a tenth less.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOAT_BYTES = 4
# The code itself, whatever the sizes: 1.2 to 1.9 KB at -Os on x86-64, unwinding tables included.
CODE_BYTES = 2048
# Vectors of the width that live on the stack during a step: one per operator's output, gates and pairs twice.
_TEMPORARIES = 17
# Saved registers and alignment of the three nested calls.
_FRAMES_BYTES = 256


@dataclass(frozen=True)
class Footprint:
    """Bytes of one agent.

    Attributes:
        weights: float32 parameters.
        state: what it remembers between steps.
        flash: parameters and code.
        ram: state, and the stack of `act` and all that it calls; the caller's buffers are the caller's.
    """

    weights: int
    state: int
    flash: int
    ram: int


def parameter_count(inputs: int, width: int, n_actions: int) -> int:
    """Count the parameters of an aligner, a GRU and a head."""
    return inputs * width + width + 6 * width * width + 6 * width + n_actions * width + n_actions


def footprint(inputs: int, width: int, n_actions: int) -> Footprint:
    """Compute the bytes that the C program of a network of these sizes takes."""
    weights = FLOAT_BYTES * parameter_count(inputs, width, n_actions)
    state = FLOAT_BYTES * width
    stack = FLOAT_BYTES * ((_TEMPORARIES + 1) * width + n_actions) + _FRAMES_BYTES
    return Footprint(weights, state, weights + CODE_BYTES, state + stack)
