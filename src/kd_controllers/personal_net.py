"""Students that estimate what the whole situation means for them, after PTDE (arXiv 2210.08872).

    phi_i = GRU(relu(g_i(o_i)), phi_i),   z^_i = tanh(W_2 relu(W_1 phi_i)),   logits_i = head([phi_i, z^_i])

z^_i is the agent's own estimate of its personalised global information z_i = tanh(W(phi_i) e(s) + b(phi_i)). Only
training knows z_i: a hyper-network computes W and b from phi_i, and e(s) is an embedding of the state.
docs/algorithm/comparators/ptde.md separates PTDE's definitions from our reading of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kd_controllers.student_net import HeteroStudent, WidthGroup
from kd_core.costs.flops import AgentStep


class PersonalStep(AgentStep):
    """One agent's network for one step, as its board runs it.

    Args:
        d_in: number of inputs.
        width: hidden width, of the GRU and of the personalised information.
        n_actions: number of actions.
    """

    def __init__(self, d_in: int, width: int, n_actions: int) -> None:
        super().__init__(d_in, width, n_actions)
        self.guess1 = nn.Linear(width, width)
        self.guess2 = nn.Linear(width, width)
        self.fc2 = nn.Linear(2 * width, n_actions)

    def forward(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Run one step; shapes as for `AgentStep`."""
        state = self.rnn(self.relu(self.fc1(inputs)), hidden)
        personal = torch.tanh(self.guess2(self.relu(self.guess1(state))))
        return self.fc2(torch.cat([state, personal], dim=-1)), state


class PersonalGroup(WidthGroup):
    """All agents of one width; see `WidthGroup`. The estimate z^ belongs to the parameter set, like the GRU."""

    def __init__(
        self,
        width: int,
        members: Sequence[int],
        visible: Sequence[Sequence[int]],
        sets: Sequence[int],
        n_actions: int,
    ) -> None:
        """Build the group; arguments as for `WidthGroup`."""
        super().__init__(width, members, visible, sets, n_actions)
        count, bound = max(sets) + 1, 1.0 / math.sqrt(width)
        self.head_weight = nn.Parameter(torch.empty(count, 2 * width, n_actions).uniform_(-bound, bound))
        self.guess1_weight = nn.Parameter(torch.empty(count, width, width).uniform_(-bound, bound))
        self.guess1_bias = nn.Parameter(torch.empty(count, 1, width).uniform_(-bound, bound))
        self.guess2_weight = nn.Parameter(torch.empty(count, width, width).uniform_(-bound, bound))
        self.guess2_bias = nn.Parameter(torch.empty(count, 1, width).uniform_(-bound, bound))

    def guess(self, embedding: Tensor) -> Tensor:
        """Compute z^ ``(members, rows, width)`` from embeddings of that shape."""
        sets = self.set_of
        hidden = torch.relu(torch.baddbmm(self.guess1_bias[sets], embedding, self.guess1_weight[sets]))
        return torch.tanh(torch.baddbmm(self.guess2_bias[sets], hidden, self.guess2_weight[sets]))

    def decide(self, embedding: Tensor) -> Tensor:
        """Compute logits ``(members, rows, actions)`` with the agents' own estimates z^."""
        return self.decide_with(embedding, self.guess(embedding))

    def decide_with(self, embedding: Tensor, personal: Tensor) -> Tensor:
        """Compute logits ``(members, rows, actions)`` given z or z^ ``(members, rows, width)``."""
        return super().decide(torch.cat([embedding, personal], dim=-1))

    @torch.no_grad()
    def extract(self, row: int) -> PersonalStep:
        """Copy one member's network into a network of its own."""
        chosen = int(self.set_of[row])
        network = PersonalStep(self.input_sizes[row], self.width, self.head_weight.shape[-1])
        self.copy_body(network, row)
        for name in ("guess1", "guess2"):
            layer = getattr(network, name)
            layer.weight.copy_(getattr(self, f"{name}_weight")[chosen].T)
            layer.bias.copy_(getattr(self, f"{name}_bias")[chosen, 0])
        return network


class PersonalStudent(HeteroStudent):
    """The policies of all agents, each a `PersonalStep`."""

    def make_group(
        self, width: int, members: Sequence[int], visible: Sequence[Sequence[int]], sets: Sequence[int]
    ) -> WidthGroup:
        """Build the networks of the agents of one width; arguments as for `HeteroStudent.make_group`."""
        return PersonalGroup(width, members, visible, sets, self.n_actions)

    def guess(self, embedding: Tensor) -> Tensor:
        """Compute the agents' own z^ from their embeddings, both ``(steps, agents, max_width)``, padded with zeros."""
        found = self._by_group(lambda group, own: group.guess(own), embedding)
        return torch.stack([nn.functional.pad(x, (0, self.max_width - x.shape[-1])) for x in found], dim=1)

    def decide_with(self, embedding: Tensor, personal: Tensor) -> Tensor:
        """Compute the logits ``(steps, agents, actions)`` that the agents would have if they knew z.

        Args:
            embedding: ``(steps, agents, max_width)`` float32.
            personal: ``(steps, agents, max_width)`` float32; an agent reads the first ones, as many as its width.
        """
        return torch.stack(self._by_group(PersonalGroup.decide_with, embedding, personal), dim=1)

    def _by_group(self, function: Callable[..., Tensor], *padded: Tensor) -> list[Tensor]:
        """Apply ``function(group, its members' rows of each argument)``; return ``(steps, out)`` for each agent."""
        found: dict[int, Tensor] = {}
        for group in self.groups:
            rows = [x[:, group.members, : group.width].transpose(0, 1) for x in padded]
            found |= zip(group.members, function(group, *rows), strict=True)
        return [found[agent] for agent in range(self.n_agents)]
