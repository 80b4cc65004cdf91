"""The loss terms against slow float64 numpy loops, finite differences, limit cases and what must not change them."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_learners import losses
from loss_batch import TEMPERATURE, Batch, make_batch, means, slow_means

quick = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("seed", range(5))
def test_every_term_matches_float64_numpy(seed, dtype, tolerance):
    batch = make_batch(seed).to(dtype)
    expected = slow_means(batch)
    assert all(value != 0.0 for value in expected.values()), "the batch must exercise every term"
    for name, value in means(batch).items():
        assert value.dtype == dtype
        assert float(value) == pytest.approx(expected[name], rel=tolerance, abs=tolerance), name


# ----------------------------------------------------------------------------------------------------- gradients
TRAINED = ("student_logits", "student_embedding", "student_roles")


@pytest.mark.parametrize("name", ["ppo", "kl", "ce_hard", "ce_soft", "structure", "role", "entropy"])
def test_gradient_matches_finite_differences(name):
    batch = make_batch(1, episodes=2, time=3)

    def term(*inputs):
        return means(replace(batch, **dict(zip(TRAINED, inputs, strict=True))))[name]

    inputs = [getattr(batch, key).clone().requires_grad_() for key in TRAINED]
    assert torch.autograd.gradcheck(term, inputs, eps=1e-6, atol=1e-7)
    assert any(g is not None and g.abs().max() > 1e-4 for g in gradients(term(*inputs), inputs)), "a dead term"


def gradients(value, inputs):
    return torch.autograd.grad(value, inputs, allow_unused=True)


def test_no_gradient_reaches_the_teacher():
    batch = make_batch(2)
    frozen = [
        getattr(batch, key).requires_grad_()
        for key in ("teacher_logits", "teacher_embedding", "teacher_roles", "behaviour", "advantage")
    ]
    student = batch.student_logits.requires_grad_()
    total = sum(means(batch).values())
    *teacher_gradients, student_gradient = gradients(total, [*frozen, student])
    assert teacher_gradients == [None] * len(frozen)
    assert student_gradient is not None


def test_a_step_of_the_soft_terms_brings_the_student_to_the_teacher():
    batch = make_batch(3)
    logits = torch.zeros_like(batch.teacher_logits, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(400):
        optimiser.zero_grad()
        soft = (losses.masked_log_softmax(x, batch.avail, TEMPERATURE) for x in (batch.teacher_logits, logits))
        kl = losses.kl_divergence(*soft)
        losses.masked_mean(kl, batch.mask).backward()
        optimiser.step()
    student = losses.masked_log_softmax(logits, batch.avail).exp()
    teacher = losses.masked_log_softmax(batch.teacher_logits, batch.avail).exp()
    assert torch.allclose(student[batch.mask > 0], teacher[batch.mask > 0], atol=1e-3)


# -------------------------------------------------------------------------- what must not change any of the terms
def with_padding(b: Batch, seed=7):
    """Two more steps that do not exist, filled with rubbish, some of it said to be available."""
    rubbish = make_batch(seed, time=2)
    shared = ("teacher_roles", "student_roles")
    longer = {
        f.name: torch.cat([getattr(b, f.name), 100 * getattr(rubbish, f.name)], dim=1)
        for f in fields(b)
        if f.name not in (*shared, "filled", "actions")
    }
    return replace(
        b,
        filled=torch.cat([b.filled, torch.zeros(3, 2)], dim=1),
        actions=torch.cat([b.actions, rubbish.actions], dim=1),
        **longer,
    )


def with_dead_agent(b: Batch, seed=8):
    """A fourth agent that has only the no-op, with rubbish everywhere else."""
    rubbish = make_batch(seed, time=b.filled.shape[1], agents=1)
    shared = ("teacher_roles", "student_roles", "filled")
    wider = {
        f.name: torch.cat([getattr(b, f.name), getattr(rubbish, f.name)], dim=2)
        for f in fields(b)
        if f.name not in shared
    }
    wider["actions"][:, :, -1] = 0
    wider["avail"][:, :, -1] = torch.tensor([1, 0, 0, 0], dtype=torch.uint8)
    return replace(b, **wider)


def with_unavailable_action(b: Batch):
    """A fifth action that is never available, with high logits."""

    def fifth(x, value):
        return torch.cat([x, torch.full_like(x[..., :1], value)], dim=-1)

    return replace(
        b,
        avail=fifth(b.avail, 0),
        teacher_logits=fifth(b.teacher_logits, 50.0),
        student_logits=fifth(b.student_logits, 60.0),
    )


@pytest.mark.parametrize("change", [with_padding, with_dead_agent, with_unavailable_action])
def test_padding_dead_agents_and_unavailable_actions_change_no_term_and_no_gradient(change):
    before, after = make_batch(4), change(make_batch(4))
    results = []
    for batch in (before, after):
        inputs = [getattr(batch, key).requires_grad_() for key in TRAINED]
        values = means(batch)
        results.append((values, gradients(sum(values.values()), inputs)))
    (values, grads), (new_values, new_grads) = results
    for name, value in values.items():
        assert float(new_values[name].detach()) == pytest.approx(float(value.detach()), rel=1e-12), name
    for old, new in zip(grads, new_grads, strict=True):
        assert torch.isfinite(new).all()
        kept = new[tuple(slice(0, size) for size in old.shape)]
        assert torch.allclose(kept, old, rtol=1e-12, atol=1e-15)
        assert new.abs().sum().item() == pytest.approx(old.abs().sum().item(), rel=1e-12), "rubbish has a gradient"


def test_a_batch_of_nothing_but_padding_gives_zero_and_finite_gradients():
    batch = make_batch(5)
    batch = replace(batch, filled=torch.zeros_like(batch.filled), avail=torch.zeros_like(batch.avail))
    inputs = [getattr(batch, key).requires_grad_() for key in TRAINED]
    values = means(batch)
    assert all(float(value.detach()) == 0.0 for value in values.values())
    assert all(bool((g == 0).all()) for g in gradients(sum(values.values()), inputs))


# --------------------------------------------------------------------------------------------- masks and policies
def test_masked_mean_ignores_what_is_outside_the_mask_even_nan():
    x = torch.tensor([[1.0, float("nan")], [3.0, float("inf")]], requires_grad=True)
    mean = losses.masked_mean(x, torch.tensor([[1, 0], [1, 0]]))
    mean.backward()
    assert mean.item() == 2.0
    assert x.grad.tolist() == [[0.5, 0.0], [0.5, 0.0]]


def test_masked_mean_weighs_each_entry_of_a_broadcast_mask():
    x = torch.arange(6.0).reshape(1, 3, 2)
    assert losses.masked_mean(x, torch.tensor([[[1.0], [0.0], [1.0]]])).item() == (0 + 1 + 4 + 5) / 4
    assert losses.masked_mean(x, torch.zeros(1, 3, 1)).item() == 0.0


def test_acting_mask_keeps_real_steps_with_a_choice():
    filled = torch.tensor([[1, 1, 0]])
    avail = torch.tensor([[[[1, 1, 0], [1, 0, 0]], [[0, 0, 0], [1, 1, 1]], [[1, 1, 1], [1, 1, 1]]]])
    assert losses.acting_mask(filled, avail).tolist() == [[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]]


def test_unavailable_actions_have_no_probability_and_padding_is_uniform():
    logits = torch.tensor([[1.0, 2.0, 3.0], [9.0, 8.0, 7.0]], requires_grad=True)
    log_probs = losses.masked_log_softmax(logits, torch.tensor([[1, 1, 0], [0, 0, 0]]))
    assert torch.isfinite(log_probs).all()
    assert log_probs.exp()[0].tolist() == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e), 0.0])
    assert log_probs.exp()[1].tolist() == pytest.approx([1 / 3] * 3)
    (log_probs[0, :2].sum() + log_probs[1].sum()).backward()
    assert logits.grad[0, 2] == 0.0
    assert logits.grad[1].tolist() == [0.0, 0.0, 0.0]


@quick
@given(seeds, st.floats(0.1, 10.0))
def test_policies_sum_to_one_and_ignore_a_shift_of_the_logits(seed, temperature):
    batch = make_batch(seed)
    probs = losses.masked_log_softmax(batch.teacher_logits, batch.avail, temperature).exp()
    shifted = losses.masked_log_softmax(batch.teacher_logits + 123.0, batch.avail, temperature).exp()
    assert torch.allclose(probs.sum(-1), torch.ones(()).double())
    assert torch.allclose(probs, shifted)
    assert (probs[(batch.avail == 0) & (batch.avail > 0).any(-1, keepdim=True)] == 0).all()


# ------------------------------------------------------------------------------------------ closed forms and limits
@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.0, 2.0, 2.0),
        (1.1, 2.0, 2.2),
        (3.0, 2.0, 2.4),
        (0.1, 2.0, 0.2),
        (3.0, -2.0, -6.0),
        (0.1, -2.0, -1.6),
    ],
)
def test_ppo_is_clipped_only_where_it_would_gain(ratio, advantage, expected):
    behaviour = torch.tensor([[[-1.5]]])
    value = losses.ppo_clip(behaviour + np.log(ratio), behaviour, torch.tensor([[[advantage]]]), 0.2)
    assert value.item() == pytest.approx(expected)


def test_an_absurd_ratio_stays_finite_with_its_gradient():
    log_prob = torch.zeros(1, 1, 1, requires_grad=True)
    value = losses.ppo_clip(log_prob, torch.full((1, 1, 1), -1e10), -torch.ones(1, 1, 1), 0.2)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(log_prob.grad).all()


@quick
@given(seeds)
def test_ppo_never_exceeds_the_unclipped_objective(seed):
    batch = make_batch(seed)
    log_prob = losses.action_log_prob(losses.masked_log_softmax(batch.student_logits, batch.avail), batch.actions)
    clipped = losses.ppo_clip(log_prob, batch.behaviour, batch.advantage, 0.2)
    assert (clipped <= (log_prob - batch.behaviour).exp() * batch.advantage + 1e-12).all()


@quick
@given(seeds, st.floats(0.1, 10.0))
def test_soft_cross_entropy_is_kl_plus_the_teachers_entropy(seed, temperature):
    batch = make_batch(seed)
    logits = (batch.teacher_logits, batch.student_logits)
    teacher, student = (losses.masked_log_softmax(x, batch.avail, temperature) for x in logits)
    kl = losses.kl_divergence(teacher, student)
    assert torch.allclose(losses.cross_entropy(teacher, student, "soft"), kl + losses.entropy(teacher))
    assert (kl >= -1e-12).all()


def test_a_student_equal_to_its_teacher_has_no_loss():
    batch = make_batch(6)
    batch = replace(
        batch,
        student_logits=batch.teacher_logits,
        student_embedding=batch.teacher_embedding,
        student_roles=batch.teacher_roles,
        behaviour=losses.action_log_prob(losses.masked_log_softmax(batch.teacher_logits, batch.avail), batch.actions),
    )
    values = means(batch)
    for name in ("kl", "structure", "role"):
        assert float(values[name]) == pytest.approx(0.0, abs=1e-15)
    assert float(values["ppo"]) == pytest.approx(float(losses.masked_mean(batch.advantage, batch.mask)))


def test_hard_cross_entropy_targets_the_best_available_action():
    teacher = torch.tensor([5.0, 1.0, 2.0])
    avail = torch.tensor([0, 1, 1])
    student = torch.tensor([3.0, 0.0, 1.0])
    value = losses.cross_entropy(*(losses.masked_log_softmax(x, avail) for x in (teacher, student)), "hard")
    assert value.item() == pytest.approx(np.log(1 + np.exp(-1)))


def test_an_unknown_cross_entropy_target_is_refused():
    x = torch.zeros(1, 1, 1, 2)
    with pytest.raises(ValueError, match="ce_target is 'medium': expected 'hard' or 'soft'"):
        losses.cross_entropy(x, x, "medium")


def test_entropy_of_a_uniform_policy_is_the_log_of_its_choices():
    avail = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    assert losses.entropy(losses.masked_log_softmax(torch.zeros(2, 4), avail)).tolist() == pytest.approx(
        [np.log(3), 0.0]
    )


# ------------------------------------------------------------------------------------------------ pairs and roles
@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_low_advantages_weigh_more_and_all_weights_have_mean_one(strength):
    advantage = torch.tensor([[-1.0, 0.0], [2.0, float("nan")]], dtype=torch.float64)
    counted = np.exp(-strength * np.array([-1.0, 0.0, 2.0]))
    weights = losses.advantage_weights(advantage, torch.tensor([[1.0, 1.0], [1.0, 0.0]]), strength)
    assert np.allclose(weights.flatten(), [*(counted / counted.mean()), 0.0])


def test_weights_of_absurd_advantages_and_of_nothing_are_finite():
    for mask in (torch.ones(2), torch.zeros(2)):
        assert losses.advantage_weights(torch.tensor([-1e30, 1e30]), mask, 3.0).isfinite().all()


def test_only_ratios_beyond_the_bound_count_either_way():
    ratios = torch.tensor([0.4, 0.6, 1.0, 1.9, 2.1], requires_grad=True)
    outside = losses.ratio_outside(ratios.log(), torch.zeros(5), 2.0)
    assert outside.tolist() == [1, 0, 0, 0, 1] and not outside.requires_grad


def test_pairs_come_in_their_documented_order():
    angles = torch.tensor([0.0, 0.3, 1.0, 2.2])
    length = torch.tensor([1.0, 2.0, 3.0, 4.0])
    embedding = (length * torch.stack([angles.cos(), angles.sin()])).T.reshape(1, 1, 4, 2)
    order = [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
    expected = [float((angles[i] - angles[j]).cos()) for i, j in order]
    assert losses.pairwise_cosines(embedding).flatten().tolist() == pytest.approx(expected, abs=1e-6)
    mask = losses.pair_mask(torch.tensor([[[1.0, 1.0, 0.0, 1.0]]]))
    assert mask.flatten().tolist() == [float(2 not in pair) for pair in order]


def test_one_agent_has_no_pairs():
    cosines = losses.pairwise_cosines(torch.ones(2, 3, 1, 4))
    assert cosines.shape == (2, 3, 0)
    mask = losses.pair_mask(torch.ones(2, 3, 1))
    assert losses.masked_mean(losses.structure(cosines, cosines), mask).item() == 0.0


def test_an_embedding_of_zeros_has_cosine_zero_and_no_gradient():
    embedding = torch.zeros(1, 1, 3, 4)
    embedding[0, 0, 1:] = torch.tensor([[3.0, 4.0, 0.0, 0.0], [4.0, 3.0, 0.0, 0.0]])
    embedding.requires_grad_()
    cosines = losses.pairwise_cosines(embedding)
    assert cosines.flatten().tolist() == pytest.approx([0.0, 0.0, 24 / 25])
    losses.structure(torch.ones_like(cosines), cosines).sum().backward()
    assert torch.isfinite(embedding.grad).all()
    assert (embedding.grad[0, 0, 0] == 0).all()


def test_half_precision_embeddings_are_widened():
    embedding = torch.full((1, 1, 2, 4), 300.0, dtype=torch.float16)  # its squared norm overflows float16
    assert losses.pairwise_cosines(embedding).item() == pytest.approx(1.0)
    assert losses.role_log_distribution(embedding, torch.ones(2, 4), 1.0).dtype == torch.float32


@quick
@given(seeds, st.floats(1e-3, 1e3))
def test_cosines_ignore_length_and_zero_padded_width(seed, scale):
    embedding = make_batch(seed).student_embedding
    cosines = losses.pairwise_cosines(embedding)
    wider = torch.cat([scale * embedding, torch.zeros_like(embedding)], dim=-1)
    assert torch.allclose(losses.pairwise_cosines(wider), cosines)
    assert (cosines.abs() <= 1 + 1e-12).all()


@quick
@given(seeds)
def test_role_divergence_is_positive_and_zero_only_for_equal_roles(seed):
    batch = make_batch(seed)
    teacher = losses.role_log_distribution(batch.teacher_embedding, batch.teacher_roles, 1.0)
    student = losses.role_log_distribution(batch.student_embedding, batch.student_roles, 1.0)
    assert torch.allclose(teacher.exp().sum(-1), torch.ones(()).double())
    assert (losses.role_divergence(teacher, student) >= -1e-12).all()
    assert torch.allclose(losses.role_divergence(teacher, teacher), torch.zeros(()).double())


# ----------------------------------------------------------------------------------------------------- diagnostics
def test_clip_fraction_counts_the_ratios_outside_the_clip():
    ratio = torch.tensor([[[1.0], [1.5], [0.5], [1.1], [9.0]]])
    mask = torch.tensor([[[1], [1], [1], [1], [0]]])
    assert losses.clip_fraction(ratio.log(), torch.zeros_like(ratio), 0.2, mask).item() == 0.5


def test_effective_sample_size_is_a_share_of_the_decisions():
    mask = torch.tensor([[[1.0], [1.0], [1.0], [1.0], [0.0]]])
    zero = torch.zeros(1, 5, 1)
    assert losses.effective_sample_size(zero - 3.0, zero, mask).item() == pytest.approx(1.0)
    ratio = torch.tensor([[[1.0], [2.0], [3.0], [4.0], [100.0]]])
    assert losses.effective_sample_size(ratio.log(), zero, mask).item() == pytest.approx(10**2 / (4 * 30))
    assert losses.effective_sample_size(zero, zero, torch.zeros_like(mask)).item() == 0.0
    one = torch.tensor([[[19.0], [0.0], [0.0], [0.0], [0.0]]])
    assert losses.effective_sample_size(one, zero, mask).item() == pytest.approx(0.25, rel=1e-5)
