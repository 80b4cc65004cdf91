"""The grouped GRU against PyTorch's own cell and against finite differences."""

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from kd_controllers.grouped_gru import grouped_gru


def arguments(sizes: Sequence[int], k: int, width: int):
    """Float64 arguments of packed sequences with that many rows at each step."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(k, sum(sizes), 3 * width), (k, width, 3 * width), (k, 1, 3 * width), (k, sizes[0], width)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


@pytest.mark.parametrize(("sizes", "k", "width"), [([1], 1, 1), ([3, 3, 3, 3], 2, 2), ([4, 4, 2, 1, 1], 3, 5)])
def test_each_group_is_a_gru_cell_of_its_own_and_sequences_end_where_they_end(sizes, k, width):
    from_input, weight, bias, start = arguments(sizes, k, width)
    states = grouped_gru(from_input, weight, bias, start, sizes).split(sizes, 1)
    for group in range(k):
        cell = nn.GRUCell(3 * width, width, dtype=torch.float64)
        with torch.no_grad():
            cell.weight_ih.copy_(torch.eye(3 * width))
            cell.bias_ih.zero_()
            cell.weight_hh.copy_(weight[group].T)
            cell.bias_hh.copy_(bias[group, 0])
        state = start[group]
        for given, found in zip(from_input[group].split(sizes), states, strict=True):
            state = cell(given, state[: len(given)])
            torch.testing.assert_close(found[group], state, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("sizes", "k", "width"), [([2], 1, 2), ([3, 3, 3], 2, 2), ([3, 2, 2, 1], 3, 4)])
def test_its_gradients_are_finite_differences(sizes, k, width):
    assert torch.autograd.gradcheck(lambda *given: grouped_gru(*given, sizes), arguments(sizes, k, width))


def test_a_sequence_in_two_halves_is_the_whole():
    from_input, weight, bias, start = arguments([3] * 6, 2, 4)
    whole = grouped_gru(from_input, weight, bias, start, [3] * 6)
    first = grouped_gru(from_input[:, :6], weight, bias, start, [3] * 2)
    second = grouped_gru(from_input[:, 6:], weight, bias, first[:, -3:], [3] * 4)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
