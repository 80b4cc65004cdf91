"""The objective: every term against a slow answer, what counts in it, and its diagnostics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import loss_batch
from kd_learners import losses, objective
from kd_learners.labelled import LabelledSteps

SETTINGS = objective.ObjectiveSettings(
    ppo_coef=0.7,
    kl_coef=1.3,
    ce_coef=0.2,
    structure_coef=0.4,
    role_coef=0.6,
    entropy_coef=0.05,
    temperature=loss_batch.TEMPERATURE,
    ce_target="hard",
    ce_temperature=1.0,
    eps_clip=loss_batch.EPS_CLIP,
    standardise_advantage=False,
)


def labelled(b):
    """`loss_batch`'s numbers as the learner holds them, but for their first two axes, batch and time."""
    log_roles = losses.role_log_distribution(b.teacher_embedding, b.teacher_roles, SETTINGS.temperature)
    return LabelledSteps(
        length=torch.full((len(b.actions),), b.actions.shape[1]),
        obs=torch.zeros(*b.actions.shape, 1),
        avail=b.avail,
        actions=b.actions,
        behaviour_log_prob=b.behaviour,
        teacher_logits=b.teacher_logits,
        teacher_cosines=losses.pairwise_cosines(b.teacher_embedding),
        teacher_log_roles=log_roles,
        advantage=b.advantage,
        acting=b.mask,
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_every_term_equals_a_slow_float64_answer(seed, dtype):
    numbers = loss_batch.make_batch(seed)
    expected = loss_batch.slow_means(numbers)
    b = numbers.to(dtype)
    parts = objective.terms(labelled(b), b.student_logits, b.student_embedding, b.student_roles, SETTINGS)
    tolerance = 1e-9 if dtype == torch.float64 else 5e-6
    names = {"ce": "ce_hard"}
    for name, value in parts.items():
        assert float(value) == pytest.approx(expected[names.get(name, name)], abs=tolerance, rel=tolerance), name
    total = (
        -0.7 * expected["ppo"]
        + 1.3 * expected["kl"]
        + 0.2 * expected["ce_hard"]
        + 0.4 * expected["structure"]
        + 0.6 * expected["role"]
        - 0.05 * expected["entropy"]
    )
    assert float(objective.total(parts, SETTINGS)) == pytest.approx(total, abs=tolerance, rel=tolerance)


@pytest.mark.parametrize("target", ["hard", "soft"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_cross_entropy_has_a_temperature_of_its_own(target, temperature):
    b = loss_batch.make_batch(3)
    settings = replace(SETTINGS, ce_target=target, ce_temperature=temperature)
    parts = objective.terms(labelled(b), b.student_logits, b.student_embedding, b.student_roles, settings)
    values = []
    for at in zip(*np.nonzero(b.mask.numpy()), strict=True):
        avail = b.avail[at].numpy()
        teacher = loss_batch.slow_policy(b.teacher_logits[at].numpy(), avail, temperature)
        student = loss_batch.slow_policy(b.student_logits[at].numpy(), avail, temperature)
        if target == "hard":
            teacher = {max(teacher, key=teacher.get): 1.0}
        values.append(-sum(teacher[a] * np.log(student[a]) for a in teacher))
    assert float(parts["ce"]) == pytest.approx(np.mean(values), abs=1e-9)


def test_advantages_are_standardised_over_the_decisions_that_count():
    b = loss_batch.make_batch(1)
    mask = b.mask.numpy() > 0
    chosen = b.advantage.numpy()[mask]
    advantage = np.where(mask, (b.advantage.numpy() - chosen.mean()) / chosen.std(), 0.0)
    by_hand = loss_batch.slow_means(replace(b, advantage=torch.from_numpy(advantage)))["ppo"]
    settings = replace(SETTINGS, standardise_advantage=True)
    parts = objective.terms(labelled(b), b.student_logits, b.student_embedding, b.student_roles, settings)
    assert float(parts["ppo"]) == pytest.approx(by_hand, abs=1e-9)


@pytest.mark.parametrize(("weighting", "bound"), [(0.0, 1.0), (0.8, 1.0), (0.0, 1.5), (0.8, 1.5)])
def test_imitation_weighs_low_advantages_more_and_only_beyond_the_bound(weighting, bound):
    b = loss_batch.make_batch(3)
    settings = replace(SETTINGS, temperature=1.0, advantage_weighting=weighting, ratio_bound=bound)
    parts = objective.terms(labelled(b), b.student_logits, b.student_embedding, b.student_roles, settings)
    advantage = b.advantage.numpy()[b.mask.numpy() > 0]
    by_advantage = np.exp(-weighting * (advantage - advantage.mean()) / advantage.std())
    by_advantage /= by_advantage.mean()
    kl = []
    for weight, at in zip(by_advantage, zip(*np.nonzero(b.mask.numpy()), strict=True), strict=True):
        avail, action = b.avail[at].numpy(), int(b.actions[at])
        teacher = loss_batch.slow_policy(b.teacher_logits[at].numpy(), avail, 1.0)
        student = loss_batch.slow_policy(b.student_logits[at].numpy(), avail, 1.0)
        ratio = student[action] / teacher[action]
        value = sum(teacher[a] * np.log(teacher[a] / student[a]) for a in teacher)
        kl.append(weight * value if bound == 1.0 or not 1 / bound <= ratio <= bound else 0.0)
    assert float(parts["kl"]) == pytest.approx(np.mean(kl), abs=1e-9)
    assert bound == 1.0 or 0.0 in kl


def padded(batch, episodes, steps):
    """The batch with padding episodes and steps, full of numbers that would show."""

    def grow(name, value):
        junk = 0 if name in ("avail", "acting", "actions") else 7.5
        shape = list(value.shape)
        shape[0], shape[1] = shape[0] + episodes, shape[1] + steps
        grown = torch.full(shape, junk, dtype=value.dtype)
        grown[: value.shape[0], : value.shape[1]] = value
        return grown

    return batch.each(grow)


def test_padding_episodes_and_steps_change_neither_loss_nor_gradient():
    b = loss_batch.make_batch(2)
    settings = replace(SETTINGS, standardise_advantage=True)
    found = []
    for episodes, steps in ((0, 0), (3, 4)):
        batch = padded(labelled(b), episodes, steps)
        outputs = []
        for value in (b.student_logits, b.student_embedding):
            grown = torch.full((*batch.actions.shape[:2], *value.shape[2:]), 3.0, dtype=value.dtype)
            grown[: value.shape[0], : value.shape[1]] = value
            outputs.append(grown.requires_grad_())
        loss = objective.total(objective.terms(batch, *outputs, b.student_roles, settings), settings)
        loss.backward()
        inside = [o.grad[: b.actions.shape[0], : b.actions.shape[1]] for o in outputs]
        found.append((loss.detach(), *inside))
        outside = sum(float(o.grad.abs().sum() - g.abs().sum()) for o, g in zip(outputs, inside, strict=True))
        assert outside == pytest.approx(0.0, abs=1e-12)
    for plain, with_padding in zip(*found, strict=True):
        torch.testing.assert_close(plain, with_padding, rtol=0, atol=1e-12)


def test_agreement_counts_equal_greedy_choices_among_available_actions():
    teacher = torch.tensor([[[[5.0, 1.0, 0.0], [0.0, 2.0, 1.0]]]])
    student = torch.tensor([[[[9.0, 2.0, 1.0], [9.0, 1.0, 2.0]]]])
    avail = torch.tensor([[[[0, 1, 1], [0, 1, 1]]]])
    assert float(objective.agreement(student, teacher, avail, torch.ones(1, 1, 2))) == 0.5
    assert float(objective.agreement(student, teacher, avail, torch.tensor([[[1.0, 0.0]]]))) == 1.0


def test_diagnostics_are_one_where_student_and_behaviour_are_the_same():
    b = loss_batch.make_batch(4)
    log_prob = losses.action_log_prob(losses.masked_log_softmax(b.student_logits, b.avail), b.actions)
    batch = replace(labelled(b), behaviour_log_prob=log_prob, teacher_logits=b.student_logits + 3.0)
    found = objective.diagnostics(batch, b.student_logits, eps_clip=0.2)
    assert {name: round(float(value), 9) for name, value in found.items()} == {
        "clip_fraction": 0.0,
        "effective_sample_size": 1.0,
        "agreement": 1.0,
    }
