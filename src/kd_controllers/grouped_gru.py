"""A GRU over whole sequences for several agents with weights of their own, forward and backward written out.

In small recurrent networks on a CPU, bookkeeping costs more than arithmetic: autograd over a loop tracks every small
operation. Here the whole sequence is one operation with its own backward pass. The loop computes only what depends on
the step before. Everything else, including the gradient of the weights, is one batched product.

Sequences of different lengths are packed, so that no padding is computed: the rows of the first step, those of the
second and so on, of each step the longest sequence's first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def grouped_gru(from_input: Tensor, weight: Tensor, bias: Tensor, start: Tensor, sizes: Sequence[int]) -> Tensor:
    """Run k GRUs along sequences, each with its own weights (gates as in ``torch.nn.GRUCell``).

        r, z = sigmoid(x_r + h U_r + b_r), sigmoid(x_z + h U_z + b_z)
        n = tanh(x_n + r (h U_n + b_n)),   h' = (1 - z) n + z h

    Args:
        from_input: x, the input's part of the gates, ``(k, rows, 3 width)`` float32 in the order r, z, n.
        weight: U, ``(k, width, 3 width)`` float32.
        bias: b, ``(k, 1, 3 width)`` float32.
        start: h before the first step, ``(k, sizes[0], width)`` float32.
        sizes: rows of each step, which never increase; they add up to ``rows``.

    Returns:
        h after every step, ``(k, rows, width)`` float32.
    """
    states: Tensor = _GroupedGRU.apply(from_input, weight, bias, start, sizes)
    return states


class _GroupedGRU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, from_input: Tensor, weight: Tensor, bias: Tensor, start: Tensor, sizes: Sequence[int]
    ) -> Tensor:
        k, rows, three = from_input.shape
        width = three // 3
        states = from_input.new_empty(k, rows, width)
        gates = from_input.new_empty(k, rows, 2 * width)
        candidates, past_candidates = torch.empty_like(states), torch.empty_like(states)
        given = (from_input[..., : 2 * width], from_input[..., 2 * width :])
        parts = (*given, gates, gates[..., :width], gates[..., width:], candidates, past_candidates, states)
        state = start
        for input_gates, input_candidate, both, reset, update, candidate, past_candidate, following in _steps(
            parts, sizes
        ):
            state = state[:, : both.shape[1]]
            past = torch.baddbmm(bias, state, weight)
            torch.add(input_gates, past[..., : 2 * width], out=both).sigmoid_()
            past_candidate.copy_(past[..., 2 * width :])
            torch.addcmul(input_candidate, reset, past_candidate, out=candidate).tanh_()
            state = torch.lerp(candidate, state, update, out=following)
        ctx.save_for_backward(weight, start, states, gates, candidates, past_candidates)
        ctx.sizes = sizes
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor | None, ...]:
        weight, start, states, gates, candidates, past_candidates = ctx.saved_tensors
        sizes: Sequence[int] = ctx.sizes
        k, rows, width = states.shape
        reset, update = gates[..., :width], gates[..., width:]
        earlier = [state[:, :size] for state, size in zip(states.split(sizes, 1), sizes[1:], strict=False)]
        before = torch.cat([start, *earlier], 1)
        # Local derivatives for all steps: of h' by the argument of tanh, and by the past's part of r, z and n.
        to_candidate = (1 - update) * (1 - candidates.square())
        to_past = states.new_empty(k, rows, 3, width)
        torch.mul(to_candidate * past_candidates, reset * (1 - reset), out=to_past[:, :, 0])
        torch.mul(before - candidates, update * (1 - update), out=to_past[:, :, 1])
        torch.mul(to_candidate, reset, out=to_past[:, :, 2])
        grad_state, grad_past = torch.empty_like(states), torch.empty_like(to_past)
        transposed = weight.transpose(1, 2)
        carried = states.new_zeros(k, 0, width)
        parts = (grad_states, to_past, update, grad_state, grad_past)
        for given, local, kept, grad, of_past in reversed(list(_steps(parts, sizes))):
            grad.copy_(given)[:, : carried.shape[1]].add_(carried)
            torch.mul(grad.unsqueeze(2), local, out=of_past)
            carried = torch.baddbmm(grad * kept, of_past.flatten(2), transposed)
        grad_input = states.new_empty(k, rows, 3 * width)
        past = grad_past.flatten(2)
        grad_input[..., : 2 * width] = past[..., : 2 * width]
        torch.mul(grad_state, to_candidate, out=grad_input[..., 2 * width :])
        return grad_input, before.transpose(1, 2) @ past, past.sum(1, keepdim=True), carried, None


def _steps(tensors: Sequence[Tensor], sizes: Sequence[int]) -> Iterator[tuple[Tensor, ...]]:
    """Walk through the steps of packed tensors ``(k, rows, ...)``."""
    return zip(*(tensor.split(sizes, 1) for tensor in tensors), strict=True)
