"""The students' stand-in while the teacher learns: what it sees, what it imitates, and what the teacher pays for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kd_core.artifacts.teacher import load_teacher
from kd_core.errors import UserError
from kd_learners import batches, losses
from kd_learners.follower import Follower
from kd_learners.losses import acting_mask, masked_log_softmax
from tiny_stages import ACTIONS, AGENTS, OBS, described, run_stage, stage_args
from tiny_teachers import ENDINGS, make_learner, played

# Agent 0 is blind to its signal, which alone tells it what to do; agent 1 sees everything.
BLIND = {"limits": "lh", "masks": "0: [3, 4], 1: [0, 1, 2, 3, 4]"}


def make_follower(folder, width=8, seed=0, **updates):
    mask = described(stage_args("kd_teacher", folder, **{**BLIND, **updates})).mask
    torch.manual_seed(seed)
    return Follower(mask, ACTIONS, width, lr=0.01, seed=seed)


def block(seed=0):
    """Episodes, and a policy and the decisions on them."""
    episodes = batches.from_host(played(ENDINGS, seed=seed))
    avail = episodes.avail_actions[:, :-1]
    generator = torch.Generator().manual_seed(seed)
    logits = 2.0 * torch.randn(avail.shape, generator=generator)
    return episodes, masked_log_softmax(logits, avail), acting_mask(episodes.filled[..., 0], avail)


def following(folder, **updates):
    return make_learner(folder, **{**BLIND, "imitation_gap_coef": 0.5, **updates})


# -------------------------------------------------------------------------------------------------------- the price
def test_the_gap_is_the_divergence_from_the_follower_and_its_gradient_reaches_the_teacher_alone():
    rng = np.random.default_rng(0)
    p, q = (torch.from_numpy(rng.normal(size=(2, 3, AGENTS, ACTIONS))).requires_grad_() for _ in range(2))
    avail = torch.from_numpy(rng.random((2, 3, AGENTS, ACTIONS)) < 0.7)
    avail[..., 0] = True
    gap = losses.imitation_gap(*(masked_log_softmax(x, avail) for x in (p, q)))
    for index in np.ndindex(*gap.shape):
        kept = avail[index].numpy()
        a, b = (np.exp(x.detach().numpy()[index][kept]) for x in (p, q))
        a, b = a / a.sum(), b / b.sum()
        assert gap[index].item() == pytest.approx(float((a * np.log(a / b)).sum()), abs=1e-12)
    teacher, follower = torch.autograd.grad(gap.sum(), [p, q], allow_unused=True)
    assert teacher.abs().max() > 0.0
    assert follower is None

    def term(logits):
        return losses.imitation_gap(masked_log_softmax(logits, avail), masked_log_softmax(q, avail))

    assert torch.autograd.gradcheck(term, [p], eps=1e-6, atol=1e-7)


def test_a_follower_that_guesses_right_costs_nothing_and_moves_nothing():
    logits = torch.randn(3, 4, AGENTS, ACTIONS, dtype=torch.float64, requires_grad=True)
    log_probs = torch.log_softmax(logits, -1)
    gap = losses.imitation_gap(log_probs, log_probs.detach())
    (gradient,) = torch.autograd.grad(gap.sum(), [logits])
    assert gap.abs().max() == 0.0
    assert gradient.abs().max() < 1e-15


# ------------------------------------------------------------------------------------------------------ the follower
def test_it_comes_closer_to_the_policy_that_it_is_shown(tmp_path):
    follower, (episodes, policy, acting) = make_follower(tmp_path), block()
    gaps = []
    for _ in range(150):
        log_probs = follower.fit(episodes, policy, acting, 1.0)
        gaps.append(float(losses.masked_mean(losses.imitation_gap(policy, log_probs), acting)))
    assert follower.blocks == 150
    assert log_probs.shape == policy.shape
    assert not log_probs.requires_grad
    unavailable = (episodes.avail_actions[:, :-1] == 0) & (acting.unsqueeze(-1) > 0)
    assert unavailable.any()
    assert not log_probs.exp()[unavailable].any()
    assert gaps[-1] < 0.5 * gaps[0]


def test_what_is_hidden_from_students_is_hidden_from_it(tmp_path):
    follower, (episodes, policy, acting) = make_follower(tmp_path), block()
    follower.fit(episodes, policy, acting, 1.0)
    outputs = []
    for feature in (None, 0, 3):
        obs = episodes.obs.clone()
        if feature is not None:
            obs[:, :, 0, feature] += 5.0
        with torch.no_grad():
            outputs.append(
                follower.network.unroll(follower._seen(batches.Episodes(**{**vars(episodes), "obs": obs})))[0]
            )
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0][:, :, 0], outputs[2][:, :, 0])
    assert torch.equal(outputs[0][:, :, 1], outputs[2][:, :, 1])


def test_drawn_masks_differ_from_episode_to_episode_and_from_block_to_block(tmp_path):
    follower = make_follower(tmp_path, masks="", masks_preset="random")
    episodes, policy, acting = block()
    first = follower._seen(episodes)
    assert torch.equal(first, follower._seen(episodes))
    hidden = (first == 0).all(dim=1)
    assert not torch.equal(hidden[0], hidden[1])
    follower.fit(episodes, policy, acting, 1.0)
    assert not torch.equal(first, follower._seen(episodes))


def test_it_is_told_its_own_last_actions_if_students_are(tmp_path):
    seen = make_follower(tmp_path, own_action=True)._seen(block()[0])
    assert seen.shape[-1] == OBS + ACTIONS
    assert not seen[:, 0, :, OBS:].any()
    assert seen[:, 1, :, OBS:].sum() == len(ENDINGS) * AGENTS


# ------------------------------------------------------------------------------------------------------- the teacher
def weights_after(learner, *t_env):
    for step in t_env:
        torch.manual_seed(step)
        learner.train(played(seed=step), t_env=step, episode_num=0)
    return torch.cat([parameter.detach().flatten() for parameter in learner.mac.parameters()])


def test_a_run_with_a_follower_goes_on_from_a_checkpoint_as_if_never_stopped(tmp_path):
    torch.manual_seed(3)
    learner = following(tmp_path)
    weights_after(learner, 5)
    learner.save_models(str(tmp_path / "5"))
    other = following(tmp_path)
    other.load_models(str(tmp_path / "5"))
    assert torch.equal(weights_after(learner, 10), weights_after(other, 10))
    assert other.follower.blocks == 2


def test_the_artifact_holds_the_last_tests_weights_even_if_an_earlier_test_won_more(tmp_path):
    learner = following(tmp_path, t_max=100, patience=0.2)
    weights_after(learner, 5)
    learner.logger.log_stat("test_return_mean", 3.0, 5)
    weights_after(learner, 10)
    learner.logger.log_stat("test_return_mean", 2.0, 10)
    weights_after(learner, 60, 90)
    assert not learner.done
    learner.logger.log_stat("test_return_mean", 1.0, 90)
    last = weights_after(learner)
    learner.finish()
    learner.save_models(str(tmp_path / "teacher"))
    assert torch.equal(weights_after(learner), last)
    facts = load_teacher(tmp_path / "teacher").facts
    assert (facts["best_test_step"], facts["imitation_gap_coef"]) == (90, 0.5)


def test_the_price_makes_a_teacher_that_can_be_followed(tmp_path):
    gaps = {}
    for price in (0.001, 3.0):
        size = {name: 16 for name in ("batch_size_run", "batch_size", "buffer_size")}
        taught = {"hidden_dim": 32, "lr": 0.003, "critic_lr": 0.003, "t_max": 4000, "learner_log_interval": 500}
        args = stage_args(
            "kd_teacher", tmp_path / str(price), **BLIND, **size, **taught, imitation_gap_coef=price, follower_width=8
        )
        learner = run_stage(args)
        gaps[price] = learner.logger.stats["imitation_gap"][-1][1]
    assert gaps[3.0] < 0.1 * gaps[0.001]


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"limits": "fo", "masks": ""}, "for a teacher that sees more than its students: set limits=lh"),
        ({"mask_at": "environment"}, "for a teacher that sees more than its students: set limits=lh and mask_at=contr"),
    ],
)
def test_an_impossible_follower_is_one_line(tmp_path, updates, message):
    with pytest.raises(UserError, match=message):
        following(tmp_path, **updates)


def test_a_follower_on_a_gpu_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="imitation_gap_coef is for the CPU: set use_cuda=False"):
        following(tmp_path).cuda()
