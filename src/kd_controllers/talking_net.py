"""Students that tell each other what they see: a few bits a step, heard some steps later.

    x_i = relu(g_i(o_i) + sum_j R_ij m_j(t - latency)),   h_i = GRU(x_i, h_i),   m_i = level(S_i h_i)

m is a row of numbers, each the nearest of 2^b even levels from -1 to 1 to the tanh of what is said.

R_ij belongs to the hearer, like its aligner. S_i belongs to the parameter set, like the GRU. Only bits pass between
agents, so agents of different widths talk alike: narrower ones are padded with zeros, which remain zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_controllers.messages import Messages, Radio
from kd_controllers.student_net import HeteroStudent, WidthGroup, places, widened
from kd_controllers.talking_gru import Weights, level, talking_gru
from kd_core.costs.flops import AgentStep, Hearing
from kd_onboard.messages import thresholds


class TalkingStep(AgentStep):
    """One agent's network for one step, as its board runs it.

    Args:
        d_in: number of inputs.
        width: hidden width.
        n_actions: number of actions.
        inbox: numbers that it hears a step.
        outbox: numbers that it sends a step.
        number_bits: of each number.
    """

    def __init__(self, d_in: int, width: int, n_actions: int, inbox: int, outbox: int, number_bits: int = 1) -> None:
        super().__init__(d_in, width, n_actions)
        self.number_bits = number_bits
        self.hear: nn.Linear | None = None
        if inbox:
            self.hear = Hearing(inbox, width) if number_bits == 1 else nn.Linear(inbox, width, bias=False)
        self.speak = nn.Linear(width, outbox, bias=False) if outbox else None

    def forward(  # type: ignore[override]
        self, inputs: Tensor, hidden: Tensor, inbox: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run one step.

        Args:
            inputs: ``(rows, d_in)``.
            hidden: ``(rows, width)``, the state before the step.
            inbox: ``(rows, inbox)`` from -1 to 1, 0 where a message is missing; None: nothing was heard.

        Returns:
            Logits ``(rows, n_actions)``, the state after the step, and the outbox ``(rows, outbox)`` from -1 to 1.
        """
        features = self.fc1(inputs)
        if self.hear is not None:
            heard = features.new_zeros(len(features), self.hear.in_features) if inbox is None else inbox
            features = features + self.hear(heard)
        state = self.rnn(self.relu(features), hidden)
        voice = state[:, :0] if self.speak is None else self.speak(state)
        return self.fc2(state), state, level(voice, _changes(self.number_bits))


class TalkingGroup(WidthGroup):
    """All agents of one width; see `WidthGroup`. ``hear_weight`` is per agent, ``speak_weight`` per parameter set."""

    def __init__(
        self,
        width: int,
        members: Sequence[int],
        visible: Sequence[Sequence[int]],
        sets: Sequence[int],
        n_actions: int,
        messages: Messages,
        n_agents: int,
    ) -> None:
        """Build the group.

        Args:
            width: as for `WidthGroup`.
            members: as for `WidthGroup`.
            visible: as for `WidthGroup`.
            sets: as for `WidthGroup`.
            n_actions: as for `WidthGroup`.
            messages: who hears whom, and how much.
            n_agents: size of the whole team.
        """
        super().__init__(width, members, visible, sets, n_actions)
        self.speakers = [messages.speakers(agent) for agent in members]
        self.outbox = [messages.exchanged(agent)[1] for agent in members]
        # Rows of absent links remain zeros: nothing is heard there, so they get no gradient.
        self.hear_weight = nn.Parameter(torch.zeros(len(members), n_agents, messages.numbers, width))
        self.speak_weight = nn.Parameter(torch.empty(max(sets) + 1, width, messages.numbers))
        self.number_bits = messages.number_bits
        with torch.no_grad():
            for row, speakers in enumerate(self.speakers):
                if speakers:
                    bound = 1.0 / math.sqrt(len(speakers) * messages.numbers)
                    drawn = torch.empty(len(speakers), messages.numbers, width).uniform_(-bound, bound)
                    self.hear_weight[row, speakers] = drawn
            self.speak_weight.uniform_(-1.0 / math.sqrt(width), 1.0 / math.sqrt(width))

    @torch.no_grad()
    def extract(self, row: int) -> TalkingStep:
        """Copy one member's network into a network of its own."""
        speakers, numbers = self.speakers[row], self.speak_weight.shape[-1]
        sizes = (self.input_sizes[row], self.width, self.head_weight.shape[-1])
        network = TalkingStep(*sizes, len(speakers) * numbers, self.outbox[row], self.number_bits)
        self.copy_body(network, row)
        if network.hear is not None:
            network.hear.weight.copy_(self.hear_weight[row, speakers].flatten(0, 1).T)
        if network.speak is not None:
            network.speak.weight.copy_(self.speak_weight[int(self.set_of[row])].T)
        return network


class TalkingStudent(HeteroStudent):
    """The policies of all agents, each a `TalkingStep`, unrolled jointly.

    An agent's state is its GRU's, and the messages of its own that have not been heard yet, the oldest first.
    """

    links: Tensor
    thresholds: Tensor | None

    def __init__(
        self,
        widths: Sequence[int],
        visible: Sequence[Sequence[int]],
        n_actions: int,
        sharing: str,
        messages: Messages,
    ) -> None:
        """Build the networks; ``messages`` says who hears whom, the other arguments are those of `HeteroStudent`.

        Raises:
            UserError: an unknown sharing.
        """
        self.messages = messages
        super().__init__(widths, visible, n_actions, sharing)
        self.state_size = self.max_width + messages.latency * messages.numbers
        self.register_buffer("thresholds", _changes(messages.number_bits), persistent=False)
        self.register_buffer("links", messages.matrix(self.n_agents), persistent=False)

    def make_group(
        self, width: int, members: Sequence[int], visible: Sequence[Sequence[int]], sets: Sequence[int]
    ) -> WidthGroup:
        """Build the networks of the agents of one width; arguments as for `HeteroStudent.make_group`."""
        return TalkingGroup(width, members, visible, sets, self.n_actions, self.messages, len(self.visible))

    def cut_off(self, agent: int) -> None:
        """Remove every link from and to an agent, whose radio fails."""
        self.links[agent] = 0.0
        self.links[:, agent] = 0.0

    def unroll(self, obs: Tensor, radio: Radio | None = None) -> tuple[Tensor, Tensor]:
        """Run every agent along whole episodes, from their start; see `HeteroStudent.unroll`."""
        batch, time = obs.shape[:2]
        logits, embedding = self.unroll_packed(
            obs.flatten(0, 1), torch.full((batch,), time, device=obs.device), None if radio is None else _flat(radio)
        )
        return logits.unflatten(0, (batch, time)), embedding.unflatten(0, (batch, time))

    def unroll_packed(self, obs: Tensor, length: Tensor, radio: Radio | None = None) -> tuple[Tensor, Tensor]:
        """Run every agent along whole episodes of different lengths; see `HeteroStudent.unroll_packed`."""
        batch, time = len(length), int(length.max())
        place = places(length)

        def padded(x: Tensor) -> Tensor:
            """Convert ``(steps, ...)`` to ``(time, batch, ...)``."""
            rows = x.new_zeros(time * batch, *x.shape[1:]).index_copy(0, place, x)
            return rows.unflatten(0, (time, batch))

        aligned = padded(self._aligned(obs).transpose(0, 1)).transpose(1, 2).contiguous()
        radio = self._everyone(obs) if radio is None else radio
        start = aligned.new_zeros(self.n_agents, batch, self.max_width)
        sent = aligned.new_zeros(self.messages.latency, batch, self.n_agents, self.messages.numbers)
        delivered = None if radio.delivered is None else padded(radio.delivered.to(aligned.dtype))
        speaks = padded(radio.speaks.to(aligned.dtype))
        heard = self._heard(delivered, speaks)
        states, _ = talking_gru(aligned, self._weights(), start, sent, speaks, heard, self.thresholds)
        embedding = states.transpose(1, 2).flatten(0, 1).index_select(0, place)
        return self._decided(embedding), embedding

    def advance(self, obs: Tensor, state: Tensor, radio: Radio | None = None) -> tuple[Tensor, Tensor]:
        """Run every agent for one step, as it plays; see `HeteroStudent.advance`."""
        rows, latency, numbers = obs[:, 0], self.messages.latency, self.messages.numbers
        radio = self._everyone(rows) if radio is None else radio
        start = state[..., : self.max_width].transpose(0, 1).contiguous()
        sent = state[..., self.max_width :].unflatten(-1, (latency, numbers)).permute(2, 0, 1, 3)
        speaks = radio.speaks.to(start.dtype).unsqueeze(0)
        delivered = None if radio.delivered is None else radio.delivered.to(start.dtype).unsqueeze(0)
        heard = self._heard(delivered, speaks)
        aligned = self._aligned(rows).unsqueeze(0)
        states, said = talking_gru(aligned, self._weights(), start, sent, speaks, heard, self.thresholds)
        embedding = states[0].transpose(0, 1)
        underway = torch.cat([sent, said])[1:].permute(1, 2, 0, 3).flatten(2)
        return self._decided(embedding), torch.cat([embedding, underway], dim=-1)

    def _everyone(self, obs: Tensor) -> Radio:
        """Build the radio of steps ``(steps, agents, ...)`` at which every agent speaks and nothing is lost."""
        return Radio(obs.new_ones(obs.shape[:2]))

    def _heard(self, delivered: Tensor | None, speaks: Tensor) -> Tensor:
        """Compute who is reached by whom, ``(time, hearers, batch, speakers)``, from ``(time, batch, ...)``."""
        links = self.links.to(speaks.dtype)
        if delivered is None:
            return links.unsqueeze(1).expand(len(speaks), -1, speaks.shape[1], -1)
        return (delivered * links).transpose(1, 2)

    def _aligned(self, obs: Tensor) -> Tensor:
        """Compute g_i(o_i) of all agents, ``(agents, rows, max_width)``, from ``(rows, agents, features)``."""
        return self._by_agent([widened(group.project(obs), self.max_width) for group in self.groups])

    def _decided(self, embedding: Tensor) -> Tensor:
        """Compute logits ``(rows, agents, actions)`` from embeddings ``(rows, agents, max_width)``."""
        logits = []
        for group in self.groups:
            own = embedding if len(self.groups) == 1 else embedding[:, group.members, : group.width]
            logits.append(group.decide(own.transpose(0, 1)))
        return self._by_agent(logits).transpose(0, 1)

    def _weights(self) -> Weights:
        """Stack the weights of all agents, in their order."""
        parts = []
        for group in self.groups:
            assert isinstance(group, TalkingGroup), "made by make_group"
            sets, more = group.set_of, self.max_width - group.width
            hear = nn.functional.pad(group.hear_weight.flatten(1, 2), (0, more))
            speak = nn.functional.pad(group.speak_weight[sets], (0, 0, 0, more))
            body = (group.weight_ih, group.bias_ih, group.weight_hh, group.bias_hh)
            parts.append((hear, *(_wider_gates(x[sets], more) for x in body), speak))
        return Weights(*(self._by_agent(same) for same in zip(*parts, strict=True)))


def _changes(number_bits: int) -> Tensor | None:
    """Return the thresholds between the levels of a number; None of one bit."""
    return None if number_bits == 1 else torch.from_numpy(thresholds(number_bits))


def bits_of(voice: Tensor, number_bits: int) -> Tensor:
    """Compute the bits, 1 or -1, that tell what is said: ``(..., numbers * number_bits)`` of ``(..., numbers)``."""
    changes = torch.from_numpy(thresholds(number_bits)).to(voice)
    levels = torch.bucketize(voice.contiguous(), changes, right=True).unsqueeze(-1)
    bits = levels >> torch.arange(number_bits, device=voice.device) & 1
    return torch.where(bits.flatten(-2) > 0, 1.0, -1.0)


def _wider_gates(x: Tensor, more: int) -> Tensor:
    """Pad each of three gates, and the rows unless there is only one: ``(agents, rows, 3 width)``."""
    if not more:
        return x
    rows = 0 if x.shape[1] == 1 else more
    return nn.functional.pad(x.unflatten(-1, (3, -1)), (0, more, 0, 0, 0, rows)).flatten(2)


def _flat(radio: Radio) -> Radio:
    """Join batch and time of a radio's ``(batch, time, ...)``."""
    return Radio(radio.speaks.flatten(0, 1), None if radio.delivered is None else radio.delivered.flatten(0, 1))
