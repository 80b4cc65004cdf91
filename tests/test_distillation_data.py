"""What the students learn from: samples of the expert buffer, and recent episodes of their own."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from kd_learners import losses
from kd_learners.labelled import LabelledEpisodes, RecentEpisodes
from kd_marl.artifacts.expert_buffer import ExpertBuffer
from tiny_stages import AGENTS, LIMIT, OBS
from tiny_students import make_learner


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
    np.testing.assert_allclose(learner.expert._labels[0].numpy(), expected, atol=5e-6)


def test_another_discount_is_used_where_it_is_asked_for(results, tmp_path):
    learner = make_learner(results, tmp_path, gamma=0.5, gae_lambda=0.3)
    expected, _ = slow_advantages(learner, 0.5, 0.3)
    np.testing.assert_allclose(learner.expert._labels[0].numpy(), expected, atol=5e-6)


def test_a_sample_holds_different_episodes_with_their_own_labels(learner):
    expert, teacher = learner.expert, learner.teacher
    sample = expert.sample(10, np.random.default_rng(3))
    chosen = np.random.default_rng(3).choice(expert.buffer.episodes, size=10, replace=False)
    assert len(set(chosen)) == len(sample) == 10
    data = expert.buffer.gather(chosen)
    assert torch.equal(sample.obs, data["obs"][:, :-1])
    assert torch.equal(sample.advantage, expert._labels[0][torch.from_numpy(chosen)])
    logits, embedding = teacher.label(
        {"obs": sample.obs, "state": data["state"][:, :-1], "actions": sample.actions}, data["length"]
    )
    log_prob = losses.action_log_prob(losses.masked_log_softmax(logits, sample.avail), sample.actions)
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
    torch.testing.assert_close(block.advantage, learner.expert._labels[0][:4], rtol=0, atol=1e-5)


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
        teacher_embedding=block(time, 2, 6),
        state=block(time, 5),
    )


@pytest.mark.parametrize(("capacity", "kept"), [(8, 8), (10, 12), (12, 12), (1, 4)])
def test_the_oldest_episodes_are_forgotten_beyond_the_capacity(capacity, kept):
    recent = RecentEpisodes(capacity)
    held = []
    for start in range(1, 30, 4):
        recent.add(tagged(start, 4))
        held.append(len(recent))
    # Whole blocks are dropped, and never so many that fewer than the capacity are left.
    assert held == [min(4 * blocks, kept) for blocks in range(1, 9)]
    drawn = recent.sample(400)
    assert set(drawn.visible[:, 0, 0].tolist()) == set(range(33 - kept, 33))


def test_sampling_draws_every_episode_alike_and_keeps_its_numbers_together():
    recent = RecentEpisodes(capacity=100)
    for start, count, time in ((1, 2, 2), (3, 5, 5), (8, 1, 3)):
        recent.add(tagged(start, count, time))
    drawn = recent.sample(8000)
    numbers = drawn.visible[:, 0, 0]
    share = torch.bincount(numbers.long(), minlength=9)[1:] / 8000
    torch.testing.assert_close(share, torch.full((8,), 0.125), rtol=0, atol=0.02)
    for item in fields(drawn):
        value = getattr(drawn, item.name).double().flatten(1) if item.name == "visible" else None
        if value is None:
            whole = getattr(drawn, item.name).double()
            assert whole.shape[1] == 5
            assert whole[numbers < 3, 2:].abs().sum() == 0, "padded with zeros"
            value = whole[:, :2].flatten(1)
        assert bool((value == numbers.double().unsqueeze(1)).all()), item.name


def test_trimming_leaves_out_the_steps_after_the_last_decision_and_nothing_else():
    block = tagged(1, 3, time=4)
    acting = torch.zeros_like(block.acting)
    acting[1, 1, 0] = 1
    short = replace(block, acting=acting).trimmed()
    for item in fields(short):
        whole, got = getattr(block, item.name), getattr(short, item.name)
        expected = acting[:, :2] if item.name == "acting" else whole if item.name == "visible" else whole[:, :2]
        assert torch.equal(got, expected), item.name
    nobody = replace(block, acting=torch.zeros_like(acting)).trimmed()
    assert nobody.actions.shape[1] == 1


def test_what_is_kept_is_a_copy():
    recent, block = RecentEpisodes(capacity=10), tagged(1, 2)
    source = replace(block, **{item.name: getattr(block, item.name).clone() for item in fields(block)})
    recent.add(source)
    for item in fields(source):
        getattr(source, item.name).fill_(0)
    assert set(recent.sample(50).obs.unique().tolist()) == {1.0, 2.0}
