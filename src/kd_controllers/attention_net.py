"""Students with attention: what an agent saw in its last steps, weighted by its present observation, then a GRU.

    x_t = relu(g_i(o_t)),   (q, k, v)_t = LN(x_t) W + b
    c_t = x_t + W_o sum_s softmax_s(q_t . k_s / sqrt(w) + b_{t-s}) v_s,      t - K < s <= t
    y_t = c_t + W_2 relu(W_1 LN(c_t)),   phi_t = GRU(y_t, phi_{t-1}),   logits_t = head(phi_t)

A pre-norm transformer block with one head reads the agent's own last K steps, as in the decision transformers of Tseng
et al. (NeurIPS 2022). A GRU follows, because KD-MARL's Table III lists their students as attention and RNN.
docs/algorithm/comparators/offline_kd.md separates their definitions from our reading of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_controllers.student_net import HeteroStudent, Packing, WidthGroup, places

# Hidden units of the feed-forward layer, as a multiple of the width.
FEED_FORWARD = 4
UNSEEN = -1e9
EPSILON = 1e-5


class AttentionStep(nn.Module):
    """One agent's network for one step, as its board runs it; its state holds keys and values of past steps.

    The state is the GRU's, then K - 1 keys and K - 1 values. Then a flag for each of these steps, 1 where it was taken.

    Args:
        d_in: number of inputs.
        width: hidden width w.
        n_actions: number of actions.
        window: K, the steps that are attended to, the present one included.
    """

    def __init__(self, d_in: int, width: int, n_actions: int, window: int) -> None:
        super().__init__()
        self.width, self.past = width, window - 1
        self.fc1 = nn.Linear(d_in, width)
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(window))
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.ff1 = nn.Linear(width, FEED_FORWARD * width)
        self.ff2 = nn.Linear(FEED_FORWARD * width, width)
        self.rnn = nn.GRUCell(width, width)
        self.fc2 = nn.Linear(width, n_actions)
        self.relu = nn.ReLU()

    def init_hidden(self) -> Tensor:
        """Return the state before the first step: zeros ``(1, state)``, float32."""
        return self.fc1.weight.new_zeros(1, state_size(self.width, self.past + 1))

    def forward(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Run one step.

        Args:
            inputs: ``(rows, d_in)`` float32.
            hidden: ``(rows, state)`` float32, the state before the step.

        Returns:
            Logits ``(rows, n_actions)`` and the state after the step ``(rows, state)``.
        """
        memory, keys, values, been = _split(hidden, self.width, self.past)
        tokens = self.relu(self.fc1(inputs))
        query, key, value = self.qkv(self.norm1(tokens)).chunk(3, dim=-1)
        keys, values = torch.cat([keys, key.unsqueeze(1)], 1), torch.cat([values, value.unsqueeze(1)], 1)
        been = torch.cat([been, been.new_ones(len(been), 1)], 1)
        scores = torch.matmul(query.unsqueeze(1), keys.transpose(1, 2)).squeeze(1)
        # `unsqueeze`, because ptflops counts an addition of tensors of different rank differently.
        scores = torch.add(torch.mul(scores, self.width**-0.5), self.bias.unsqueeze(0))
        weights = F.softmax(scores.masked_fill(been == 0, UNSEEN), dim=-1)
        read = torch.matmul(weights.unsqueeze(1), values).squeeze(1)
        context = torch.add(tokens, self.out(read))
        context = torch.add(context, self.ff2(self.relu(self.ff1(self.norm2(context)))))
        memory = self.rnn(context, memory)
        return self.fc2(memory), _joined(memory, keys[:, 1:], values[:, 1:], been[:, 1:])


class AttentionGroup(WidthGroup):
    """All agents of one width; see `WidthGroup`. Attention's parameters belong to the parameter set, like the GRU's."""

    def __init__(
        self,
        width: int,
        members: Sequence[int],
        visible: Sequence[Sequence[int]],
        sets: Sequence[int],
        n_actions: int,
        window: int,
    ) -> None:
        """Build the group; ``window`` is K, the other arguments are those of `WidthGroup`."""
        super().__init__(width, members, visible, sets, n_actions)
        self.window, count, wide = window, max(sets) + 1, FEED_FORWARD * width
        self.norm1_weight = nn.Parameter(torch.ones(count, 1, width))
        self.norm1_bias = nn.Parameter(torch.zeros(count, 1, width))
        self.norm2_weight = nn.Parameter(torch.ones(count, 1, width))
        self.norm2_bias = nn.Parameter(torch.zeros(count, 1, width))
        self.distance_bias = nn.Parameter(torch.zeros(count, window))
        for name, rows, columns in (
            ("qkv", width, 3 * width),
            ("out", width, width),
            ("ff1", width, wide),
            ("ff2", wide, width),
        ):
            bound = 1.0 / math.sqrt(rows)
            weight, bias = torch.empty(count, rows, columns), torch.empty(count, 1, columns)
            self.register_parameter(f"{name}_weight", nn.Parameter(weight.uniform_(-bound, bound)))
            self.register_parameter(f"{name}_bias", nn.Parameter(bias.uniform_(-bound, bound)))

    @property
    def state_size(self) -> int:
        """Size of the state of one agent: the GRU's state, and the keys, values and flags of the past steps."""
        return state_size(self.width, self.window)

    def context(self, aligned: Tensor, time: int) -> Tensor:
        """Compute the transformer block's output along whole episodes; see the module.

        Args:
            aligned: ``(members, time * batch, width)`` float32, time first.
            time: steps of the longest episode.

        Returns:
            ``(members, time * batch, width)``.
        """
        members, rows, width = aligned.shape
        batch = rows // time
        query, key, value = self._projected(aligned)
        query, key, value = (x.view(members, time, batch, width).transpose(1, 2) for x in (query, key, value))
        back = torch.arange(time).unsqueeze(1) - torch.arange(time).unsqueeze(0)
        seen = (back >= 0) & (back < self.window)
        bias = self.distance_bias[self.set_of][:, (self.window - 1 - back).clamp(0, self.window - 1)]
        scores = query @ key.transpose(-1, -2) * width**-0.5 + bias.unsqueeze(1)
        weights = torch.softmax(scores.masked_fill(~seen.to(scores.device), UNSEEN), dim=-1)
        read = (weights @ value).transpose(1, 2).reshape(members, rows, width)
        return self._block(aligned, read)

    def forward_packed(self, obs: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
        """Run whole sequences of different lengths, padded: attention is over whole episodes."""
        batch, time, place = len(packing.length), len(packing.sizes), places(packing.length)
        aligned = self.align(obs)
        padded = aligned.new_zeros(len(self.members), time * batch, self.width).index_copy(1, place, aligned)
        states = self.recur(self.context(padded, time), [batch] * time, None)
        embedding = states.index_select(1, place)
        return self.decide(embedding), embedding

    def step(self, obs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run one step from the keys and values of the past ones; see `WidthGroup.step`."""
        members, batch = state.shape[:2]
        past, width = self.window - 1, self.width
        memory, keys, values, been = _split(state.flatten(0, 1), width, past)
        aligned = self.align(obs[:, 0])
        query, key, value = (x.reshape(-1, 1, width) for x in self._projected(aligned))
        keys, values = torch.cat([keys, key], 1), torch.cat([values, value], 1)
        been = torch.cat([been, been.new_ones(len(been), 1)], 1)
        bias = self.distance_bias[self.set_of].repeat_interleave(batch, dim=0)
        scores = (query @ keys.transpose(1, 2)).squeeze(1) * width**-0.5 + bias
        weights = torch.softmax(scores.masked_fill(been == 0, UNSEEN), dim=-1)
        read = (weights.unsqueeze(1) @ values).view(members, batch, width)
        before = memory.view(members, batch, width)
        memory = self.recur(self._block(aligned, read), [batch], before)
        following = _joined(memory.reshape(-1, width), keys[:, 1:], values[:, 1:], been[:, 1:])
        return self.decide(memory), following.view(members, batch, -1)

    def _projected(self, aligned: Tensor) -> tuple[Tensor, ...]:
        """Compute queries, keys and values, each ``(members, rows, width)``."""
        normed = self._normed(aligned, self.norm1_weight, self.norm1_bias)
        return self._linear("qkv", normed).chunk(3, dim=-1)

    def _block(self, aligned: Tensor, read: Tensor) -> Tensor:
        """Add attention and feed-forward layer to their inputs, ``(members, rows, width)``."""
        context = aligned + self._linear("out", read)
        normed = self._normed(context, self.norm2_weight, self.norm2_bias)
        return context + self._linear("ff2", torch.relu(self._linear("ff1", normed)))

    def _normed(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(x, (self.width,), eps=EPSILON) * weight[self.set_of] + bias[self.set_of]

    def _linear(self, name: str, x: Tensor) -> Tensor:
        weight, bias = getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")
        return torch.baddbmm(bias[self.set_of], x, weight[self.set_of])

    @torch.no_grad()
    def extract(self, row: int) -> AttentionStep:
        """Copy one member's network into a network of its own."""
        chosen = int(self.set_of[row])
        network = AttentionStep(self.input_sizes[row], self.width, self.head_weight.shape[-1], self.window)
        self.copy_body(network, row)
        for name in ("qkv", "out", "ff1", "ff2"):
            layer = getattr(network, name)
            layer.weight.copy_(getattr(self, f"{name}_weight")[chosen].T)
            layer.bias.copy_(getattr(self, f"{name}_bias")[chosen, 0])
        for name in ("norm1", "norm2"):
            layer = getattr(network, name)
            layer.weight.copy_(getattr(self, f"{name}_weight")[chosen, 0])
            layer.bias.copy_(getattr(self, f"{name}_bias")[chosen, 0])
        network.bias.copy_(self.distance_bias[chosen])
        return network


class AttentionStudent(HeteroStudent):
    """The policies of all agents, each an `AttentionStep`."""

    def __init__(
        self,
        widths: Sequence[int],
        visible: Sequence[Sequence[int]],
        n_actions: int,
        sharing: str = "none",
        window: int = 20,
    ) -> None:
        """Build the networks; ``window`` is K in steps, the other arguments are those of `HeteroStudent`.

        Raises:
            UserError: an unknown sharing.
        """
        self.window = window
        super().__init__(widths, visible, n_actions, sharing)

    def make_group(
        self, width: int, members: Sequence[int], visible: Sequence[Sequence[int]], sets: Sequence[int]
    ) -> WidthGroup:
        """Build the networks of the agents of one width; arguments as for `HeteroStudent.make_group`."""
        return AttentionGroup(width, members, visible, sets, self.n_actions, self.window)


def state_size(width: int, window: int) -> int:
    """Count the numbers that an agent of this width carries between steps with attention over ``window`` steps."""
    return width + (window - 1) * (2 * width + 1)


def _split(state: Tensor, width: int, past: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split a state ``(rows, state)`` into its parts.

    GRU state ``(rows, width)``, keys and values ``(rows, past, width)``, flags ``(rows, past)``.
    """
    memory, keys, values, been = state.split([width, past * width, past * width, past], dim=-1)
    return memory, keys.unflatten(-1, (past, width)), values.unflatten(-1, (past, width)), been


def _joined(memory: Tensor, keys: Tensor, values: Tensor, been: Tensor) -> Tensor:
    """Invert `_split`."""
    return torch.cat([memory, keys.flatten(1), values.flatten(1), been], dim=-1)
