"""The network of an int8 C program, in numpy: its numbers from the float32 weights, and its arithmetic bit for bit.

Weights are int8 with one scale a row, a row for each output. Activations are int16: features with a power of two each,
aligned units with a scale each, the state in parts of 2^15. Sums are int32 and never overflow. A sum times its row's
scale is a gate's input in parts of 2^12, or a logit. Nothing is a float but the features before and the logits after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kd_onboard.tensors import weights_digest

MOST_WEIGHT, MOST_VALUE = 127, 32767
# Rows and vectors are filled with zeros up to a multiple of this.
LANES = 4
# Of a feature, the exponent of two that it is multiplied by; whatever is smaller than float32's normal numbers is 0.
LEAST_EXPONENT, MOST_EXPONENT = -114, 127
# The aligner's sums, half of int32 at most, are half of int16 after it at the latest.
MOST_SHIFT = 17
# Fractional bits of a gate's input, and of what lies between -1 and 1.
GATE_BITS, UNIT_BITS = 12, 15
# A bias is 2^6 full weights of a full input at most; only beyond does it make its row's scale coarser.
BIAS_BITS = 6
# Logits are rounded to as many bits as float32 holds exactly.
LOGIT_SHIFT = 7
# tanh is a table of 16 values a unit up to 6, with straight lines between them.
TABLE_BITS, TABLE_END = 4, 6
# A past candidate is limited so that its product with a gate fits int32: 16, where tanh has long ended.
_MOST_PAST = (1 << 16) - 1


@dataclass(frozen=True)
class Int8Network:
    """The numbers of a program.

    Attributes:
        exponents: of the features, int8 ``(inputs,)``.
        align_weight: int8 ``(width, inputs)``.
        align_bias: int32 ``(width,)``, with what rounds the shift.
        align_shift: sums of the aligner are shifted right by it.
        weight: int8 ``(6 width + actions, width)``: r, z, n of the aligned units, r, z, n of the state, head.
        bias: int32, one a row.
        scale: int16, one a row.
        gate_shift: scaled sums of gates are shifted right by it.
        logit_exponent: a logit is its integer times two to the power of it.
        table: int16, of tanh.
    """

    exponents: np.ndarray
    align_weight: np.ndarray
    align_bias: np.ndarray
    align_shift: int
    weight: np.ndarray
    bias: np.ndarray
    scale: np.ndarray
    gate_shift: int
    logit_exponent: int
    table: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """Powers of two of the activations, from features that the agent meets.

    Attributes:
        exponents: of each feature.
        align_shift: of the aligner's sums.
    """

    exponents: tuple[int, ...]
    align_shift: int


def padded(size: int) -> int:
    """Return a size with the zeros that fill it up."""
    return -(-size // LANES) * LANES


def exponents(largest: np.ndarray) -> list[int]:
    """Return for each feature the power of two that makes its largest value 2^13 to 2^14, half of what int16 holds.

    Args:
        largest: absolute values ``(inputs,)``; a feature that was always 0 counts as 1.
    """
    _, power = np.frexp(np.where(largest > 0.0, largest, 1.0).astype(np.float64))
    return [int(value) for value in np.clip(UNIT_BITS - 1 - power, LEAST_EXPONENT, MOST_EXPONENT)]


def calibrate(weights: Mapping[str, np.ndarray], features: np.ndarray) -> Calibration:
    """Choose the powers of two of the activations.

    Args:
        weights: float32, as a bundle stores them.
        features: ``(steps, inputs)`` that the agent meets.
    """
    powers = exponents(np.abs(features).max(0))
    whole, bias, _ = _align(weights, powers)
    most, shift = int((_product(_fixed(features, np.array(powers)), whole) + bias).max()), 1
    while most >> shift > MOST_VALUE >> 1:
        shift += 1
    return Calibration(tuple(powers), shift)


def program_digest(weights: Mapping[str, np.ndarray], calibration: Calibration) -> str:
    """Return what tells a program's numbers from another's: the sha256 of weights and calibration."""
    return hashlib.sha256(f"{weights_digest(weights)} {calibration}".encode()).hexdigest()


def quantise(weights: Mapping[str, np.ndarray], calibration: Calibration) -> Int8Network:
    """Return the numbers of a network's program. They are the same on every machine.

    Args:
        weights: float32, as a bundle stores them.
        calibration: of the activations.
    """
    exact = {name: value.astype(np.float64) for name, value in weights.items()}
    align_weight, align_bias, align_scale = _align(weights, calibration.exponents)
    of_aligned = exact["gru.weight_ih"] * np.ldexp(align_scale, calibration.align_shift)
    of_state, head = (np.ldexp(exact[name], -UNIT_BITS) for name in ("gru.weight_hh", "head.weight"))
    biases = [exact[name] for name in ("gru.bias_ih", "gru.bias_hh", "head.bias")]
    weight, bias, scale = _rows(np.concatenate([of_aligned, of_state, head]), np.concatenate(biases))
    gates = 2 * len(of_aligned)
    gate, gate_shift = _multipliers(np.ldexp(scale[:gates], UNIT_BITS + GATE_BITS), 1, 30)
    logit, logit_shift = _multipliers(np.ldexp(scale[gates:], UNIT_BITS), -60, 60)
    table = np.tanh(np.arange((TABLE_END << TABLE_BITS) + 1) / (1 << TABLE_BITS))
    return Int8Network(
        exponents=np.asarray(calibration.exponents, np.int8),
        align_weight=align_weight,
        align_bias=align_bias + np.int32(1 << (calibration.align_shift - 1)),
        align_shift=calibration.align_shift,
        weight=weight,
        bias=bias,
        scale=np.concatenate([gate, logit]),
        gate_shift=gate_shift,
        logit_exponent=LOGIT_SHIFT - logit_shift,
        table=np.rint(MOST_VALUE * table).astype(np.int16),
    )


def step(network: Int8Network, features: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run the program's step for a batch.

    Args:
        network: the numbers.
        features: ``(batch, inputs)`` float32, finite.
        state: ``(batch, width)`` of whole numbers, zeros at the start of an episode.

    Returns:
        Logits ``(batch, actions)`` float32, exactly those of the program, and the next state, int16.
    """
    width = state.shape[1]
    sums = _product(_fixed(features, network.exponents), network.align_weight) + network.align_bias
    aligned = np.clip(sums >> network.align_shift, 0, MOST_VALUE)
    fresh, past = network.weight[: 3 * width], network.weight[3 * width : 6 * width]
    gates = np.concatenate([_product(aligned, fresh), _product(state, past)], 1)
    gates = _scaled(network, gates, slice(0, 6 * width), network.gate_shift)
    in_r, in_z, in_n, of_r, of_z, of_n = np.split(gates, 6, axis=1)
    reset, update = _sigmoid(network, in_r + of_r), _sigmoid(network, in_z + of_z)
    of_n = np.clip(of_n, -_MOST_PAST, _MOST_PAST)
    candidate = _tanh(network, in_n + _rounded(reset * of_n, UNIT_BITS))
    following = candidate + _rounded(update * (state.astype(np.int64) - candidate), UNIT_BITS)
    head = _product(following, network.weight[6 * width :])
    whole = _scaled(network, head, slice(6 * width, None), LOGIT_SHIFT)
    return np.ldexp(whole.astype(np.float32), network.logit_exponent), following.astype(np.int16)


def _product(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    # Exact whatever the order: no sum reaches 2^53.
    return (values.astype(np.float64) @ weight.astype(np.float64).T).astype(np.int64)


def _rounded(values: np.ndarray, bits: int) -> np.ndarray:
    return (values + (1 << (bits - 1))) >> bits


def _scaled(network: Int8Network, sums: np.ndarray, rows: slice, bits: int) -> np.ndarray:
    sums, scale = sums + network.bias[rows], network.scale[rows].astype(np.int64)
    # In two parts, so that both products fit int32.
    high, low = sums >> UNIT_BITS, sums & MOST_VALUE
    return _rounded(high * scale + (low * scale >> UNIT_BITS), bits)


def _fixed(features: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """Return features as int16, the nearest one, half away from zero; beyond its range the largest."""
    bits = np.ascontiguousarray(features, np.float32).view(np.uint32).astype(np.int64)
    size = bits & 0x7FFFFFFF
    shift = 150 - (size >> 23) - powers
    mantissa = (size & 0x7FFFFF) | 0x800000
    whole = (mantissa + (1 << np.clip(shift - 1, 0, 24))) >> np.clip(shift, 0, 25)
    whole = np.where(shift < 9, MOST_VALUE, np.minimum(whole, MOST_VALUE))
    whole = np.where((shift > 25) | (size < 0x800000), 0, whole)
    return np.where(bits >> 31, -whole, whole)


def _tanh(network: Int8Network, values: np.ndarray) -> np.ndarray:
    step_bits = GATE_BITS - TABLE_BITS
    size = np.minimum(np.abs(values), (TABLE_END << GATE_BITS) - 1)
    at, rest = size >> step_bits, size & ((1 << step_bits) - 1)
    low, high = network.table[at].astype(np.int64), network.table[at + 1].astype(np.int64)
    return np.where(values < 0, -1, 1) * (low + _rounded((high - low) * rest, step_bits))


def _sigmoid(network: Int8Network, values: np.ndarray) -> np.ndarray:
    return (1 << (UNIT_BITS - 1)) + (_tanh(network, values >> 1) >> 1)


def _align(weights: Mapping[str, np.ndarray], powers: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    weight = np.ldexp(weights["align.weight"].astype(np.float64), -np.asarray(powers))
    return _rows(weight, weights["align.bias"].astype(np.float64))


def _rows(weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return int8 weights, int32 biases and each row's scale."""
    largest = np.maximum(np.abs(weight).max(1), np.ldexp(np.abs(bias), -UNIT_BITS - BIAS_BITS))
    scale = np.where(largest > 0.0, largest, 1.0) / MOST_WEIGHT
    whole, own = _divided(weight, bias, scale)
    # A sum is half of int32 at most, so that rounding has room: only rows of more than 190 weights are cut.
    scale = scale * np.maximum(1.0, np.ldexp(_longest(whole, own), -30))
    return *_divided(weight, bias, scale), np.where(largest > 0.0, scale, 0.0)


def _divided(weight: np.ndarray, bias: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.rint(weight / scale[:, None]).astype(np.int8), np.rint(bias / scale).astype(np.int32)


def _longest(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Return the largest size of each row's sum."""
    return (np.abs(weight.astype(np.int64)).sum(1) << UNIT_BITS) + np.abs(bias.astype(np.int64))


def _multipliers(factor: np.ndarray, fewest: int, most: int) -> tuple[np.ndarray, int]:
    """Return int16 multipliers and the bits that their products are shifted right by, in these limits."""
    _, power = np.frexp(factor.max())
    bits = int(np.clip(UNIT_BITS - power, fewest, most))
    return np.minimum(np.rint(np.ldexp(factor, bits)), MOST_VALUE).astype(np.int16), bits
