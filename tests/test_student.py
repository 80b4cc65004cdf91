"""Stage 2: what the students learn from, what they learn, and what is reported of them."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import loss_batch
from kd_controllers.hetero_mac import HeteroMAC
from kd_controllers.teacher_mac import TeacherSizes
from kd_learners import evaluation, losses, objective, roles
from kd_learners.central_critic import CriticSizes
from kd_learners.labelled import LabelledEpisodes, RecentEpisodes
from kd_learners.student import StudentLearner
from kd_marl.artifacts.atomic import file_sha256
from kd_marl.artifacts.expert_buffer import ExpertBuffer
from kd_marl.artifacts.teacher import save_teacher
from kd_marl.errors import UserError
from kd_marl.metrics.flops import closed_formula
from tiny_stages import (
    ACTIONS,
    AGENTS,
    HOST,
    LIMIT,
    OBS,
    STATE,
    TASK,
    Logger,
    SignalEnv,
    described,
    run_stage,
    scheme_of,
    stage_args,
    teacher_facts,
)

MASKS = "0: [0, 1, 2], 1: [0, 1, 2, 4]"


# ------------------------------------------------------------------------------------------------------- the fixtures
def networks(hidden_dim=16, seed=5):
    """A toy teacher's networks, with outputs far from uniform."""
    torch.manual_seed(seed)
    facts = teacher_facts(hidden_dim=hidden_dim)
    names = ("n_agents", "n_actions", "obs_size", "state_size")
    sizes = {name: facts[name] for name in names}
    agent = TeacherSizes(
        **sizes, hidden_dim=hidden_dim, use_rnn=True, obs_agent_id=True, obs_last_action=False, teacher_input="obs"
    ).build()
    critic = CriticSizes("cv_critic", **sizes, hidden_dim=hidden_dim, obs_individual_obs=False, obs_last_action=False)
    with torch.no_grad():
        agent.fc2.weight.mul_(8.0)
    return agent, critic.build()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results folder with a teacher, and the expert buffer that it played."""
    folder = tmp_path_factory.mktemp("results")
    agent, critic = networks()
    save_teacher(folder / "teacher", agent.state_dict(), critic.state_dict(), teacher_facts())
    run_stage(stage_args("kd_export", folder, teacher=str(folder / "teacher"), expert_buffer=str(folder / "buffer")))
    return folder


def student_args(results, folder, **updates):
    given = {
        "teacher": str(results / "teacher"),
        "expert_buffer": str(results / "buffer"),
        "limits": "fo",
        "masks": MASKS,
        "widths": [8, 12],
        "minibatch_episodes": 8,
        "updates_per_train": 4,
        "t_max": 40,
        "learner_log_interval": 1,
        "save_model": False,
    }
    return stage_args("kd_student", folder, **{**given, **updates})


def make_learner(results, folder, **updates):
    """A learner as the host's loop would build it."""
    args = described(student_args(results, folder, **updates))
    StudentLearner.prepare_run(args, OBS)
    torch.manual_seed(args.seed)
    return StudentLearner(HeteroMAC(scheme_of(args), None, args), scheme_of(args), Logger(), args)


@pytest.fixture
def learner(results, tmp_path):
    return make_learner(results, tmp_path)


def weights(learner):
    return {**learner.mac.agent.state_dict(), "student_roles": learner.student_roles.detach()}


def same(ours, theirs):
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


# --------------------------------------------------------------------------------------------------- whole short runs
@pytest.mark.parametrize("distill_on", ["expert", "student", "mixed"])
def test_training_changes_the_students_and_not_one_bit_of_the_teacher(results, tmp_path, distill_on, monkeypatch):
    monkeypatch.setattr(StudentLearner, "report_run", lambda self, folder: None)
    files = [results / "teacher" / name for name in ("agent.th", "critic.th", "teacher.json")]
    hashes = [file_sha256(file) for file in files]
    learner = run_stage(student_args(results, tmp_path, distill_on=distill_on))
    artifact = learner.teacher.artifact
    assert same(artifact.agent_state, learner.teacher.mac.agent.state_dict())
    assert same(artifact.critic_state, learner.teacher.critic.state_dict())
    for network in (learner.teacher.mac.agent, learner.teacher.critic):
        assert not network.training
        assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert [file_sha256(file) for file in files] == hashes
    torch.manual_seed(learner.args.seed)
    fresh = make_learner(results, tmp_path)
    assert learner.updates >= 8
    for name, value in weights(learner).items():
        assert not torch.equal(value, weights(fresh)[name]), f"{name} did not change"
    assert (len(learner.recent) > 0) == (distill_on != "expert")
    for name in ("loss", "ppo", "kl", "ce", "structure", "role", "entropy", "clip_fraction", "effective_sample_size"):
        assert all(np.isfinite(value) for _, value in learner.logger.stats[name])


@pytest.mark.parametrize("preset", ["paper", "random"])
def test_the_same_seed_makes_the_same_students_bit_for_bit(results, tmp_path, preset, monkeypatch):
    monkeypatch.setattr(StudentLearner, "report_run", lambda self, folder: None)
    limits = {"limits": "lh", "masks": "", "masks_preset": "random"} if preset == "random" else {}
    first, again, other = (
        weights(run_stage(student_args(results, tmp_path / name, seed=seed, distill_on="mixed", **limits)))
        for name, seed in (("first", 4), ("again", 4), ("other", 5))
    )
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("distill_on", ["expert", "student", "mixed"])
def test_students_come_to_agree_with_the_teacher_whatever_they_learn_from(results, tmp_path, distill_on, monkeypatch):
    monkeypatch.setattr(StudentLearner, "report_run", lambda self, folder: None)
    args = student_args(results, tmp_path, distill_on=distill_on, masks="", widths=16, t_max=300, lr=0.01)
    stats = run_stage(args).logger.stats
    before, after = (np.mean([value for _, value in stats["kl"][part]]) for part in (slice(0, 1), slice(-5, None)))
    assert after < 0.3 * before
    assert np.mean([value for _, value in stats["agreement"][-5:]]) > 0.85


def test_a_resumed_learner_takes_the_very_next_step(results, tmp_path):
    learner = make_learner(results, tmp_path, distill_on="expert")
    for _ in range(3):
        learner._update(learner._minibatch(), with_diagnostics=False)
    learner.t_env = 12
    torch.rand(5)  # the students' play draws from this generator
    (tmp_path / "12").mkdir()
    learner.save_models(str(tmp_path / "12"))
    drawn_next = torch.rand(3)
    other = make_learner(results, tmp_path, distill_on="expert")
    other.load_models(str(tmp_path / "12"))
    assert (other.updates, other.t_env) == (3, 12)
    assert torch.equal(torch.rand(3), drawn_next)
    for each in (learner, other):
        each._update(each._minibatch(), with_diagnostics=False)
    assert same(weights(learner), weights(other))


# ------------------------------------------------------------------------------------------------------ the objective
SETTINGS = objective.ObjectiveSettings(
    ppo_coef=0.7,
    kl_coef=1.3,
    ce_coef=0.2,
    structure_coef=0.4,
    role_coef=0.6,
    entropy_coef=0.05,
    temperature=loss_batch.TEMPERATURE,
    ce_target="hard",
    eps_clip=loss_batch.EPS_CLIP,
    standardise_advantage=False,
)


def labelled(b):
    """`loss_batch`'s numbers as the learner holds them."""
    log_roles = losses.role_log_distribution(b.teacher_embedding, b.teacher_roles, SETTINGS.temperature)
    return LabelledEpisodes(
        obs=torch.zeros(*b.actions.shape, 1),
        avail=b.avail,
        actions=b.actions,
        behaviour_log_prob=b.behaviour,
        teacher_logits=b.teacher_logits,
        teacher_cosines=losses.pairwise_cosines(b.teacher_embedding),
        teacher_log_roles=log_roles,
        advantage=b.advantage,
        acting=b.mask,
        visible=torch.ones(len(b.actions), b.actions.shape[2], 1),
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


def test_soft_cross_entropy_is_at_the_temperature_that_acts():
    b = loss_batch.make_batch(3)
    parts = objective.terms(
        labelled(b), b.student_logits, b.student_embedding, b.student_roles, replace(SETTINGS, ce_target="soft")
    )
    values = []
    for at in zip(*np.nonzero(b.mask.numpy()), strict=True):
        avail = b.avail[at].numpy()
        teacher = loss_batch.slow_policy(b.teacher_logits[at].numpy(), avail, 1.0)
        student = loss_batch.slow_policy(b.student_logits[at].numpy(), avail, 1.0)
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


def padded(batch, episodes, steps):
    """The batch with padding episodes and steps, full of numbers that would show."""
    out = {}
    for item in fields(batch):
        value = getattr(batch, item.name)
        junk = 0 if item.name in ("avail", "acting", "actions") else 7.5
        time = 0 if item.name == "visible" else steps
        shape = list(value.shape)
        shape[0], shape[1] = shape[0] + episodes, shape[1] + time
        grown = torch.full(shape, junk, dtype=value.dtype)
        grown[: value.shape[0], : value.shape[1]] = value
        out[item.name] = grown
    return LabelledEpisodes(**out)


def test_padding_episodes_and_steps_change_neither_loss_nor_gradient():
    b = loss_batch.make_batch(2)
    settings = replace(SETTINGS, standardise_advantage=True)
    found = []
    for episodes, steps in ((0, 0), (3, 4)):
        batch = padded(labelled(b), episodes, steps)
        outputs = []
        for value in (b.student_logits, b.student_embedding):
            grown = torch.full((len(batch), batch.actions.shape[1], *value.shape[2:]), 3.0, dtype=value.dtype)
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
    log_prob = losses.action_log_prob(b.student_logits, b.avail, b.actions)
    batch = replace(labelled(b), behaviour_log_prob=log_prob, teacher_logits=b.student_logits + 3.0)
    found = objective.diagnostics(batch, b.student_logits, eps_clip=0.2)
    assert {name: round(float(value), 9) for name, value in found.items()} == {
        "clip_fraction": 0.0,
        "effective_sample_size": 1.0,
        "agreement": 1.0,
    }


# ----------------------------------------------------------------------------------------------------- the expert data
def slow_advantages(learner, gamma, lam):
    """Eqs. 1 and 2 by a loop over every episode of the buffer, with the teacher's critic one state at a time."""
    data = ExpertBuffer.open(learner.args.buffer_folder).gather(range(learner.expert.buffer.episodes))
    facts = learner.teacher.artifact.normalisers
    (r_mean, r_std), (v_mean, v_std) = ((facts[k]["mean"][0], facts[k]["std"][0]) for k in ("reward", "value"))
    critic = learner.teacher.critic

    def value(episode, t, agent):
        with torch.no_grad():
            x = torch.cat([data["state"][episode, t], torch.eye(AGENTS)[agent]])
            return float(critic.fc3(torch.relu(critic.fc2(torch.relu(critic.fc1(x)))))) * v_std + v_mean

    out = np.zeros((len(data["length"]), LIMIT, AGENTS))
    for episode, length in enumerate(data["length"].tolist()):
        assert bool(data["terminated"][episode, length - 1]) != bool(data["truncated"][episode, length - 1])
        for agent in range(AGENTS):
            running = 0.0
            for t in reversed(range(length)):
                after = 0.0 if data["terminated"][episode, t] else value(episode, t + 1, agent)
                reward = (float(data["reward"][episode, t, 0]) - r_mean) / r_std
                running = reward + gamma * after - value(episode, t, agent) + gamma * lam * running
                out[episode, t, agent] = running
    return out, data


def test_advantages_are_those_of_the_teachers_critic_in_its_own_scale(learner):
    gamma = learner.teacher.artifact.facts["gamma"]
    assert learner.labeller.gamma == gamma == 0.9  # gamma: null means the discount the critic was trained with
    expected, data = slow_advantages(learner, gamma, learner.settings.gae_lambda)
    assert bool(data["truncated"].any()) and bool(data["terminated"].any())
    np.testing.assert_allclose(learner.expert._advantage.numpy(), expected, atol=5e-6)


def test_another_discount_is_used_where_it_is_asked_for(results, tmp_path):
    learner = make_learner(results, tmp_path, gamma=0.5, gae_lambda=0.3)
    expected, _ = slow_advantages(learner, 0.5, 0.3)
    np.testing.assert_allclose(learner.expert._advantage.numpy(), expected, atol=5e-6)


def test_a_sample_holds_different_episodes_with_their_own_labels(learner):
    expert, teacher = learner.expert, learner.teacher
    sample = expert.sample(10, np.random.default_rng(3))
    chosen = np.random.default_rng(3).choice(expert.buffer.episodes, size=10, replace=False)
    assert len(set(chosen)) == len(sample) == 10
    data = expert.buffer.gather(chosen)
    assert torch.equal(sample.obs, data["obs"][:, :-1])
    assert torch.equal(sample.advantage, expert._advantage[torch.from_numpy(chosen)])
    logits, embedding = teacher.label({"obs": sample.obs, "state": data["state"][:, :-1], "actions": sample.actions})
    log_prob = losses.action_log_prob(logits, sample.avail, sample.actions)
    inside = sample.acting > 0
    torch.testing.assert_close(sample.teacher_logits[inside], logits[inside], rtol=0, atol=1e-5)
    torch.testing.assert_close(sample.behaviour_log_prob[inside], log_prob[inside], rtol=0, atol=1e-5)
    # Embeddings are stored in half precision.
    pairs = sample.acting_pairs > 0
    cosines = losses.pairwise_cosines(embedding)
    torch.testing.assert_close(sample.teacher_cosines[pairs], cosines[pairs], rtol=0, atol=2e-3)
    steps = torch.arange(LIMIT) < data["length"].unsqueeze(1)
    several = data["avail_actions"][:, :-1].sum(-1) > 1
    assert torch.equal(inside, steps.unsqueeze(-1) & several)
    assert not bool(several[steps].all()), "the toy task has dead agents"


def test_a_sample_larger_than_the_buffer_is_the_whole_buffer(learner):
    assert len(learner.expert.sample(10_000, np.random.default_rng(0))) == learner.expert.buffer.episodes == 24


def test_every_sampled_episode_has_a_mask_of_its_own_where_masks_are_drawn(results, tmp_path):
    learner = make_learner(results, tmp_path, limits="lh", masks="", masks_preset="random")
    visible = learner.expert.sample(20, np.random.default_rng(0)).visible
    assert visible.shape == (20, AGENTS, OBS)
    assert bool((visible.sum(-1) == 3).all())
    assert len({tuple(v.flatten().tolist()) for v in visible}) > 10


def test_the_students_own_episodes_carry_their_masks_and_log_probabilities(results, tmp_path):
    learner = make_learner(
        results, tmp_path, limits="lh", masks="", masks_preset="random", distill_on="student", widths=8
    )
    data = learner.expert.buffer.gather(range(4))
    filled = (torch.arange(LIMIT) < data["length"].unsqueeze(1)).float().unsqueeze(-1)
    from kd_learners.batches import Episodes

    episodes = Episodes(
        obs=data["obs"],
        state=data["state"],
        avail_actions=data["avail_actions"].int(),
        actions=data["actions"].long(),
        reward=data["reward"],
        terminated=data["terminated"].float().unsqueeze(-1),
        filled=filled,
    )
    learner.mac.init_hidden(4)
    learner._add_recent(episodes)
    (block,) = learner.recent._blocks
    assert torch.equal(block.visible, learner.mac.visible)
    for row in range(4):
        for agent in range(AGENTS):
            network, state = learner.mac.agent.agent_network(agent), torch.zeros(1, 8)
            for t in range(int(data["length"][row])):
                seen = (data["obs"][row, t, agent] * block.visible[row, agent])[list(learner.mac.mask.indices(agent))]
                with torch.no_grad():
                    logits, state = network(seen.unsqueeze(0), state)
                open_logits = logits[0].masked_fill(data["avail_actions"][row, t, agent] == 0, -torch.inf)
                expected = open_logits.log_softmax(-1)[data["actions"][row, t, agent]]
                torch.testing.assert_close(block.behaviour_log_prob[row, t, agent], expected, rtol=0, atol=2e-6)
    # The same episodes by the same teacher: the same labels as the buffer's.
    inside = block.acting > 0
    torch.testing.assert_close(block.teacher_logits[inside], data["teacher_logits"][inside], rtol=0, atol=1e-5)
    torch.testing.assert_close(block.advantage, learner.expert._advantage[:4], rtol=0, atol=1e-5)


# --------------------------------------------------------------------------------------------------- recent episodes
def tagged(first, count, time=2):
    """Episodes first, first + 1, ...: every number of an episode is its own number."""

    def block(*shape, dtype=torch.float32):
        numbers = torch.arange(first, first + count).view(-1, *[1] * len(shape))
        return numbers.expand(count, *shape).to(dtype)

    return LabelledEpisodes(
        obs=block(time, 2, 3),
        avail=block(time, 2, 4, dtype=torch.uint8),
        actions=block(time, 2, dtype=torch.int64),
        behaviour_log_prob=block(time, 2),
        teacher_logits=block(time, 2, 4),
        teacher_cosines=block(time, 1),
        teacher_log_roles=block(time, 2, 2),
        advantage=block(time, 2),
        acting=block(time, 2),
        visible=block(2, 3),
    )


@pytest.mark.parametrize(("capacity", "kept"), [(8, 8), (10, 12), (12, 12), (1, 4)])
def test_the_oldest_episodes_are_forgotten_beyond_the_capacity(capacity, kept):
    recent = RecentEpisodes(capacity)
    held = []
    for start in range(1, 30, 4):
        recent.add(tagged(start, 4), time=5)
        held.append(len(recent))
    # Whole blocks are dropped, and never so many that fewer than the capacity are left.
    assert held == [min(4 * blocks, kept) for blocks in range(1, 9)]
    drawn = recent.sample(400)
    assert set(drawn.visible[:, 0, 0].tolist()) == set(range(33 - kept, 33))


def test_sampling_draws_every_episode_alike_and_keeps_its_numbers_together():
    recent = RecentEpisodes(capacity=100)
    for start, count in ((1, 2), (3, 5), (8, 1)):
        recent.add(tagged(start, count), time=5)
    drawn = recent.sample(8000)
    numbers = drawn.visible[:, 0, 0]
    share = torch.bincount(numbers.long(), minlength=9)[1:] / 8000
    torch.testing.assert_close(share, torch.full((8,), 0.125), rtol=0, atol=0.02)
    for item in fields(drawn):
        value = getattr(drawn, item.name).double().flatten(1) if item.name == "visible" else None
        if value is None:
            whole = getattr(drawn, item.name).double()
            assert whole.shape[1] == 5
            assert whole[:, 2:].abs().sum() == 0, "padded with zeros"
            value = whole[:, :2].flatten(1)
        assert bool((value == numbers.double().unsqueeze(1)).all()), item.name


def test_what_is_kept_is_a_copy():
    recent, block = RecentEpisodes(capacity=10), tagged(1, 2)
    source = replace(block, **{item.name: getattr(block, item.name).clone() for item in fields(block)})
    recent.add(source, time=2)
    for item in fields(source):
        getattr(source, item.name).fill_(0)
    assert set(recent.sample(50).obs.unique().tolist()) == {1.0, 2.0}


# ----------------------------------------------------------------------------------------------------------- the roles
def test_kmeans_finds_the_directions_of_the_clusters():
    centres = 4 * torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0]])
    rows = centres.repeat_interleave(200, 0) + 0.01 * torch.randn(600, 4)
    projection = roles.teacher_roles(rows[torch.randperm(600)], 3, "kmeans", seed=0)
    directions = torch.nn.functional.normalize(centres - centres.mean(0), dim=1)
    assert projection.shape == (3, 4) and projection.dtype == torch.float32
    torch.testing.assert_close(projection.norm(dim=1), torch.ones(3))
    nearest = (projection @ directions.T).max(0).values
    torch.testing.assert_close(nearest, torch.ones(3), rtol=0, atol=1e-4)
    # Each embedding's most probable role is its cluster.
    found = (rows @ projection.T).view(3, 200, 3).argmax(-1)
    assert all(len(cluster.unique()) == 1 for cluster in found)


def test_orthogonal_roles_are_orthonormal_and_ignore_the_embeddings():
    first, other = (roles.teacher_roles(torch.randn(5, 6), 4, "orthogonal", seed=3) for _ in range(2))
    assert torch.equal(first, other)
    torch.testing.assert_close(first @ first.T, torch.eye(4), rtol=0, atol=1e-5)
    assert not torch.equal(first, roles.teacher_roles(torch.randn(5, 6), 4, "orthogonal", seed=4))


def test_roles_are_the_same_for_the_same_seed():
    rows = torch.randn(300, 8)
    assert torch.equal(*(roles.teacher_roles(rows, 4, "kmeans", seed=1) for _ in range(2)))


@pytest.mark.parametrize(
    ("count", "init", "message"),
    [
        (3, "kmeans", "3 embeddings make no 4 roles: export more episodes or set n_roles"),
        (9, "kmean", "role_init is 'kmean': choose one of kmeans, orthogonal"),
    ],
)
def test_wrong_roles_are_refused(count, init, message):
    with pytest.raises(UserError, match=message):
        roles.teacher_roles(torch.randn(count, 8), 4, init, seed=0)


def test_the_number_of_roles_follows_the_number_of_agents():
    assert [roles.default_n_roles(n) for n in (1, 2, 3, 8, 27)] == [2, 2, 3, 8, 8]


@pytest.mark.parametrize(("role_init", "n_roles"), [("kmeans", 0), ("orthogonal", 5)])
def test_the_teachers_roles_are_fixed_and_the_students_are_learnt(results, tmp_path, role_init, n_roles):
    learner = make_learner(results, tmp_path, role_init=role_init, n_roles=n_roles, distill_on="expert")
    count = n_roles or 2
    assert learner.labeller.teacher_roles.shape == (count, 16)
    assert learner.student_roles.shape == (count, 12)
    fixed, learnt = learner.labeller.teacher_roles.clone(), learner.student_roles.detach().clone()
    learner._update(learner._minibatch(), with_diagnostics=False)
    assert torch.equal(learner.labeller.teacher_roles, fixed)
    assert not torch.equal(learner.student_roles, learnt)


# ------------------------------------------------------------------------------------------------- a teacher of EPyMARL
def foreign_teacher(results, folder, **changes):
    """What EPyMARL's mappo leaves behind: weights, here the toy teacher's, and a Sacred config."""
    folder.mkdir()
    for name in ("agent.th", "critic.th"):
        shutil.copy(results / "teacher" / name, folder / name)
    config = {
        "name": "mappo",
        "seed": 3,
        "env_args": {"key": TASK},
        "agent": "rnn",
        "critic_type": "cv_critic",
        "gamma": 0.9,
        "use_rnn": True,
        "obs_agent_id": True,
        "obs_last_action": False,
        "obs_individual_obs": False,
        "standardise_rewards": True,
        "standardise_returns": False,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return {"teacher": str(folder), "teacher_config": str(folder / "config.json")}


def test_a_foreign_teachers_reward_statistics_are_estimated_with_a_warning(results, tmp_path, caplog, monkeypatch):
    given = foreign_teacher(results, tmp_path / "mappo")
    monkeypatch.setattr(logging.getLogger("kd_marl"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        learner = make_learner(results, tmp_path, distill_on="expert", **given)
    assert any("has no reward statistics: they will be re-estimated" in line for line in caplog.messages)
    data = ExpertBuffer.open(results / "buffer").gather(range(24), ("reward", "length"))
    rewards = np.concatenate([data["reward"][e, :n, 0] for e, n in enumerate(data["length"].tolist())])
    scale = learner.teacher.reward_scale
    assert float(scale.mean) == pytest.approx(rewards.mean(), abs=1e-6)
    assert float(scale.std) == pytest.approx(rewards.std(ddof=1), abs=1e-6)
    assert (float(learner.teacher.value_scale.mean), float(learner.teacher.value_scale.std)) == (0.0, 1.0)
    learner._update(learner._minibatch(), with_diagnostics=False)


def test_a_foreign_teacher_with_lost_return_statistics_is_refused(results, tmp_path):
    given = foreign_teacher(results, tmp_path / "mappo", standardise_returns=True)
    with pytest.raises(UserError, match="was trained with standardise_returns=True, and its statistics are lost"):
        make_learner(results, tmp_path, **given)


# ------------------------------------------------------------------------------------------------------- the settings
@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"distill_on": "both"}, "distill_on is 'both': choose one of expert, student, mixed"),
        ({"student_share": 1.5}, "student_share is 1.5: it must lie between 0 and 1"),
        ({"ce_target": "soft-ish"}, "ce_target is 'soft-ish': choose one of hard, soft"),
        ({"temperature": 0}, "temperature is 0.0: it must be above 0"),
        ({"lr": "fast"}, "lr is 'fast': expected a value of type float"),
        ({"widths": [8, 8, 8]}, "widths has 3 numbers, but toy-signals-v0 has 2 agents"),
        ({"sharing": "some"}, "sharing is 'some'"),
        ({"mask_at": "environment"}, "needs mac=hetero_mac and mask_at=controller"),
        ({"batch_size": 2}, "set batch_size, buffer_size and batch_size_run to the same number"),
        ({"eval_episodes": 0}, "eval_episodes is 0: expected a number of episodes of at least 1"),
    ],
)
def test_an_impossible_setting_is_one_line_before_anything_is_made(results, tmp_path, updates, message):
    with pytest.raises(UserError, match=message) as caught:
        make_learner(results, tmp_path, **updates)
    assert "\n" not in str(caught.value)


def test_a_gpu_is_refused(learner):
    with pytest.raises(UserError, match="runs on the CPU: set use_cuda=False"):
        learner.cuda()


# ---------------------------------------------------------------------------------------------------------- the result
def copy_of_the_teacher(learner):
    """Students as wide as the teacher, seeing everything, with its weights: the agent's identity becomes a bias."""
    source = learner.teacher.mac.agent
    (group,) = learner.mac.agent.groups
    with torch.no_grad():
        for i in range(AGENTS):
            group.aligner_weight[i] = source.fc1.weight[:, :OBS].T
            group.aligner_bias[i, 0] = source.fc1.bias + source.fc1.weight[:, OBS + i]
            for name in ("weight_ih", "weight_hh"):
                getattr(group, name)[i] = getattr(source.rnn, name).T
            for name in ("bias_ih", "bias_hh"):
                getattr(group, name)[i, 0] = getattr(source.rnn, name)
            group.head_weight[i] = source.fc2.weight.T
            group.head_bias[i, 0] = source.fc2.bias


@pytest.mark.parametrize("episodes", [7, 8])
def test_a_copy_of_the_teacher_scores_as_the_teacher_in_the_same_episodes(results, tmp_path, episodes):
    learner = make_learner(results, tmp_path, masks="", widths=16, eval_episodes=episodes)
    copy_of_the_teacher(learner)
    summary = evaluation.evaluate(learner.args, learner.teacher, learner.mac)
    assert summary["agreement"] == 1.0
    for name in ("return_mean", "return_std"):
        assert summary["student"][name] == summary["teacher"][name]
    assert summary["student"]["sampled"]["return_mean"] == summary["teacher"]["sampled"]["return_mean"]
    assert (summary["retention"], summary["retention_normalised"]) == (1.0, 1.0)
    assert summary["random"]["return_mean"] != summary["teacher"]["return_mean"]


def test_the_summary_adds_up(results, tmp_path, monkeypatch):
    learner = make_learner(results, tmp_path, eval_episodes=10)
    played, begun = [], []
    play = evaluation.Arena.play

    def remembered(self, *args, **kwargs):
        begun.append(0)
        played.append(play(self, *args, **kwargs))
        return played[-1]

    reset = SignalEnv.reset

    def counted(self, seed=None, options=None):
        begun[-1] += 1
        return reset(self, seed, options)

    monkeypatch.setattr(evaluation.Arena, "play", remembered)
    monkeypatch.setattr(SignalEnv, "reset", counted)
    args = SimpleNamespace(**{**vars(learner.args), "runner": "episode", "batch_size_run": 1})
    summary = evaluation.evaluate(args, learner.teacher, learner.mac)
    # Teacher, student and random greedily, teacher and student sampled; the last count also has the agreement's.
    assert [len(result.returns) for result in played] == [10] * 5
    assert begun == [10, 10, 10, 10, 20]
    teacher, student, random = (summary[name]["return_mean"] for name in ("teacher", "student", "random"))
    assert [teacher, student, random] == [float(result.returns.mean()) for result in played[:3]]
    assert summary["student"]["return_std"] == float(played[1].returns.std())
    assert summary["retention"] == pytest.approx(1 - abs(student - teacher) / abs(teacher))
    assert summary["retention_normalised"] == pytest.approx((student - random) / (teacher - random))
    assert (summary["task"], summary["limits"], summary["seed"], summary["episodes"]) == (TASK, "fo", 1, 10)
    assert all(summary[name]["win_rate"] is None for name in ("teacher", "student", "random"))
    assert 0.0 <= summary["agreement"] <= 1.0

    of_teacher = closed_formula(OBS + AGENTS, 16, ACTIONS)
    of_students = [closed_formula(3, 8, ACTIONS), closed_formula(4, 12, ACTIONS)]
    assert summary["flops_per_decision_teacher"] == of_teacher
    assert summary["flops_per_decision_student"] == np.mean(of_students)
    assert summary["flops_ratio"] == pytest.approx(of_teacher / np.mean(of_students))
    lengths = [float(result.lengths.mean()) for result in played[:2]]
    assert summary["flops_per_episode_teacher"] == pytest.approx(AGENTS * of_teacher * lengths[0])
    assert summary["flops_per_episode_student"] == pytest.approx(sum(of_students) * lengths[1])

    def size(d, w):
        return d * w + w + 6 * w * w + 6 * w + w * ACTIONS + ACTIONS

    assert summary["params_teacher"] == size(OBS + AGENTS, 16)
    assert summary["params_student"] == np.mean([size(3, 8), size(4, 12)])
    assert (summary["widths"], summary["inputs"]) == ([8, 12], [3, 4])


@pytest.mark.parametrize("episodes", [1, 6, 7, 12])
def test_exactly_the_episodes_asked_for_are_played_whatever_the_block(results, tmp_path, episodes):
    learner = make_learner(results, tmp_path, eval_episodes=episodes)
    arena = evaluation.Arena(HOST, learner.args, episodes)

    def make(scheme, options):
        return learner.teacher.mac

    assert len(arena.play(make, masked=False, label="").returns) == episodes


def test_agreement_is_counted_over_the_decisions_taken_in_the_unmasked_environment(results, tmp_path):
    learner = make_learner(results, tmp_path, eval_episodes=12)
    student, agent = learner.mac, learner.teacher.mac.agent
    same_choice = []

    def make(scheme, options):
        mac = HeteroMAC(scheme, None, options)
        mac.load_state(student)
        mac.greedy = True
        return mac

    arena = evaluation.Arena(HOST, learner.args, 12)
    for batch, _, _ in arena.blocks(make, masked=False, label=""):
        for row in range(batch.batch_size):
            length = int(batch["filled"][row].sum()) - 1
            for i in range(AGENTS):
                hidden, identity = torch.zeros(1, 16), torch.eye(AGENTS)[i]
                for t in range(length):
                    logits, hidden = agent(torch.cat([batch["obs"][row, t, i], identity]).unsqueeze(0), hidden)
                    avail = batch["avail_actions"][row, t, i]
                    if avail.sum() > 1:
                        wanted = logits[0].masked_fill(avail == 0, -torch.inf).argmax()
                        same_choice.append(bool(wanted == batch["actions"][row, t, i, 0]))
    summary = evaluation.evaluate(learner.args, learner.teacher, student)
    assert 0 < np.mean(same_choice) < 1
    assert summary["agreement"] == pytest.approx(np.mean(same_choice), abs=1e-6)


def test_an_evaluation_repeats_itself(results, tmp_path):
    learner = make_learner(results, tmp_path)
    once, again = (evaluation.evaluate(learner.args, learner.teacher, learner.mac) for _ in range(2))
    for summary in (once, again):
        for name in ("decision_us_teacher", "decision_us_student"):
            assert summary.pop(name) > 0
    assert once == again


def test_the_state_is_what_the_toy_task_says(learner):
    assert (learner.teacher.sizes.obs_size, learner.teacher.sizes.state_size) == (OBS, STATE)
