"""The students' networks: for each agent an aligner g_i, a GRU and a policy head, agents of equal width in one batch.

    o^_i = relu(g_i(o_S,i)),   phi_i = GRU(o^_i, phi_i),   logits_i = head(phi_i)

g_i is the linear map from the d_S,i features that agent i sees to its width (reading note 9). It takes the place of the
student's first layer: two linear maps in a row would be one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_marl.errors import UserError, nearest
from kd_marl.metrics.flops import AgentStep

SHARING = ("none", "group", "all")


class WidthGroup(nn.Module):
    """All agents of one width, computed in one batched call.

    Parameters are stacked along a leading axis: ``aligner`` per agent, padded with zeros to the widest input; the GRU
    and the head per parameter set. ``members[k]`` is the index of the k-th agent and ``set_of[k]`` its parameter set.
    """

    inputs: Tensor
    present: Tensor
    set_of: Tensor

    def __init__(self, width: int, members: Sequence[int], visible: Sequence[Sequence[int]], sets: Sequence[int]) -> None:
        """Build the group.

        Args:
            width: hidden units w.
            members: indices of the agents.
            visible: for each member the indices of its features in the observation.
            sets: for each member its parameter set, numbered from 0.
        """
        super().__init__()
        self.width, self.members = width, list(members)
        self.input_sizes = [len(indices) for indices in visible]
        widest, count = max(self.input_sizes), max(sets) + 1
        padded = torch.zeros(len(visible), widest, dtype=torch.long)
        present = torch.zeros(len(visible), widest)
        for row, indices in enumerate(visible):
            padded[row, : len(indices)] = torch.tensor(indices)
            present[row, : len(indices)] = 1.0
        self.register_buffer("inputs", padded, persistent=False)
        self.register_buffer("present", present, persistent=False)
        self.register_buffer("set_of", torch.tensor(sets), persistent=False)
        self.aligner_weight = nn.Parameter(torch.zeros(len(visible), widest, width))
        self.aligner_bias = nn.Parameter(torch.zeros(len(visible), 1, width))
        self.weight_ih = nn.Parameter(torch.empty(count, width, 3 * width))
        self.weight_hh = nn.Parameter(torch.empty(count, width, 3 * width))
        self.bias_ih = nn.Parameter(torch.empty(count, 1, 3 * width))
        self.bias_hh = nn.Parameter(torch.empty(count, 1, 3 * width))
        self._reset()

    def _reset(self) -> None:
        """PyTorch's own initialisation of ``Linear`` and ``GRUCell``: uniform within 1 / sqrt(inputs)."""
        with torch.no_grad():
            for row, size in enumerate(self.input_sizes):
                bound = 1.0 / math.sqrt(size)
                self.aligner_weight[row, :size].uniform_(-bound, bound)
                self.aligner_bias[row].uniform_(-bound, bound)
            for parameter in (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh):
                parameter.uniform_(-1.0 / math.sqrt(self.width), 1.0 / math.sqrt(self.width))

    def forward(self, obs: Tensor, hidden: Tensor | None) -> Tensor:
        """Embeddings of whole sequences.

        Args:
            obs: ``(batch, time, agents, features)`` of all agents, float32.
            hidden: ``(members, batch, width)``, or None for the start of an episode.

        Returns:
            ``(members, batch, time, width)``.
        """
        batch, time = obs.shape[:2]
        mine = obs[:, :, self.members]
        seen = mine.gather(-1, self.inputs.expand(batch, time, -1, -1)) * self.present
        rows = seen.permute(2, 0, 1, 3).reshape(len(self.members), batch * time, -1)
        aligned = torch.relu(torch.baddbmm(self.aligner_bias, rows, self.aligner_weight))
        sets = self.set_of
        from_input = torch.baddbmm(self.bias_ih[sets], aligned, self.weight_ih[sets])
        from_input = from_input.view(len(self.members), batch, time, 3 * self.width)
        weight_hh, bias_hh = self.weight_hh[sets], self.bias_hh[sets]
        state = rows.new_zeros(len(self.members), batch, self.width) if hidden is None else hidden
        states = []
        # The recurrence: each step needs the one before.
        for t in range(time):
            from_state = torch.baddbmm(bias_hh, state, weight_hh)
            gates_input = from_input[:, :, t]
            reset_update = torch.sigmoid(gates_input[..., : 2 * self.width] + from_state[..., : 2 * self.width])
            reset, update = reset_update.chunk(2, dim=-1)
            new = torch.tanh(torch.addcmul(gates_input[..., 2 * self.width :], reset, from_state[..., 2 * self.width :]))
            state = torch.lerp(new, state, update)
            states.append(state)
        return torch.stack(states, dim=2)


class HeteroStudent(nn.Module):
    """The policies of all agents, each with its own inputs and width.

    Attributes:
        widths: hidden units of each agent.
        max_width: the widest agent's; narrower embeddings are padded with zeros up to it.
    """

    def __init__(
        self, widths: Sequence[int], visible: Sequence[Sequence[int]], n_actions: int, sharing: str = "none"
    ) -> None:
        """Build the networks.

        Args:
            widths: hidden units of each agent.
            visible: for each agent the indices of the features it takes as inputs.
            n_actions: size of the action space.
            sharing: which agents share the GRU and the head: ``none``; ``group``, those of equal width that see the
                same features; ``all``, those of equal width. Aligners are never shared.

        Raises:
            UserError: an unknown sharing.
        """
        super().__init__()
        if sharing not in SHARING:
            raise UserError(f"sharing is '{sharing}'; {nearest(sharing, SHARING)}")
        self.widths, self.visible = tuple(widths), [tuple(indices) for indices in visible]
        self.n_actions, self.n_agents, self.max_width = n_actions, len(widths), max(widths)
        self.groups = nn.ModuleList()
        self.head_weight, self.head_bias = nn.ParameterList(), nn.ParameterList()
        for width in sorted(set(widths)):
            members = [i for i, own in enumerate(widths) if own == width]
            keys = [{"none": i, "group": self.visible[i], "all": 0}[sharing] for i in members]
            order = list(dict.fromkeys(keys))
            sets = [order.index(key) for key in keys]
            self.groups.append(WidthGroup(width, members, [self.visible[i] for i in members], sets))
            bound = 1.0 / math.sqrt(width)
            self.head_weight.append(nn.Parameter(torch.empty(len(order), width, n_actions).uniform_(-bound, bound)))
            self.head_bias.append(nn.Parameter(torch.empty(len(order), 1, n_actions).uniform_(-bound, bound)))
        members = [i for group in self.groups for i in group.members]
        self._agent_order = [members.index(i) for i in range(self.n_agents)]

    def unroll(self, obs: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run every agent along whole sequences.

        Args:
            obs: ``(batch, time, agents, features)``, hidden features zero; float32.
            hidden: ``(batch, agents, max_width)``, or None for the start of an episode.

        Returns:
            Logits ``(batch, time, agents, actions)`` and embeddings ``(batch, time, agents, max_width)``.
        """
        batch, time = obs.shape[:2]
        logits, embeddings = [], []
        for group, weight, bias in zip(self.groups, self.head_weight, self.head_bias, strict=True):
            start = None
            if hidden is not None:
                start = hidden[:, group.members, : group.width].transpose(0, 1).contiguous()
            states = group(obs, start)
            rows = states.flatten(1, 2)
            out = torch.baddbmm(bias[group.set_of], rows, weight[group.set_of])
            logits.append(out.view(-1, batch, time, self.n_actions))
            embeddings.append(nn.functional.pad(states, (0, self.max_width - group.width)))
        order = self._agent_order
        return (
            torch.cat(logits)[order].permute(1, 2, 0, 3),
            torch.cat(embeddings)[order].permute(1, 2, 0, 3),
        )

    def agent_network(self, agent: int) -> AgentStep:
        """A copy of one agent's network as its board runs it: the parameters it needs and no others."""
        for group, weight, bias in zip(self.groups, self.head_weight, self.head_bias, strict=True):
            if agent in group.members:
                row = group.members.index(agent)
                return _extract(group, weight, bias, row, int(group.set_of[row]), self.n_actions)
        raise IndexError(f"there is no agent {agent}: agents are 0 to {self.n_agents - 1}")


@torch.no_grad()
def _extract(group: WidthGroup, weight: Tensor, bias: Tensor, row: int, chosen: int, n_actions: int) -> AgentStep:
    size = group.input_sizes[row]
    network = AgentStep(size, group.width, n_actions)
    assert isinstance(network.rnn, nn.GRUCell), "students are recurrent"
    network.fc1.weight.copy_(group.aligner_weight[row, :size].T)
    network.fc1.bias.copy_(group.aligner_bias[row, 0])
    network.rnn.weight_ih.copy_(group.weight_ih[chosen].T)
    network.rnn.weight_hh.copy_(group.weight_hh[chosen].T)
    network.rnn.bias_ih.copy_(group.bias_ih[chosen, 0])
    network.rnn.bias_hh.copy_(group.bias_hh[chosen, 0])
    network.fc2.weight.copy_(weight[chosen].T)
    network.fc2.bias.copy_(bias[chosen, 0])
    return network
