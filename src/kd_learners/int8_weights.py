"""Quantisation-aware finishing: in the last part of training the students compute with the weights of their int8 C.

Each weight is rounded as `kd_onboard.int8` rounds it, and its gradient is applied to the number behind it (straight
through). At the end the rounded weights are the student's, so its int8 C decides as it does but for the rounding of
activations. These have 16 bits, too many to be trained for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from kd_controllers.student_net import HeteroStudent, WidthGroup
from kd_onboard.int8 import BIAS_BITS, MOST_WEIGHT, UNIT_BITS, exponents


class Int8Weights:
    """The students' weights as int8 holds them, with the features' powers of two."""

    def __init__(self, student: HeteroStudent, largest: np.ndarray) -> None:
        """Choose the powers.

        Args:
            student: whose weights they are.
            largest: absolute values of the features, ``(agents, features)``.
        """
        self._groups = student.groups
        powers = np.array([exponents(row) for row in largest])
        self._units = [torch.from_numpy(np.ldexp(1.0, -powers[group.members])).float() for group in student.groups]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the rounded weights into the students' parameters for a block; gradients in it are those of them."""
        exact = [(parameter, parameter.data) for group in self._groups for parameter in group.parameters()]
        try:
            self.settle()
            yield
        finally:
            for parameter, value in exact:
                parameter.data = value

    def settle(self) -> None:
        """Put the rounded weights into the students' parameters for good."""
        for group, units in zip(self._groups, self._units, strict=True):
            for parameter, value in _rounded_weights(group, units):
                parameter.data = value


@torch.no_grad()
def _rounded_weights(group: WidthGroup, units: Tensor) -> Sequence[tuple[torch.nn.Parameter, Tensor]]:
    """Round each matrix of a group, whose columns are outputs; biases have more bits than they need.

    Args:
        group: of students of one width.
        units: of each member's features ``(members, features)``.
    """
    seen = units.to(group.inputs.device).gather(1, group.inputs).unsqueeze(-1)
    aligner, scale = _rounded(group.aligner_weight, group.aligner_bias, seen)
    # An aligned unit is in parts of its row's scale. Agents that share a GRU round it as the first of them does.
    first = [group.set_of.tolist().index(chosen) for chosen in range(len(group.weight_ih))]
    parts = scale[first].transpose(1, 2)
    past = seen.new_full((1, 1, 1), 2.0**-UNIT_BITS)
    return [
        (group.aligner_weight, aligner),
        (group.weight_ih, _rounded(group.weight_ih, None, parts)[0]),
        (group.weight_hh, _rounded(group.weight_hh, group.bias_hh, past)[0]),
        (group.head_weight, _rounded(group.head_weight, group.head_bias, past)[0]),
    ]


def _rounded(weight: Tensor, bias: Tensor | None, units: Tensor) -> tuple[Tensor, Tensor]:
    """Round weights ``(sets, inputs, outputs)`` whose inputs are in these units ``(sets, inputs, 1)``.

    Returns:
        The weights, and each output's scale ``(sets, 1, outputs)``.
    """
    whole = weight * units
    largest = whole.abs().amax(1, keepdim=True)
    if bias is not None:
        largest = torch.maximum(largest, bias.abs() * 2.0 ** (-UNIT_BITS - BIAS_BITS))
    scale = torch.where(largest > 0.0, largest, 1.0) / MOST_WEIGHT
    return torch.where(units > 0.0, (whole / scale).round() * scale / units, weight), scale
