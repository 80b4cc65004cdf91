"""The grouped GRU against PyTorch's own cell and against finite differences."""

import pytest
import torch
from torch import nn

from kd_controllers.grouped_gru import grouped_gru


def arguments(time: int, k: int, batch: int, width: int, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(1)
    shapes = [(time, k, batch, 3 * width), (k, width, 3 * width), (k, 1, 3 * width), (k, batch, width)]
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (4, 2, 3, 2), (6, 3, 2, 5)])
def test_each_group_is_a_gru_cell_of_its_own(sizes):
    time, k, _, width = sizes
    from_input, weight, bias, start = arguments(*sizes)
    states = grouped_gru(from_input, weight, bias, start)
    for group in range(k):
        cell = nn.GRUCell(3 * width, width, dtype=torch.float64)
        with torch.no_grad():
            cell.weight_ih.copy_(torch.eye(3 * width))
            cell.bias_ih.zero_()
            cell.weight_hh.copy_(weight[group].T)
            cell.bias_hh.copy_(bias[group, 0])
        state = start[group]
        for t in range(time):
            state = cell(from_input[t, group], state)
            torch.testing.assert_close(states[t, group], state, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sizes", [(1, 1, 2, 2), (5, 2, 3, 2), (3, 3, 1, 4)])
def test_its_gradients_are_finite_differences(sizes):
    assert torch.autograd.gradcheck(grouped_gru, arguments(*sizes))


def test_a_sequence_in_two_halves_is_the_whole():
    from_input, weight, bias, start = arguments(6, 2, 3, 4)
    whole = grouped_gru(from_input, weight, bias, start)
    first = grouped_gru(from_input[:2], weight, bias, start)
    second = grouped_gru(from_input[2:], weight, bias, first[-1])
    torch.testing.assert_close(torch.cat([first, second]), whole)
