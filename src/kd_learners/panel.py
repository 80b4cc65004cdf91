"""Several teachers that label one student's episodes: each step has one of them.

The rule ``value`` takes the teacher whose critic expects most of the state. Critics value rewards of their own:
shaped, discounted and scaled as in their training. So each one's values are converted to the task's own return, by the
line that fits its expert buffer best. The rule ``weight`` draws a teacher for each episode. Where the student plays
several tasks, the rule is ``task``: each of them has a teacher of its own.

Logits, advantages, cosines and roles of a step are its teacher's, in that teacher's unit.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_controllers.messages import Radio
from kd_core import stages
from kd_core.artifacts.expert_buffer import ExpertBuffer
from kd_core.errors import UserError
from kd_core.task import shares
from kd_learners.batches import Episodes
from kd_learners.expert_data import VALUE_KEYS, ExpertData, shard_episodes
from kd_learners.frozen_teacher import FrozenTeacher
from kd_learners.labelled import LabelledSteps, Labeller, until_last_decision
from kd_learners.losses import acting_mask
from kd_learners.objective import ObjectiveSettings

RULES = ("value", "weight", "task")


@dataclass(frozen=True)
class Line:
    """Converts a critic's value to the task's discounted return: ``slope * value + offset``."""

    slope: float
    offset: float


def check_several(args: Any, terms: ObjectiveSettings, tasks: Sequence[str]) -> None:
    """Refuse several teachers where something needs one.

    Raises:
        UserError: a rule or weights that are none, a key that names one teacher or one buffer, a comparator's term, or
            tasks that are not played side by side or have not a teacher each.
    """
    names, rule = stages.several(args), args.teacher_rule
    if not all(type(name) is str and name for name in names):
        raise UserError(f"teachers is {names}: expected a list of folders and names of bundled teachers")
    if rule not in RULES:
        raise UserError(f"teacher_rule is '{rule}': choose one of {', '.join(RULES)}")
    if len(tasks) > 1:
        _check_tasks(args, tasks, names)
    elif rule == "task":
        raise UserError(f"teacher_rule=task is for a run on several tasks, and this one is on {tasks[0]}: leave it out")
    elif len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"teachers is {names}: name at least two different ones, or one with teacher=")
    read_weights(len(names or tasks), args.teacher_weights)
    for key in ("teacher", "expert_buffer"):
        if getattr(args, key) and (names or getattr(args, key) != "train"):
            found = f"teachers has {len(names)}" if names else f"{', '.join(tasks)} have one each (teachers=A,B)"
            raise UserError(f"{key} is for a run with one teacher: leave it out, {found}")
    for key in ("feature_coef", "personal_coef", "privileged_coef"):
        if getattr(terms, key):
            raise UserError(f"{key} is for a run with one teacher, whose features it teaches: set {key}=0")


def _check_tasks(args: Any, tasks: Sequence[str], teachers: Sequence[str]) -> None:
    listed = ", ".join(tasks)
    if teachers and len(teachers) != len(tasks):
        raise UserError(f"teachers has {len(teachers)} and the run {len(tasks)} tasks: name one each, for {listed}")
    if args.teacher_rule == "weight":
        raise UserError(f"teacher_rule=weight is for teachers of one task, and {listed} have one each: leave it out")
    if args.runner != "vector" or args.batch_size_run < len(tasks):
        raise UserError(
            f"{listed} are played side by side: set runner=vector, and batch_size_run to at least {len(tasks)}"
        )


def read_weights(teachers: int, weights: Any) -> tuple[float, ...]:
    """Read how often each teacher's episodes are drawn, as shares that sum to 1.

    Args:
        teachers: how many there are.
        weights: ``teacher_weights=``, or None for equal ones.

    Raises:
        UserError: weights that are none.
    """
    given = [1.0] * teachers if weights is None else list(weights)
    numbers = all(type(weight) in (int, float) and 0 <= weight < float("inf") for weight in given)
    if len(given) != teachers or not numbers or not sum(given):
        raise UserError(
            f"teacher_weights is {weights!r}: expected {teachers} numbers of at least 0, one of them above 0"
        )
    return tuple(float(weight) / sum(given) for weight in given)


def fit_line(teacher: FrozenTeacher, buffer: ExpertBuffer, gamma: float) -> Line:
    """Fit the line from a critic's values to the returns that its teacher had from there on, without shaping.

    Args:
        teacher: the frozen one.
        buffer: what it played.
        gamma: the discount of the returns, the same for all teachers that are compared.
    """
    values, returns = [], []
    for shard in buffer.shards(VALUE_KEYS):
        episodes = shard_episodes(shard)
        reward = episodes.reward.mean(-1)
        to_go = torch.zeros_like(reward)
        following = reward.new_zeros(len(reward))
        for step in range(reward.shape[1] - 1, -1, -1):
            following = reward[:, step] + gamma * following
            to_go[:, step] = following
        taken = episodes.filled.squeeze(-1) > 0
        values.append(teacher.values(episodes)[:, :-1].mean(-1)[taken])
        returns.append(to_go[taken])
    value, found = torch.cat(values).double(), torch.cat(returns).double()
    spread = value.var(unbiased=False)
    # A critic that says the same everywhere tells no states apart.
    slope = float(((value - value.mean()) * (found - found.mean())).mean() / spread) if spread > 0 else 0.0
    return Line(slope, float(found.mean()) - slope * float(value.mean()))


@dataclass(frozen=True)
class Panel:
    """Labels episodes by several teachers.

    Attributes:
        labellers: of each teacher, with its own roles, discount and critic.
        lines: from each critic's values to the task's return.
        rule: one of ``RULES``.
        weights: of the teachers, with sum 1.
    """

    labellers: Sequence[Labeller]
    lines: Sequence[Line]
    rule: str
    weights: Sequence[float]

    @torch.no_grad()
    def __call__(
        self, episodes: Episodes, behaviour_log_prob: Tensor, seen: Tensor, radio: Radio | None = None
    ) -> LabelledSteps:
        """Label episodes as `Labeller` does, each step by one teacher; ``labelled_by`` says by which."""
        labels = [labeller(episodes, behaviour_log_prob, seen, radio) for labeller in self.labellers]
        chosen = self.choose(episodes, labels[0].length)

        def taken(name: str, mine: Tensor) -> Tensor:
            every = torch.stack([getattr(label, name) for label in labels])
            return every[chosen, torch.arange(len(mine), device=mine.device)]

        return replace(labels[0].each(taken), labelled_by=chosen)

    def choose(self, episodes: Episodes, length: Tensor) -> Tensor:
        """Choose the teacher of each step, int64 ``(steps,)``.

        Args:
            episodes: as played.
            length: steps of each that are labelled.
        """
        if self.rule == "weight":
            drawn = torch.multinomial(torch.tensor(self.weights), len(length), replacement=True).to(length.device)
            return drawn.repeat_interleave(length)
        _, index = until_last_decision(acting_mask(episodes.filled.squeeze(-1), episodes.avail_actions[:, :-1]))
        expected = [
            line.slope * labeller.teacher.values(episodes)[:, :-1].mean(-1)[index] + line.offset
            for labeller, line in zip(self.labellers, self.lines, strict=True)
        ]
        return torch.stack(expected).argmax(0)


@dataclass(frozen=True)
class TaskPanel:
    """Labels blocks of episodes of several tasks, which lie one task behind the other, by each one's teacher.

    Attributes:
        labellers: of each task's teacher, with its own roles, discount and critic.
    """

    labellers: Sequence[Labeller]

    def __call__(
        self, episodes: Episodes, behaviour_log_prob: Tensor, seen: Tensor, radio: Radio | None = None
    ) -> LabelledSteps:
        """Label episodes as `Labeller` does, each by its task's teacher; ``labelled_by`` says by which."""
        sizes, parts = shares(len(seen), len(self.labellers)), []
        for number, rows in enumerate(torch.arange(len(seen), device=seen.device).split(sizes)):
            own = Episodes(**{name: x[rows] for name, x in vars(episodes).items()})
            heard = radio if radio is None else radio.only(rows)
            steps = self.labellers[number](own, behaviour_log_prob[rows], seen[rows], heard)
            parts.append(_labelled_by(steps, number))
        return LabelledSteps.join(parts)


def _labelled_by(steps: LabelledSteps, teacher: int) -> LabelledSteps:
    """Name the teacher of all these steps, in a copy."""
    return replace(steps, labelled_by=torch.full((len(steps.obs),), teacher, device=steps.obs.device))


class PanelData:
    """Samples the expert buffers of several teachers, each in proportion to its weight."""

    def __init__(self, parts: Sequence[ExpertData], weights: Sequence[float]) -> None:
        self.parts, self.weights = parts, weights

    def sample(self, count: int, generator: np.random.Generator) -> LabelledSteps:
        """Sample ``count`` episodes; each is labelled by the teacher that played it."""
        counts = generator.multinomial(count, self.weights)
        drawn = [
            (number, part.sample(int(own), generator))
            for number, (part, own) in enumerate(zip(self.parts, counts, strict=True))
            if own
        ]
        return LabelledSteps.join([_labelled_by(steps, number) for number, steps in drawn])

    def largest_features(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Return the largest size of each agent's features in any of the buffers, ``(agents, features)``."""
        return np.max([part.largest_features(count, copy.deepcopy(generator)) for part in self.parts], axis=0)
