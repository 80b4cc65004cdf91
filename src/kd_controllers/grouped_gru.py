"""A GRU over whole sequences for several agents with weights of their own, forward and backward written out.

In small recurrent networks on a CPU, bookkeeping costs more than arithmetic: autograd over a loop tracks every small
operation. Here the whole sequence is one operation with its own backward pass. The loop computes only what depends on
the step before. Everything else, including the gradient of the weights, is one batched product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def grouped_gru(from_input: Tensor, weight: Tensor, bias: Tensor, start: Tensor) -> Tensor:
    """Run k GRUs along a sequence, each with its own weights (gates as in ``torch.nn.GRUCell``).

        r, z = sigmoid(x_r + h U_r + b_r), sigmoid(x_z + h U_z + b_z)
        n = tanh(x_n + r (h U_n + b_n)),   h' = (1 - z) n + z h

    Args:
        from_input: x, the input's part of the gates, ``(time, k, batch, 3 width)`` float32 in the order r, z, n.
        weight: U, ``(k, width, 3 width)`` float32.
        bias: b, ``(k, 1, 3 width)`` float32.
        start: h before the first step, ``(k, batch, width)`` float32.

    Returns:
        h after every step, ``(time, k, batch, width)`` float32.
    """
    states: Tensor = _GroupedGRU.apply(from_input, weight, bias, start)
    return states


class _GroupedGRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, from_input: Tensor, weight: Tensor, bias: Tensor, start: Tensor) -> Tensor:
        time, k, batch, three = from_input.shape
        width = three // 3
        states = from_input.new_empty(time, k, batch, width)
        gates = from_input.new_empty(time, k, batch, 2 * width)
        candidates, past_candidates = torch.empty_like(states), torch.empty_like(states)
        input_gates, input_candidate = from_input[..., : 2 * width], from_input[..., 2 * width :]
        state = start
        for t in range(time):
            past = torch.baddbmm(bias, state, weight)
            both = torch.add(input_gates[t], past[..., : 2 * width], out=gates[t]).sigmoid_()
            past_candidate = past_candidates[t].copy_(past[..., 2 * width :])
            candidate = torch.addcmul(input_candidate[t], both[..., :width], past_candidate, out=candidates[t]).tanh_()
            state = torch.lerp(candidate, state, both[..., width:], out=states[t])
        ctx.save_for_backward(weight, start, states, gates, candidates, past_candidates)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        weight, start, states, gates, candidates, past_candidates = ctx.saved_tensors
        time, k, batch, width = states.shape
        reset, update = gates[..., :width], gates[..., width:]
        before = torch.cat([start.unsqueeze(0), states[:-1]])
        # Local derivatives for all steps: of h' by the arguments of tanh and of z, and of tanh's argument by that of r.
        to_candidate = (1 - update) * (1 - candidates.square())
        to_update = (before - candidates) * update * (1 - update)
        to_reset = past_candidates * reset * (1 - reset)
        grad_input = states.new_empty(time, k, batch, 3 * width)
        grad_past = torch.empty_like(grad_input)
        transposed = weight.transpose(1, 2)
        carried = torch.zeros_like(start)
        for t in range(time - 1, -1, -1):
            grad = grad_states[t] + carried
            of_candidate = torch.mul(grad, to_candidate[t], out=grad_input[t, ..., 2 * width :])
            torch.mul(of_candidate, to_reset[t], out=grad_past[t, ..., :width])
            torch.mul(grad, to_update[t], out=grad_past[t, ..., width : 2 * width])
            torch.mul(of_candidate, reset[t], out=grad_past[t, ..., 2 * width :])
            carried = torch.baddbmm(grad * update[t], grad_past[t], transposed)
        grad_input[..., : 2 * width] = grad_past[..., : 2 * width]
        rows = grad_past.transpose(0, 1).reshape(k, time * batch, 3 * width)
        grad_weight = before.transpose(0, 1).reshape(k, time * batch, width).transpose(1, 2) @ rows
        return grad_input, grad_weight, rows.sum(1, keepdim=True), carried
