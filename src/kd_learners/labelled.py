"""Episodes with everything Stage 2 learns from: the teacher's opinion of every step, and its advantages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from kd_learners.batches import Episodes
from kd_learners.frozen_teacher import FrozenTeacher
from kd_learners.losses import acting_mask, pair_mask, pairwise_cosines, role_log_distribution


@dataclass(frozen=True)
class LabelledEpisodes:
    """Axes ``(batch, time, ...)``; ``pairs`` counts pairs of agents.

    Attributes:
        obs: ``(batch, time, agents, obs_size)`` float32, unmasked.
        avail: ``(batch, time, agents, actions)``, 1 where available.
        actions: ``(batch, time, agents)`` int64, those taken.
        behaviour_log_prob: ``(batch, time, agents)``, of the policy that took them.
        teacher_logits: ``(batch, time, agents, actions)``.
        teacher_cosines: ``(batch, time, pairs)``, cosines of the teacher's embeddings (Eq. 9).
        teacher_log_roles: ``(batch, time, agents, roles)`` (Eq. 11).
        advantage: ``(batch, time, agents)``, A^GAE_T (Eq. 2), not standardised.
        acting: ``(batch, time, agents)``, 1 where a step was taken and the agent had a choice.
        visible: ``(batch, agents, features)``, what the student may see in this episode.
        teacher_embedding: ``(batch, time, agents, hidden_dim)``, or None where no term reads it.
        state: ``(batch, time, state_size)``, or None where no term reads it.
    """

    obs: Tensor
    avail: Tensor
    actions: Tensor
    behaviour_log_prob: Tensor
    teacher_logits: Tensor
    teacher_cosines: Tensor
    teacher_log_roles: Tensor
    advantage: Tensor
    acting: Tensor
    visible: Tensor
    teacher_embedding: Tensor | None = None
    state: Tensor | None = None

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def acting_pairs(self) -> Tensor:
        """Pairs of agents that both act, ``(batch, time, pairs)``."""
        return pair_mask(self.acting)

    def rows(self, index: Tensor) -> LabelledEpisodes:
        """The episodes at these positions."""
        return self.each(lambda name, x: x[index])

    def each(self, change: Callable[[str, Tensor], Tensor]) -> LabelledEpisodes:
        """The same with every tensor that is there replaced by ``change(its name, it)``."""
        present = {item.name: getattr(self, item.name) for item in fields(self)}
        return replace(self, **{name: change(name, x) for name, x in present.items() if x is not None})

    @property
    def last_decision(self) -> Tensor:
        """Steps of each episode until nobody decides anything any more, at least 1; int64 ``(batch,)``."""
        steps = torch.arange(1, self.acting.shape[1] + 1)
        return ((self.acting > 0).any(dim=-1) * steps).amax(dim=1).clamp(min=1)

    def first(self, time: int) -> LabelledEpisodes:
        """The first ``time`` steps of every episode."""
        return self.each(lambda name, x: x if name == "visible" else x[:, :time])

    def trimmed(self) -> LabelledEpisodes:
        """The same without the steps at the end at which nobody decides anything."""
        return self.first(int(self.last_decision.max()))

    def at(self, steps: Tensor) -> LabelledEpisodes:
        """Some steps alone, as one long episode: what a loss per step needs, without padding.

        Args:
            steps: bool ``(batch, time)``.
        """
        return self.each(lambda name, x: x if name == "visible" else x[steps].unsqueeze(0))

    @staticmethod
    def join(parts: Sequence[LabelledEpisodes]) -> LabelledEpisodes:
        """One block from several, each padded with zero steps to the longest."""
        time = max(part.actions.shape[1] for part in parts)
        return parts[0].each(lambda name, _: torch.cat([_padded(getattr(part, name), name, time) for part in parts]))


@dataclass(frozen=True)
class Labeller:
    """Turns episodes that anybody played into :class:`LabelledEpisodes`.

    Attributes:
        teacher: the frozen teacher.
        teacher_roles: U_T, ``(roles, hidden_dim)``.
        wanted: which of ``teacher_embedding`` and ``state`` some term reads; they are large.
    """

    teacher: FrozenTeacher
    teacher_roles: Tensor
    gamma: float
    gae_lambda: float
    temperature: float
    wanted: frozenset[str] = frozenset()

    def relations(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines ``(batch, time, pairs)`` and log-roles ``(batch, time, agents, roles)`` of teacher embeddings."""
        return pairwise_cosines(embedding), role_log_distribution(embedding, self.teacher_roles, self.temperature)

    @torch.no_grad()
    def __call__(self, episodes: Episodes, behaviour_log_prob: Tensor, visible: Tensor) -> LabelledEpisodes:
        """Label episodes.

        Args:
            episodes: what was played, unmasked.
            behaviour_log_prob: ``(batch, time, agents)``, of who played.
            visible: ``(batch, agents, features)``, the student's masks.
        """
        every = vars(episodes)
        steps = {name: every[name][:, :-1] for name in ("obs", "state")} | {"actions": episodes.actions}
        logits, embedding = self.teacher.label(steps, episodes.length)
        cosines, log_roles = self.relations(embedding)
        avail = episodes.avail_actions[:, :-1]
        return LabelledEpisodes(
            obs=episodes.obs[:, :-1],
            avail=avail.to(torch.uint8),
            actions=episodes.actions,
            behaviour_log_prob=behaviour_log_prob,
            teacher_logits=logits,
            teacher_cosines=cosines,
            teacher_log_roles=log_roles,
            advantage=self.teacher.advantages(episodes, self.gamma, self.gae_lambda),
            acting=acting_mask(episodes.filled.squeeze(-1), avail),
            visible=visible,
            teacher_embedding=embedding if "teacher_embedding" in self.wanted else None,
            state=steps["state"] if "state" in self.wanted else None,
        )


class RecentEpisodes:
    """The last episodes the student played, labelled: what ``distill_on: student`` and ``mixed`` sample from."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._blocks: list[LabelledEpisodes] = []
        self._lengths: list[Tensor] = []

    def __len__(self) -> int:
        return sum(len(block) for block in self._blocks)

    def add(self, block: LabelledEpisodes) -> None:
        """Append a copy of a block, and drop the oldest blocks beyond the capacity.

        A copy, because the host's buffer hands out views that its next episodes overwrite.
        """
        self._blocks.append(block.each(lambda name, x: x.clone()))
        self._lengths.append(block.last_decision)
        while len(self) - len(self._blocks[0]) >= self.capacity:
            self._blocks.pop(0)
            self._lengths.pop(0)

    def sample(self, count: int) -> LabelledEpisodes:
        """``count`` episodes drawn with replacement."""
        sizes = torch.tensor([len(block) for block in self._blocks])
        ends = sizes.cumsum(0)
        drawn = torch.randint(int(ends[-1]), (count,)).sort().values
        owner = torch.searchsorted(ends, drawn, right=True)
        parts = []
        for block in owner.unique().tolist():
            inside = drawn[owner == block] - (ends[block] - sizes[block])
            time = int(self._lengths[block][inside].max())
            parts.append(self._blocks[block].first(time).rows(inside))
        return LabelledEpisodes.join(parts)


def _padded(values: Tensor, name: str, time: int) -> Tensor:
    """With zero steps up to ``time``; masks of episodes have no time axis."""
    missing = time - values.shape[1]
    if name == "visible" or missing <= 0:
        return values
    return torch.nn.functional.pad(values, (0, 0) * (values.dim() - 2) + (0, missing))
