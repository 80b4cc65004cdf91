"""Recurrent agents that send each other numbers, unrolled jointly along a sequence, forward and backward written out.

What an agent hears at a step was said some steps before, so all agents advance together. The sequence is one operation
with its own backward pass, for the reason given in `grouped_gru`. Its loop runs over time only: all agents are one
batched product, and the gradient of every weight is one product after the loop.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Weights(NamedTuple):
    """Weights of n agents: ``hear`` is R, with the rows of a hearer sorted by speaker, ``speak`` is S.

    Gates are in the order r, z, n. Shapes: ``hear`` ``(n, n * numbers, width)``; ``weight_ih`` and ``weight_hh``
    ``(n, width, 3 width)``; ``bias_ih`` and ``bias_hh`` ``(n, 1, 3 width)``; ``speak`` ``(n, width, numbers)``.
    """

    hear: Tensor
    weight_ih: Tensor
    bias_ih: Tensor
    weight_hh: Tensor
    bias_hh: Tensor
    speak: Tensor


def talking_gru(
    aligned: Tensor,
    weights: Weights,
    start: Tensor,
    sent: Tensor,
    speaks: Tensor,
    heard: Tensor,
    thresholds: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run n agents along a sequence, each with its own weights (gates as in ``torch.nn.GRUCell``).

        x_i(t) = relu(a_i(t) + sum_j heard_ij(t) m_j(t - latency) R_ij)
        h_i(t) = GRU(x_i(t), h_i(t - 1)),   m_j(t) = speaks_j(t) level(h_j(t) S_j)

    level(v) is 2 c / L - 1, where c of the L thresholds are at most v; the one threshold 0 makes it the sign, with
    sign(0) = 1. The gradient passes it as if it were tanh (straight-through).

    Args:
        aligned: a, ``(time, n, batch, width)`` float.
        weights: R, the GRU's and S.
        start: h before the first step, ``(n, batch, width)``.
        sent: messages on their way at the first step, the oldest first, ``(latency, batch, n, numbers)``; no gradient.
        speaks: ``(time, batch, n)``, 0 where an agent sends nothing.
        heard: ``(time, n, batch, n)``, 1 where a hearer (axis 1) is reached by a speaker (axis 3) at this step.
        thresholds: L of them, ascending (`kd_onboard.messages.thresholds`); None: 0.

    Returns:
        h after every step, ``(time, n, batch, width)``, and m of every step, from -1 to 1,
        ``(time, batch, n, numbers)``.
    """
    states, said = _TalkingGRU.apply(aligned, *weights, start, sent, speaks, heard, thresholds)
    return states, said


class _TalkingGRU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        aligned: Tensor,
        hear: Tensor,
        weight_ih: Tensor,
        bias_ih: Tensor,
        weight_hh: Tensor,
        bias_hh: Tensor,
        speak: Tensor,
        start: Tensor,
        sent: Tensor,
        speaks: Tensor,
        heard: Tensor,
        thresholds: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        time, n, batch, width = aligned.shape
        latency, numbers = len(sent), speak.shape[-1]
        two = 2 * width
        features, states, candidates, past_candidates = (torch.empty_like(aligned) for _ in range(4))
        gates = aligned.new_empty(time, n, batch, two)
        voices = aligned.new_empty(time, n, batch, numbers)
        # Element t is heard at step t, and said at step t - latency.
        messages = aligned.new_empty(latency + time, batch, n, numbers)
        messages[:latency] = sent
        reached, open_ = heard.unsqueeze(-1), speaks.unsqueeze(-1)
        inbox = aligned.new_empty(n, batch, n, numbers)
        inboxes = inbox.view(n, batch, n * numbers)
        state = start
        for t in range(time):
            torch.mul(messages[t], reached[t], out=inbox)
            feature = torch.baddbmm(aligned[t], inboxes, hear, out=features[t]).relu_()
            from_input = torch.baddbmm(bias_ih, feature, weight_ih)
            past = torch.baddbmm(bias_hh, state, weight_hh)
            both = torch.add(from_input[..., :two], past[..., :two], out=gates[t]).sigmoid_()
            past_candidate = past_candidates[t].copy_(past[..., two:])
            candidate = torch.addcmul(from_input[..., two:], both[..., :width], past_candidate, out=candidates[t])
            state = torch.lerp(candidate.tanh_(), state, both[..., width:], out=states[t])
            voice = torch.bmm(state, speak, out=voices[t])
            messages[latency + t] = level(voice.transpose(0, 1), thresholds) * open_[t]
        ctx.save_for_backward(
            *(hear, weight_ih, weight_hh, speak, start, speaks, heard),
            *(features, states, gates, candidates, past_candidates, voices, messages),
        )
        said = messages[latency:]
        ctx.mark_non_differentiable(said)
        return states, said

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hear, weight_ih, weight_hh, speak, start, speaks, heard, *computed = ctx.saved_tensors
        features, states, gates, candidates, past_candidates, voices, messages = computed
        time, n, batch, width = states.shape
        latency, numbers = len(messages) - time, speak.shape[-1]
        reset, update = gates[..., :width], gates[..., width:]
        before = torch.cat([start.unsqueeze(0), states[:-1]])
        # Local derivatives for all steps: of h' by the arguments of tanh and of z, of tanh's argument by that of r, of
        # x by relu's argument, and of m by that of its level.
        to_candidate = (1 - update) * (1 - candidates.square())
        to_update = (before - candidates) * update * (1 - update)
        to_reset = past_candidates * reset * (1 - reset)
        to_feature = (features > 0).to(features.dtype)
        to_voice = (1 - voices.tanh().square()) * speaks.transpose(1, 2).unsqueeze(-1)
        reached = heard.unsqueeze(-1)
        grad_input = states.new_empty(time, n, batch, 3 * width)
        grad_past = torch.empty_like(grad_input)
        grad_aligned = torch.empty_like(features)
        grad_voices = torch.zeros_like(voices)
        # Of what is heard at step t, by the step at which it was said.
        grad_said = states.new_empty(time, n, batch, numbers)
        from_feature, from_state = weight_ih.transpose(1, 2), weight_hh.transpose(1, 2)
        from_inbox, from_voice = hear.transpose(1, 2), speak.transpose(1, 2)
        carried = torch.zeros_like(start)
        two = 2 * width
        for t in range(time - 1, -1, -1):
            grad = grad_states[t] + carried
            if t + latency < time:
                grad_voice = torch.mul(grad_said[t], to_voice[t], out=grad_voices[t])
                grad.baddbmm_(grad_voice, from_voice)
            of_candidate = torch.mul(grad, to_candidate[t], out=grad_input[t, ..., two:])
            torch.mul(of_candidate, to_reset[t], out=grad_past[t, ..., :width])
            torch.mul(grad, to_update[t], out=grad_past[t, ..., width:two])
            torch.mul(of_candidate, reset[t], out=grad_past[t, ..., two:])
            grad_input[t, ..., :two] = grad_past[t, ..., :two]
            carried = torch.baddbmm(grad.mul_(update[t]), grad_past[t], from_state)
            grad_feature = torch.bmm(grad_input[t], from_feature, out=grad_aligned[t]).mul_(to_feature[t])
            if t >= latency:
                of_inbox = torch.bmm(grad_feature, from_inbox).view(n, batch, n, numbers)
                grad_said[t - latency] = of_inbox.mul_(reached[t]).sum(0).transpose(0, 1)
        inboxes = (messages[:time].unsqueeze(1) * reached).flatten(3)
        gathered = {name: _rows(x) for name, x in {"input": grad_input, "past": grad_past}.items()}
        return (
            grad_aligned,
            _rows(inboxes).transpose(1, 2) @ _rows(grad_aligned),
            _rows(features).transpose(1, 2) @ gathered["input"],
            gathered["input"].sum(1, keepdim=True),
            _rows(before).transpose(1, 2) @ gathered["past"],
            gathered["past"].sum(1, keepdim=True),
            _rows(states).transpose(1, 2) @ _rows(grad_voices),
            carried,
            None,
            None,
            None,
            None,
        )


def level(voice: Tensor, thresholds: Tensor | None) -> Tensor:
    """Compute the number that is said, from -1 to 1, of any shape; arguments as for `talking_gru`."""
    if thresholds is None:
        return torch.where(voice >= 0, 1.0, -1.0).to(voice.dtype)
    count = torch.bucketize(voice.contiguous(), thresholds.to(voice.dtype), right=True)
    return (2.0 / len(thresholds)) * count.to(voice.dtype) - 1.0


def _rows(x: Tensor) -> Tensor:
    """Join time and batch of ``(time, n, batch, ...)``: ``(n, time * batch, ...)``."""
    return x.transpose(0, 1).flatten(1, 2)
