"""The students' networks: for each agent an aligner g_i, a GRU and a policy head.

    o^_i = relu(g_i(o_S,i)),   phi_i = GRU(o^_i, phi_i),   logits_i = head(phi_i)

g_i is the linear map from the d_S,i features that agent i sees to its width (decision 9). It replaces the student's
first layer, since two linear maps in a row are one. Agents of equal width are computed in one batch.

A comparator with another network (``attention_net``, ``personal_net``) subclasses `WidthGroup` with its additional
layers, between aligner and GRU or behind the GRU. It also subclasses `HeteroStudent` with that group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kd_controllers.grouped_gru import grouped_gru
from kd_controllers.messages import Radio
from kd_core.costs.flops import AgentStep
from kd_core.errors import UserError, nearest

SHARING = ("none", "group", "all")


def check_sharing(sharing: str) -> None:
    """Refuse an unknown kind of sharing.

    Raises:
        UserError: ``sharing`` is not one of ``SHARING``.
    """
    if sharing not in SHARING:
        raise UserError(f"sharing is '{sharing}'; {nearest(sharing, SHARING)}")


class WidthGroup(nn.Module):
    """All agents of one width, computed in one batched call.

    Parameters are stacked along a leading axis: ``aligner`` per agent, padded with zeros to the widest input; the GRU
    and the head per parameter set. ``members[k]`` is the index of the k-th agent and ``set_of[k]`` its parameter set.
    """

    inputs: Tensor
    absent: Tensor
    set_of: Tensor

    def __init__(
        self,
        width: int,
        members: Sequence[int],
        visible: Sequence[Sequence[int]],
        sets: Sequence[int],
        n_actions: int,
    ) -> None:
        """Build the group.

        Args:
            width: hidden units w.
            members: indices of the agents.
            visible: for each member the indices of its features in the observation.
            sets: for each member its parameter set, numbered from 0.
            n_actions: size of the action space.
        """
        super().__init__()
        self.width, self.members = width, list(members)
        self.input_sizes = [len(indices) for indices in visible]
        widest, count = max(self.input_sizes), max(sets) + 1
        padded = torch.zeros(len(visible), widest, dtype=torch.long)
        absent = torch.ones(len(visible), widest, dtype=torch.bool)
        for row, indices in enumerate(visible):
            padded[row, : len(indices)] = torch.tensor(indices)
            absent[row, : len(indices)] = False
        self.has_padding = bool(absent.any())
        self.register_buffer("inputs", padded, persistent=False)
        self.register_buffer("absent", absent, persistent=False)
        self.register_buffer("set_of", torch.tensor(sets), persistent=False)
        self.aligner_weight = nn.Parameter(torch.zeros(len(visible), widest, width))
        self.aligner_bias = nn.Parameter(torch.zeros(len(visible), 1, width))
        self.weight_ih = nn.Parameter(torch.empty(count, width, 3 * width))
        self.weight_hh = nn.Parameter(torch.empty(count, width, 3 * width))
        self.bias_ih = nn.Parameter(torch.empty(count, 1, 3 * width))
        self.bias_hh = nn.Parameter(torch.empty(count, 1, 3 * width))
        self.head_weight = nn.Parameter(torch.empty(count, width, n_actions))
        self.head_bias = nn.Parameter(torch.empty(count, 1, n_actions))
        self._reset()

    def _reset(self) -> None:
        """Draw initial weights as PyTorch does for ``Linear`` and ``GRUCell``: uniform within 1 / sqrt(inputs)."""
        with torch.no_grad():
            for row, size in enumerate(self.input_sizes):
                bound = 1.0 / math.sqrt(size)
                self.aligner_weight[row, :size].uniform_(-bound, bound)
                self.aligner_bias[row].uniform_(-bound, bound)
            body = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, self.head_weight, self.head_bias)
            for parameter in body:
                parameter.uniform_(-1.0 / math.sqrt(self.width), 1.0 / math.sqrt(self.width))

    @property
    def state_size(self) -> int:
        """Numbers that one agent carries from step to step."""
        return self.width

    def forward(self, obs: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        """Run whole sequences.

        Args:
            obs: ``(batch, time, agents, features)`` of all agents, float32.
            hidden: ``(members, batch, width)`` float32, or None for the start of an episode.

        Returns:
            Logits ``(members, batch, time, actions)`` and embeddings ``(members, batch, time, width)``.
        """
        batch, time = obs.shape[:2]
        aligned = self.align(obs.transpose(0, 1).flatten(0, 1))
        states = self.recur(self.context(aligned, time), [batch] * time, hidden)
        logits, embedding = (x.unflatten(1, (time, batch)).transpose(1, 2) for x in (self.decide(states), states))
        return logits, embedding

    def forward_packed(self, obs: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
        """Run whole sequences of different lengths from their start, without padding.

        Args:
            obs: ``(steps, agents, features)`` of all agents, float32.
            packing: of these steps.

        Returns:
            Logits ``(members, steps, actions)`` and embeddings ``(members, steps, width)``.
        """
        states = self.recur(self.align(obs.index_select(0, packing.order)), packing.sizes, None)
        embedding = states.index_select(1, packing.place)
        return self.decide(embedding), embedding

    def step(self, obs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run one step.

        Args:
            obs: ``(batch, 1, agents, features)`` of all agents, float32.
            state: ``(members, batch, state_size)`` float32, zeros at the start of an episode.

        Returns:
            Logits ``(members, batch, actions)`` and the next state.
        """
        logits, embedding = self(obs, state)
        return logits[:, :, 0], embedding[:, :, 0]

    def align(self, obs: Tensor) -> Tensor:
        """Compute relu(g_i(o_i)) ``(members, rows, width)`` from observations ``(rows, agents, features)``, float32."""
        return torch.relu(self.project(obs))

    def project(self, obs: Tensor) -> Tensor:
        """Compute g_i(o_i) ``(members, rows, width)`` from observations ``(rows, agents, features)``, float32."""
        mine = obs if self.members == list(range(obs.shape[1])) else obs[:, self.members]
        seen = mine.gather(-1, self.inputs.expand(len(obs), -1, -1))
        if self.has_padding:
            # Not a product: the padding reads some feature, and a hidden NaN would remain NaN.
            seen = seen.masked_fill_(self.absent, 0.0)
        return torch.baddbmm(self.aligner_bias, seen.transpose(0, 1), self.aligner_weight)

    def context(self, aligned: Tensor, time: int) -> Tensor:
        """Return the GRU's inputs for an episode's aligned observations, in their shape: here unchanged."""
        del time
        return aligned

    def recur(self, rows: Tensor, sizes: Sequence[int], hidden: Tensor | None) -> Tensor:
        """Run the GRU along packed rows; see `grouped_gru`.

        Args:
            rows: ``(members, rows, width)`` float32, time first.
            sizes: rows of each step.
            hidden: ``(members, sizes[0], width)``, or None for the start of an episode.

        Returns:
            Its states, in the rows' shape.
        """
        sets = self.set_of
        from_input = torch.baddbmm(self.bias_ih[sets], rows, self.weight_ih[sets])
        start = rows.new_zeros(len(self.members), sizes[0], self.width) if hidden is None else hidden
        return grouped_gru(from_input, self.weight_hh[sets], self.bias_hh[sets], start, sizes)

    def decide(self, embedding: Tensor) -> Tensor:
        """Compute logits ``(members, rows, actions)`` from embeddings ``(members, rows, width)``."""
        return torch.baddbmm(self.head_bias[self.set_of], embedding, self.head_weight[self.set_of])

    @torch.no_grad()
    def extract(self, row: int) -> nn.Module:
        """Copy one member's network into a network of its own."""
        network = AgentStep(self.input_sizes[row], self.width, self.head_weight.shape[-1])
        self.copy_body(network, row)
        return network

    @torch.no_grad()
    def copy_body(self, network: Any, row: int) -> None:
        """Copy one member's aligner, GRU and head into ``fc1``, ``rnn`` and ``fc2`` of a network."""
        chosen, size = int(self.set_of[row]), self.input_sizes[row]
        assert isinstance(network.rnn, nn.GRUCell), "students are recurrent"
        network.fc1.weight.copy_(self.aligner_weight[row, :size].T)
        network.fc1.bias.copy_(self.aligner_bias[row, 0])
        network.rnn.weight_ih.copy_(self.weight_ih[chosen].T)
        network.rnn.weight_hh.copy_(self.weight_hh[chosen].T)
        network.rnn.bias_ih.copy_(self.bias_ih[chosen, 0])
        network.rnn.bias_hh.copy_(self.bias_hh[chosen, 0])
        network.fc2.weight.copy_(self.head_weight[chosen].T)
        network.fc2.bias.copy_(self.head_bias[chosen, 0])


class HeteroStudent(nn.Module):
    """The policies of all agents, each with its own inputs and width.

    Attributes:
        widths: hidden units of each agent.
        max_width: the widest agent's; narrower embeddings are padded with zeros up to it.
        state_size: numbers that an agent carries from step to step, the largest agent's.
    """

    def __init__(
        self, widths: Sequence[int], visible: Sequence[Sequence[int]], n_actions: int, sharing: str = "none"
    ) -> None:
        """Build the networks.

        Args:
            widths: hidden units of each agent.
            visible: for each agent the indices of the features it takes as inputs.
            n_actions: size of the action space.
            sharing: the agents that share the GRU and the head: ``none``; ``group``: of equal width and with the same
                visible features; ``all``: of equal width. Aligners are never shared.

        Raises:
            UserError: an unknown sharing.
        """
        super().__init__()
        check_sharing(sharing)
        self.widths, self.visible = tuple(widths), [tuple(indices) for indices in visible]
        self.n_actions, self.n_agents, self.max_width = n_actions, len(widths), max(widths)
        self.groups: list[WidthGroup] = []
        for width in sorted(set(widths)):
            members = [i for i, own in enumerate(widths) if own == width]
            keys = [{"none": i, "group": self.visible[i], "all": 0}[sharing] for i in members]
            order = list(dict.fromkeys(keys))
            sets = [order.index(key) for key in keys]
            group = self.make_group(width, members, [self.visible[i] for i in members], sets)
            self.groups.append(group)
            self.add_module(f"width_{width}", group)
        self.state_size = max(group.state_size for group in self.groups)
        members = [i for group in self.groups for i in group.members]
        self._agent_order = [members.index(i) for i in range(self.n_agents)]

    def make_group(
        self, width: int, members: Sequence[int], visible: Sequence[Sequence[int]], sets: Sequence[int]
    ) -> WidthGroup:
        """Build the networks of the agents of one width; arguments as for `WidthGroup`."""
        return WidthGroup(width, members, visible, sets, self.n_actions)

    def unroll(self, obs: Tensor, radio: Radio | None = None) -> tuple[Tensor, Tensor]:
        """Run every agent along whole episodes, from their start.

        Args:
            obs: ``(batch, time, agents, features)``, hidden features zero; float32.
            radio: of these steps, ``(batch, time, ...)``; read by students that talk. None: everything arrives.

        Returns:
            Logits ``(batch, time, agents, actions)`` and embeddings ``(batch, time, agents, max_width)``.
        """
        del radio
        logits, embeddings = [], []
        for group in self.groups:
            group_logits, states = group(obs, None)
            logits.append(group_logits)
            embeddings.append(widened(states, self.max_width))
        return self._by_agent(logits).permute(1, 2, 0, 3), self._by_agent(embeddings).permute(1, 2, 0, 3)

    def unroll_packed(self, obs: Tensor, length: Tensor, radio: Radio | None = None) -> tuple[Tensor, Tensor]:
        """Run every agent along whole episodes of different lengths, from their start.

        Args:
            obs: ``(steps, agents, features)`` float32, one episode after the other. Features hidden by a fixed mask are
                not read; features hidden by a drawn mask are zero.
            length: steps of each episode, int64 ``(episodes,)``.
            radio: of these steps, ``(steps, ...)``, as for `unroll`.

        Returns:
            Logits ``(steps, agents, actions)`` and embeddings ``(steps, agents, max_width)``.
        """
        del radio
        packing = pack(length)
        logits, embeddings = [], []
        for group in self.groups:
            group_logits, states = group.forward_packed(obs, packing)
            logits.append(group_logits)
            embeddings.append(widened(states, self.max_width))
        return self._by_agent(logits).transpose(0, 1), self._by_agent(embeddings).transpose(0, 1)

    def advance(self, obs: Tensor, state: Tensor, radio: Radio | None = None) -> tuple[Tensor, Tensor]:
        """Run every agent for one step, as it plays.

        Args:
            obs: ``(batch, 1, agents, features)``, hidden features zero; float32.
            state: ``(batch, agents, state_size)`` float32, zeros at the start of an episode.
            radio: of this step, ``(batch, ...)``, as for `unroll`.

        Returns:
            Logits ``(batch, agents, actions)`` and the next state.
        """
        del radio
        logits, states = [], []
        for group in self.groups:
            own = state[:, group.members, : group.state_size].transpose(0, 1).contiguous()
            group_logits, following = group.step(obs, own)
            logits.append(group_logits)
            states.append(widened(following, self.state_size))
        return self._by_agent(logits).transpose(0, 1), self._by_agent(states).transpose(0, 1)

    def _by_agent(self, parts: Sequence[Tensor]) -> Tensor:
        """Join the groups' results, members first, in the order of the agents."""
        return parts[0] if len(parts) == 1 else torch.cat(list(parts))[self._agent_order]

    def agent_network(self, agent: int) -> nn.Module:
        """Copy one agent's network as its board runs it: the parameters it needs and no others.

        Raises:
            IndexError: there is no such agent.
        """
        for group in self.groups:
            if agent in group.members:
                return group.extract(group.members.index(agent))
        raise IndexError(f"there is no agent {agent}: agents are 0 to {self.n_agents - 1}")


@dataclass(frozen=True)
class Packing:
    """An order of the steps of episodes: by time, and of each time the longest episode's first.

    Attributes:
        length: steps of each episode, int64 ``(episodes,)``.
        order: where each step of this order lies one episode after the other, int64 ``(steps,)``.
        place: its inverse, int64 ``(steps,)``.
        sizes: steps of each time.
    """

    length: Tensor
    order: Tensor
    place: Tensor
    sizes: list[int]


def pack(length: Tensor) -> Packing:
    """Order the steps of episodes that lie one after the other; ``length`` is int64 ``(episodes,)``."""
    longest_first = length.argsort(descending=True, stable=True)
    rank = torch.empty_like(length).index_copy_(0, longest_first, torch.arange(len(length), device=length.device))
    step = _step(length)
    order = (step * len(length) + rank.repeat_interleave(length)).argsort()
    place = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order), device=length.device))
    return Packing(length, order, place, step.bincount().tolist())


def places(length: Tensor) -> Tensor:
    """Compute where the steps of packed episodes lie in ``time * batch`` padded ones, time first; int64 ``(steps,)``.

    Args:
        length: steps of each episode, int64 ``(episodes,)``.
    """
    batch = len(length)
    return _step(length) * batch + torch.arange(batch, device=length.device).repeat_interleave(length)


def _step(length: Tensor) -> Tensor:
    """Number the steps of each of some episodes from 0, one episode after the other; int64 ``(steps,)``."""
    begins = (length.cumsum(0) - length).repeat_interleave(length)
    return torch.arange(len(begins), device=length.device) - begins


def widened(values: Tensor, size: int) -> Tensor:
    """Pad the last axis with zeros up to ``size``."""
    missing = size - values.shape[-1]
    return nn.functional.pad(values, (0, missing)) if missing else values
