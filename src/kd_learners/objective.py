"""The Stage-2 objective: the terms of ``losses.py``, masked, averaged and added up with their weights.

    loss = -ppo + kl_coef*KL + ce_coef*CE + structure_coef*L_str + role_coef*L_role - entropy_coef*H

(Algorithm 1, line 14; Eq. 5 with the signs of docs/algorithm/decisions.md.) The student has no critic. The terms of
other methods, which ``comparators.py`` computes, are added with weights of their own; kd_student's are 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kd_core.errors import UserError
from kd_learners import losses
from kd_learners.advantages import standardise
from kd_learners.labelled import LabelledSteps

CE_TARGETS = ("hard", "soft")
# Logged names of the terms that come from the teacher; each has a weight of that name with "_coef".
TAUGHT = ("kl", "ce", "structure", "role", "feature", "personal", "privileged")


@dataclass(frozen=True)
class ObjectiveSettings:
    """The objective's keys of ``kd_student.yaml``, where each is explained.

    Raises:
        UserError: the first key with an impossible value.
    """

    ppo_coef: float
    kl_coef: float
    ce_coef: float
    structure_coef: float
    role_coef: float
    entropy_coef: float
    temperature: float
    ce_target: str
    ce_temperature: float
    eps_clip: float
    standardise_advantage: bool
    feature_coef: float = 0.0
    personal_coef: float = 0.0
    privileged_coef: float = 0.0
    advantage_weighting: float = 0.0
    ratio_bound: float = 1.0

    def __post_init__(self) -> None:
        if self.ce_target not in CE_TARGETS:
            raise UserError(f"ce_target is '{self.ce_target}': choose one of {', '.join(CE_TARGETS)}")


def with_distillation(settings: ObjectiveSettings, share: float) -> ObjectiveSettings:
    """Multiply the weights of ``TAUGHT`` by ``share``, in a copy; those of PPO and entropy do not change."""
    return replace(settings, **{f"{name}_coef": share * getattr(settings, f"{name}_coef") for name in TAUGHT})


def terms(
    batch: LabelledSteps, logits: Tensor, embedding: Tensor, student_roles: Tensor, settings: ObjectiveSettings
) -> dict[str, Tensor]:
    """Compute every term of Eq. 5, averaged over the decisions (or pairs) that carry information.

    Args:
        batch: labelled steps.
        logits: the student's, ``(steps, agents, actions)`` float32.
        embedding: the student's, ``(steps, agents, max_width)`` float32, narrower ones padded with zeros.
        student_roles: U_S of Eq. 11, ``(roles, max_width)`` float32; of several teachers one such block each.
        settings: weights and temperatures.

    Returns:
        Scalars by logged name: ``ppo`` (Eq. 4, to be maximised), ``kl`` (Eq. 7), ``ce`` (Eq. 8), ``structure`` (Eq. 9),
        ``role`` (Eq. 10), ``entropy``; without their weights.
    """
    mask, avail = batch.acting, batch.avail
    advantage = standardised(batch) if settings.standardise_advantage else batch.advantage

    def policies(temperature: float) -> tuple[Tensor, Tensor]:
        teacher = losses.masked_log_softmax(batch.teacher_logits, avail, temperature)
        return teacher, losses.masked_log_softmax(logits, avail, temperature)

    # Each temperature once; at 1 the student's policy is the one that acts.
    softened = {tau: policies(tau) for tau in {1.0, settings.temperature, settings.ce_temperature}}
    _, student = softened[1.0]
    log_prob = losses.action_log_prob(student, batch.actions)
    ppo = losses.ppo_clip(log_prob, batch.behaviour_log_prob, advantage, settings.eps_clip)
    kl = losses.kl_divergence(*softened[settings.temperature])
    ce = losses.cross_entropy(*softened[settings.ce_temperature], settings.ce_target)  # type: ignore[arg-type]
    weight = _imitation_weight(batch, log_prob, softened[1.0][0], advantage, settings)
    if weight is not None:
        kl, ce = weight * kl, weight * ce
    structure = losses.structure(batch.teacher_cosines, losses.pairwise_cosines(embedding))
    student_log_roles = _student_log_roles(batch, embedding, student_roles, settings.temperature)
    role = losses.role_divergence(batch.teacher_log_roles, student_log_roles)
    return {
        "ppo": losses.masked_mean(ppo, mask),
        "kl": losses.masked_mean(kl, mask),
        "ce": losses.masked_mean(ce, mask),
        "structure": losses.masked_mean(structure, batch.acting_pairs),
        "role": losses.masked_mean(role, mask),
        # Only logged where it has no weight: then nothing is to be differentiated.
        "entropy": losses.masked_mean(losses.entropy(student if settings.entropy_coef else student.detach()), mask),
    }


def _imitation_weight(
    batch: LabelledSteps, log_prob: Tensor, teacher: Tensor, advantage: Tensor, settings: ObjectiveSettings
) -> Tensor | None:
    """Compute what KL and CE of each decision are multiplied by, ``(steps, agents)``; None if all count alike."""
    weight = None
    if settings.advantage_weighting:
        known = advantage if settings.standardise_advantage else standardised(batch)
        weight = losses.advantage_weights(known, batch.acting, settings.advantage_weighting)
    if settings.ratio_bound > 1:
        of_teacher = losses.action_log_prob(teacher, batch.actions)
        outside = losses.ratio_outside(log_prob, of_teacher, settings.ratio_bound)
        weight = outside if weight is None else weight * outside
    return weight


def standardised(batch: LabelledSteps) -> Tensor:
    """Standardise advantages over the decisions of a minibatch, where there are several teachers each one's by itself.

    Critics have units of their own, so that advantages of two teachers cannot be compared.
    """
    if batch.labelled_by is None:
        return standardise(batch.advantage, batch.acting)
    found = torch.zeros_like(batch.advantage)
    for teacher in batch.labelled_by.unique():
        found += standardise(batch.advantage, batch.acting * (batch.labelled_by == teacher).unsqueeze(-1))
    return found


def _student_log_roles(batch: LabelledSteps, embedding: Tensor, student_roles: Tensor, temperature: float) -> Tensor:
    """Compute the student's log-roles, of several teachers by the roles that belong to each step's teacher."""
    if batch.labelled_by is None:
        return losses.role_log_distribution(embedding, student_roles, temperature)
    every = student_roles.unflatten(0, (-1, batch.teacher_log_roles.shape[-1]))
    scores = [embedding @ roles.T for roles in every]
    own = torch.stack(scores)[batch.labelled_by, torch.arange(len(embedding), device=embedding.device)]
    return torch.log_softmax(own / temperature, dim=-1)


def total(parts: dict[str, Tensor], settings: ObjectiveSettings) -> Tensor:
    """Compute the loss to minimise (Eq. 5): the weighted sum of :func:`terms` and of the comparators' terms, if any.

    Args:
        parts: scalars by logged name; a term of ``TAUGHT`` that is absent counts as 0.
        settings: the weights.

    Returns:
        A float32 scalar.
    """
    loss = -settings.ppo_coef * parts["ppo"]
    for name in TAUGHT:
        if name in parts:
            loss = loss + getattr(settings, f"{name}_coef") * parts[name]
    return loss - settings.entropy_coef * parts["entropy"] if settings.entropy_coef else loss


@torch.no_grad()
def diagnostics(batch: LabelledSteps, logits: Tensor, eps_clip: float) -> dict[str, Tensor]:
    """Compute what is logged beside the terms: ``clip_fraction``, ``effective_sample_size``, ``agreement``.

    Args:
        batch: labelled steps.
        logits: the student's, ``(steps, agents, actions)`` float32.
        eps_clip: epsilon of Eq. 4.

    Returns:
        Scalars between 0 and 1 by logged name.
    """
    log_prob = losses.action_log_prob(losses.masked_log_softmax(logits, batch.avail), batch.actions)
    return {
        "clip_fraction": losses.clip_fraction(log_prob, batch.behaviour_log_prob, eps_clip, batch.acting),
        "effective_sample_size": losses.effective_sample_size(log_prob, batch.behaviour_log_prob, batch.acting),
        "agreement": agreement(logits, batch.teacher_logits, batch.avail, batch.acting),
    }


def agreement(student_logits: Tensor, teacher_logits: Tensor, avail: Tensor, acting: Tensor) -> Tensor:
    """Compute the share of decisions at which student and teacher would take the same greedy action.

    Args:
        student_logits: ``(batch, time, agents, actions)`` float32, or without the time axis.
        teacher_logits: of the same shape.
        avail: of the same shape, 1 where the action is available.
        acting: the same without the actions, 1 where the decision counts.

    Returns:
        A scalar between 0 and 1; 0 if no decision counts.
    """
    hidden = avail == 0
    student = student_logits.masked_fill(hidden, -torch.inf).argmax(-1)
    teacher = teacher_logits.masked_fill(hidden, -torch.inf).argmax(-1)
    return losses.masked_mean((student == teacher).float(), acting)
