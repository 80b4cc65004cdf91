"""The teacher's controller, on full observations (decision 11).

Ours has one recurrent network for all agents. A teacher of EPyMARL may have one for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from kd_controllers.policy_mac import PolicyMAC
from kd_core.errors import UserError
from kd_core.host import get_host

TEACHER_INPUTS = ("obs", "state", "obs+state")
# Groups of episodes of similar length: more groups compute less padding, but in smaller products.
RAGGED_GROUPS = 6


@dataclass(frozen=True)
class TeacherSizes:
    """Sizes and options that fix the shape of a teacher's policy network.

    Attributes:
        agent: ``rnn``, one network for all agents, or ``rnn_ns``, one for each.

    Raises:
        UserError: an unknown ``teacher_input``.
    """

    n_agents: int
    n_actions: int
    obs_size: int
    state_size: int
    hidden_dim: int
    use_rnn: bool
    obs_agent_id: bool
    obs_last_action: bool
    teacher_input: str
    agent: str = "rnn"

    def __post_init__(self) -> None:
        if self.teacher_input not in TEACHER_INPUTS:
            raise UserError(f"teacher_input is '{self.teacher_input}': choose one of {', '.join(TEACHER_INPUTS)}")

    @property
    def input_size(self) -> int:
        """Width of one agent's input: observation and/or state, previous action, agent identity."""
        size = self.obs_size if "obs" in self.teacher_input else 0
        size += self.state_size if "state" in self.teacher_input else 0
        size += self.n_actions if self.obs_last_action else 0
        return size + (self.n_agents if self.obs_agent_id else 0)

    def build(self) -> nn.Module:
        """Build a network with random weights: the host's agent, so ``agent.th`` has EPyMARL's names."""
        sizes = {"hidden_dim": self.hidden_dim, "n_actions": self.n_actions, "n_agents": self.n_agents}
        return get_host().agents[self.agent](self.input_size, SimpleNamespace(**sizes, use_rnn=self.use_rnn))

    def inputs(self, steps: Mapping[str, Tensor], previous_actions: Tensor | None) -> Tensor:
        """Assemble the network's input.

        Args:
            steps: ``obs`` ``(batch, time, agents, obs_size)`` and, if used, ``state`` ``(batch, time, state_size)``.
            previous_actions: one-hot actions of the step before, ``(batch, time, agents, n_actions)``, zeros at the
                start of an episode; unused unless ``obs_last_action``.

        Returns:
            ``(batch, time, agents, input_size)`` float32, in EPyMARL's order.
        """
        obs = steps["obs"]
        batch, time = obs.shape[:2]
        parts = [obs] if "obs" in self.teacher_input else []
        if "state" in self.teacher_input:
            parts.append(steps["state"].unsqueeze(2).expand(-1, -1, self.n_agents, -1))
        if self.obs_last_action:
            assert previous_actions is not None, "this teacher reads the previous action"
            parts.append(previous_actions.float())
        if self.obs_agent_id:
            parts.append(torch.eye(self.n_agents, device=obs.device).expand(batch, time, -1, -1))
        return torch.cat(parts, dim=-1)


def unroll(agent: Any, inputs: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Run EPyMARL's ``rnn`` or ``rnn_ns`` agent along whole sequences, from ``hidden`` or from zeros.

    Args:
        agent: network with ``fc1``, ``rnn`` (``GRUCell`` or ``Linear``) and ``fc2``; or one with such networks as
            ``agents``, one for each.
        inputs: ``(batch, time, agents, input_size)`` float32.
        hidden: ``(batch, agents, hidden_dim)``, or None for the start of an episode.

    Returns:
        Logits ``(batch, time, agents, actions)`` and embeddings (the recurrent state after each step)
        ``(batch, time, agents, hidden_dim)``.
    """
    if hasattr(agent, "agents"):
        # Weights differ, so each network needs a call of its own.
        runs = [
            unroll(own, inputs[:, :, i : i + 1], None if hidden is None else hidden[:, i : i + 1])
            for i, own in enumerate(agent.agents)
        ]
        logits, states = (torch.cat(part, dim=2) for part in zip(*runs, strict=True))
        return logits, states
    batch, time, agents, _ = inputs.shape
    features = torch.relu(agent.fc1(inputs))
    if isinstance(agent.rnn, nn.GRUCell):
        cell = agent.rnn
        rows = features.transpose(1, 2).reshape(batch * agents, time, -1)
        start = rows.new_zeros(batch * agents, cell.hidden_size) if hidden is None else hidden.reshape(len(rows), -1)
        weights = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
        states, _ = torch.gru(rows, start.unsqueeze(0), weights, True, 1, 0.0, False, False, True)
        embedding = states.reshape(batch, agents, time, -1).transpose(1, 2)
    else:
        embedding = torch.relu(agent.rnn(features))
    return agent.fc2(embedding), embedding


def unroll_ragged(
    agent: Any, inputs: Tensor, length: Tensor, embedding_steps: slice = slice(None)
) -> tuple[Tensor, Tensor]:
    """Run :func:`unroll` from the start of episodes that differ in length, without most of their padding.

    Args:
        agent: as for :func:`unroll`.
        inputs: ``(batch, time, agents, input_size)`` float32.
        length: steps of each episode, int64 ``(batch,)``.
        embedding_steps: the steps whose embeddings are returned. All embeddings would be an update's largest tensor.

    Returns:
        As :func:`unroll`. After an episode's end they are zeros, or the network's outputs on the padding.
    """
    batch, time, agents, _ = inputs.shape
    outputs: list[Tensor] = []
    # Episodes of similar length together.
    groups = 1 if bool((length == time).all()) else min(RAGGED_GROUPS, batch)
    for rows in length.argsort().tensor_split(groups):
        until = max(1, int(length[rows].max()))
        logits, embedding = unroll(agent, inputs[rows, :until])
        parts = (logits, embedding[:, embedding_steps])
        if not outputs:
            times = (time, len(range(time)[embedding_steps]))
            outputs = [part.new_zeros(batch, t, agents, part.shape[-1]) for part, t in zip(parts, times, strict=True)]
        for whole, part in zip(outputs, parts, strict=True):
            whole[rows, : part.shape[1]] = part
    return outputs[0], outputs[1]


def unroll_packed(agent: Any, inputs: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Run :func:`unroll` from the start of sequences that differ in length, without any padding.

    Args:
        agent: as for :func:`unroll`.
        inputs: ``(batch, time, agents, input_size)`` float32.
        length: steps of each agent's sequence, int64 ``(batch, agents)``; at least one of them is not 0.

    Returns:
        As :func:`unroll`; zeros after a sequence's end.
    """
    if hasattr(agent, "agents"):
        # As in `unroll`; an agent may have no step at all.
        runs = [
            unroll_packed(own, inputs[:, :, i : i + 1], length[:, i : i + 1])
            if bool(length[:, i].any())
            else [inputs.new_zeros(*inputs.shape[:2], 1, size) for size in (own.fc2.out_features, own.fc2.in_features)]
            for i, own in enumerate(agent.agents)
        ]
        logits, states = (torch.cat(part, dim=2) for part in zip(*runs, strict=True))
        return logits, states
    time, agents = inputs.shape[1:3]
    lengths = length.flatten()
    longest_first = lengths.argsort(descending=True, stable=True)
    taken = torch.arange(time).unsqueeze(1) < lengths[longest_first].cpu()
    when, rank = taken.nonzero(as_tuple=True)
    sequence = longest_first[rank]
    where = (sequence // agents, when, sequence % agents)
    features = torch.relu(agent.fc1(inputs[where]))
    if isinstance(agent.rnn, nn.GRUCell):
        cell, sizes = agent.rnn, taken.sum(1)
        weights = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
        start = features.new_zeros(1, int(sizes[0]), cell.hidden_size)
        embedding, _ = torch.gru(features, sizes[sizes > 0], start, weights, True, 1, 0.0, False, False)
    else:
        embedding = torch.relu(agent.rnn(features))
    logits, embeddings = (
        part.new_zeros(*inputs.shape[:3], part.shape[-1]).index_put_(where, part)
        for part in (agent.fc2(embedding), embedding)
    )
    return logits, embeddings


class TeacherMAC(PolicyMAC):
    """Controller that acts with the teacher's network, in Stage 1, the export and the evaluation."""

    def __init__(self, scheme: Mapping[str, Any], groups: Any, args: Any, sizes: TeacherSizes | None = None) -> None:
        super().__init__(args)
        self.sizes = sizes or TeacherSizes(
            n_agents=args.n_agents,
            n_actions=args.n_actions,
            obs_size=scheme["obs"]["vshape"],
            state_size=scheme["state"]["vshape"],
            hidden_dim=args.hidden_dim,
            use_rnn=args.use_rnn,
            obs_agent_id=args.obs_agent_id,
            obs_last_action=args.obs_last_action,
            teacher_input=args.teacher_input,
        )
        self.agent = self.sizes.build()
        # Acts in bfloat16 if set: faster, and precise enough to gather experience.
        self.half_precision = False

    def initial_hidden(self, batch_size: int) -> Tensor:
        """Return zeros ``(batch, agents, hidden_dim)``, float32."""
        device = next(self.agent.parameters()).device
        return torch.zeros(batch_size, self.n_agents, self.sizes.hidden_dim, device=device)

    def step(self, ep_batch: Any, t: int, hidden: Tensor, bs: Any) -> tuple[Tensor, Tensor]:
        """Run one step of the episodes ``bs``; see :class:`PolicyMAC`."""
        steps = {"obs": ep_batch["obs"][:, t : t + 1][bs], "state": ep_batch["state"][:, t : t + 1][bs]}
        previous = None
        if self.sizes.obs_last_action:
            taken = ep_batch["actions_onehot"]
            previous = (taken[:, t - 1 : t] if t else torch.zeros_like(taken[:, :1]))[bs]
        with torch.autocast(hidden.device.type, dtype=torch.bfloat16, enabled=self.half_precision):
            logits, embedding = unroll(self.agent, self.sizes.inputs(steps, previous), hidden)
        return logits[:, 0].float(), embedding[:, 0].float()

    def episode_inputs(self, steps: Mapping[str, Tensor]) -> Tensor:
        """Assemble the network's input along whole episodes.

        Args:
            steps: ``obs`` ``(batch, time, agents, obs_size)``, ``state`` ``(batch, time, state_size)`` and, for a
                teacher that reads it, ``actions`` ``(batch, time, agents)``. Actions of the last step are not read and
                may be missing.

        Returns:
            ``(batch, time, agents, input_size)`` float32.
        """
        previous = None
        if self.sizes.obs_last_action:
            taken = nn.functional.one_hot(steps["actions"].long(), self.sizes.n_actions).float()
            taken = nn.functional.pad(taken, (0, 0, 0, 0, 1, 0))
            previous = taken[:, : steps["obs"].shape[1]]
        return self.sizes.inputs(steps, previous)

    def unroll_inputs(self, inputs: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute logits and embeddings from the inputs of :meth:`episode_inputs`; shapes as for `unroll`."""
        return unroll(self.agent, inputs, hidden)
