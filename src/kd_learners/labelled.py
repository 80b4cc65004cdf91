"""Episodes with everything that Stage 2 learns from: the teacher's outputs at every step, and its advantages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from kd_controllers.messages import Radio
from kd_learners.batches import Episodes
from kd_learners.frozen_teacher import FrozenTeacher
from kd_learners.losses import acting_mask, pair_mask, pairwise_cosines, role_log_distribution


@dataclass(frozen=True)
class LabelledSteps:
    """The steps of whole episodes, one episode after the other, without padding; ``pairs`` counts pairs of agents.

    Steps after an episode's last decision are left out, since they teach nothing.

    Attributes:
        length: steps of each episode, at least 1, int64 ``(episodes,)``.
        obs: ``(steps, agents, features)`` float32, the inputs of the students' networks.
        avail: ``(steps, agents, actions)``, 1 where available.
        actions: ``(steps, agents)`` int64, the actions taken.
        behaviour_log_prob: ``(steps, agents)``, of the policy that took them.
        teacher_logits: ``(steps, agents, actions)``.
        teacher_cosines: ``(steps, pairs)``, cosines of the teacher's embeddings (Eq. 9).
        teacher_log_roles: ``(steps, agents, roles)`` (Eq. 11).
        advantage: ``(steps, agents)``, A^GAE_T (Eq. 2), not standardised.
        acting: ``(steps, agents)``, 1 where a step was taken and the agent had a choice.
        teacher_embedding: ``(steps, agents, hidden_dim)``, or None where no term reads it.
        state: ``(steps, state_size)``, or None where no term reads it.
        speaks: ``(steps, agents)``, 1 where an agent sent a message; None where the students are silent.
        delivered: ``(steps, hearers, speakers)``, 0 where a message was lost; None where none was.
        labelled_by: ``(steps,)`` int64, the teacher whose labels a step has; None where there is one teacher.
    """

    length: Tensor
    obs: Tensor
    avail: Tensor
    actions: Tensor
    behaviour_log_prob: Tensor
    teacher_logits: Tensor
    teacher_cosines: Tensor
    teacher_log_roles: Tensor
    advantage: Tensor
    acting: Tensor
    teacher_embedding: Tensor | None = None
    state: Tensor | None = None
    speaks: Tensor | None = None
    delivered: Tensor | None = None
    labelled_by: Tensor | None = None

    def __len__(self) -> int:
        return len(self.length)

    @property
    def acting_pairs(self) -> Tensor:
        """Pairs of agents that both act, ``(steps, pairs)``."""
        return pair_mask(self.acting)

    @property
    def radio(self) -> Radio | None:
        """The messages of these steps; None where the students are silent."""
        return None if self.speaks is None else Radio(self.speaks, self.delivered)

    @staticmethod
    def of(acting: Tensor, **padded: Tensor | None) -> LabelledSteps:
        """Copy the steps of padded episodes.

        Args:
            acting: ``(batch, time, agents)``.
            padded: every other tensor, ``(batch, time, ...)``, or None.
        """
        length, chosen = until_last_decision(acting)
        every = {"acting": acting, **padded}
        return LabelledSteps(length=length, **{name: x if x is None else x[chosen] for name, x in every.items()})  # type: ignore[arg-type]

    def episodes(self, index: Tensor) -> LabelledSteps:
        """Return the episodes at these positions, int64 ``(episodes,)``."""
        length = self.length[index]
        before = (self.length.cumsum(0)[index] - length.cumsum(0)).repeat_interleave(length)
        steps = torch.arange(len(before), device=before.device) + before
        return replace(self.each(lambda name, x: x.index_select(0, steps)), length=length)

    def each(self, change: Callable[[str, Tensor], Tensor]) -> LabelledSteps:
        """Replace every tensor of steps that is present by ``change(its name, it)``, in a copy."""
        present = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "length"}
        return replace(self, **{name: change(name, x) for name, x in present.items() if x is not None})

    def to(self, device: torch.device | str) -> LabelledSteps:
        """Move every tensor, in a copy."""
        return replace(self.each(lambda _, x: x.to(device)), length=self.length.to(device))

    @staticmethod
    def join(parts: Sequence[LabelledSteps]) -> LabelledSteps:
        """Join the episodes of several parts, in their order."""
        if len(parts) == 1:
            return parts[0]
        joined = parts[0].each(lambda name, _: torch.cat([getattr(part, name) for part in parts]))
        return replace(joined, length=torch.cat([part.length for part in parts]))


def until_last_decision(acting: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Find the steps of padded episodes up to each episode's last decision.

    Args:
        acting: ``(batch, time, agents)``, 1 where an agent had a choice.

    Returns:
        The number of such steps of each episode, at least 1, int64 ``(batch,)``. And the index that takes these steps,
        episode after episode, out of ``(batch, time, ...)``.
    """
    length = until_last((acting > 0).any(dim=-1), dim=1).clamp(min=1)
    return length, (torch.arange(acting.shape[1], device=acting.device) < length.unsqueeze(1)).nonzero(as_tuple=True)


def until_last(marked: Tensor, dim: int) -> Tensor:
    """Count the entries up to the last that is marked along a dimension of a boolean tensor; 0 where none is."""
    steps = torch.arange(1, marked.shape[dim] + 1, device=marked.device).view(-1, *[1] * (marked.ndim - dim - 1))
    return (marked * steps).amax(dim=dim)


@dataclass(frozen=True)
class Labeller:
    """Turns episodes, whatever policy played them, into :class:`LabelledSteps`.

    Attributes:
        teacher: the frozen teacher.
        teacher_roles: U_T, ``(roles, hidden_dim)``.
        wanted: those of ``teacher_embedding`` and ``state`` that some term reads; they are large.
    """

    teacher: FrozenTeacher
    teacher_roles: Tensor
    gamma: float
    gae_lambda: float
    temperature: float
    wanted: frozenset[str] = frozenset()

    def relations(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the cosines of Eq. 9 and the log-roles of Eq. 11 from teacher embeddings.

        Cosines are ``(batch, time, pairs)``, log-roles ``(batch, time, agents, roles)``.
        """
        roles = self.teacher_roles.to(embedding.device)
        return pairwise_cosines(embedding), role_log_distribution(embedding, roles, self.temperature)

    @torch.no_grad()
    def __call__(
        self, episodes: Episodes, behaviour_log_prob: Tensor, seen: Tensor, radio: Radio | None = None
    ) -> LabelledSteps:
        """Label episodes.

        Args:
            episodes: as played, unmasked.
            behaviour_log_prob: ``(batch, time, agents)`` float32, of the policy that played.
            seen: ``(batch, time, agents, features)`` float32, the inputs of the students' networks.
            radio: the messages as they were sent and lost, ``(batch, time, ...)``; None where the students are silent.
        """
        every = vars(episodes)
        steps = {name: every[name][:, :-1] for name in ("obs", "state")} | {"actions": episodes.actions}
        avail = episodes.avail_actions[:, :-1]
        acting = acting_mask(episodes.filled.squeeze(-1), avail)
        # Nobody learns from what an agent would do that decides nothing any more, being dead.
        logits, embedding = self.teacher.label(steps, until_last(acting > 0, dim=1).clamp(min=1))
        cosines, log_roles = self.relations(embedding)
        return LabelledSteps.of(
            acting,
            obs=seen,
            avail=avail.to(torch.uint8),
            actions=episodes.actions,
            behaviour_log_prob=behaviour_log_prob,
            teacher_logits=logits,
            teacher_cosines=cosines,
            teacher_log_roles=log_roles,
            advantage=self.teacher.advantages(episodes, self.gamma, self.gae_lambda),
            teacher_embedding=embedding if "teacher_embedding" in self.wanted else None,
            state=steps["state"] if "state" in self.wanted else None,
            speaks=None if radio is None else radio.speaks,
            delivered=None if radio is None else radio.delivered,
        )


class RecentEpisodes:
    """The last episodes that the student played, labelled; ``distill_on: student`` and ``mixed`` sample from it."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._blocks: list[LabelledSteps] = []

    def __len__(self) -> int:
        return sum(len(block) for block in self._blocks)

    def add(self, block: LabelledSteps) -> None:
        """Append a block, and drop the oldest blocks beyond the capacity."""
        self._blocks.append(block)
        while len(self) - len(self._blocks[0]) >= self.capacity:
            self._blocks.pop(0)

    def sample(self, count: int) -> LabelledSteps:
        """Sample ``count`` episodes with replacement."""
        sizes = torch.tensor([len(block) for block in self._blocks])
        ends = sizes.cumsum(0)
        drawn = torch.randint(int(ends[-1]), (count,)).sort().values
        owner = torch.searchsorted(ends, drawn, right=True)
        parts = [
            self._blocks[block].episodes(drawn[owner == block] - (ends[block] - sizes[block]))
            for block in owner.unique().tolist()
        ]
        return LabelledSteps.join(parts)
