"""What the students learn from: samples of the expert buffer, and recent episodes of their own."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from kd_core.artifacts.expert_buffer import ExpertBuffer
from kd_learners import losses
from kd_learners.labelled import LabelledSteps, RecentEpisodes
from tiny_stages import AGENTS, LIMIT, OBS
from tiny_students import make_learner

# What decides where an episode ends.
ENDS = ("length", "acting")


# ----------------------------------------------------------------------------------------------------- the expert data
def slow_advantages(learner, gamma, lam):
    """Eqs. 1 and 2 by a loop over every episode of the buffer, with the teacher's critic one state at a time."""
    data = ExpertBuffer.open(learner.context.buffer_folder).gather(range(learner.expert.buffer.episodes))
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


def up_to_the_last_decision(acting):
    """Steps of each episode up to its last decision, and where they are, of ``(batch, time, agents)``."""
    length = [max([t + 1 for t in range(len(rows)) if rows[t].any()], default=1) for rows in acting]
    kept = torch.zeros(acting.shape[:2], dtype=torch.bool)
    for row, steps in enumerate(length):
        kept[row, :steps] = True
    return torch.tensor(length), kept


def test_a_sample_holds_different_episodes_with_their_own_labels(learner):
    expert, teacher = learner.expert, learner.teacher
    sample = expert.sample(10, np.random.default_rng(3))
    chosen = np.random.default_rng(3).choice(expert.buffer.episodes, size=10, replace=False)
    assert len(set(chosen)) == len(sample) == 10
    data = expert.buffer.gather(chosen)
    several = data["avail_actions"][:, :-1].sum(-1) > 1
    within = torch.arange(LIMIT) < data["length"].unsqueeze(1)
    length, kept = up_to_the_last_decision(several & within.unsqueeze(-1))
    assert torch.equal(sample.length, length)
    assert torch.equal(sample.obs, data["obs"][:, :-1][kept])
    assert torch.equal(sample.advantage, expert._labels[0][torch.from_numpy(chosen)][kept])
    steps = {"obs": data["obs"][:, :-1], "state": data["state"][:, :-1], "actions": data["actions"].long()}
    logits, embedding = (x[kept] for x in teacher.label(steps, data["length"]))
    log_prob = losses.action_log_prob(losses.masked_log_softmax(logits, sample.avail), sample.actions)
    inside = sample.acting > 0
    torch.testing.assert_close(sample.teacher_logits[inside], logits[inside], rtol=0, atol=1e-5)
    torch.testing.assert_close(sample.behaviour_log_prob[inside], log_prob[inside], rtol=0, atol=1e-5)
    # Embeddings are stored in half precision.
    pairs = sample.acting_pairs > 0
    cosines = losses.pairwise_cosines(embedding)
    torch.testing.assert_close(sample.teacher_cosines[pairs], cosines[pairs], rtol=0, atol=2e-3)
    assert torch.equal(inside, several[kept])
    assert not bool(several[within].all()), "the toy task has dead agents"


def test_a_sample_larger_than_the_buffer_is_the_whole_buffer(learner):
    assert len(learner.expert.sample(10_000, np.random.default_rng(0))) == learner.expert.buffer.episodes == 24


def test_every_sampled_episode_has_a_mask_of_its_own_where_masks_are_drawn(results, tmp_path):
    learner = make_learner(results, tmp_path, limits="lh", masks="", masks_preset="random")
    sample = learner.expert.sample(20, np.random.default_rng(0))
    assert sample.obs.shape[1:] == (AGENTS, OBS)
    seen = [(steps != 0).any(dim=0) for steps in sample.obs.split(sample.length.tolist())]
    assert all(bool((one.sum(-1) <= 3).all()) for one in seen)
    assert max(int(one.sum(-1).max()) for one in seen) == 3
    assert len({tuple(one.flatten().tolist()) for one in seen}) > 10


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
    several = (data["avail_actions"][:, :-1].sum(-1) > 1) & (filled > 0)
    length, kept = up_to_the_last_decision(several)
    assert torch.equal(block.length, length)
    hidden = data["obs"][:, :-1] * learner.mac.visible.unsqueeze(1)
    assert torch.equal(block.obs, hidden[kept])
    log_probs = block.behaviour_log_prob.split(length.tolist())
    for row in range(4):
        for agent in range(AGENTS):
            network, state = learner.mac.agent.agent_network(agent), torch.zeros(1, 8)
            for t in range(int(length[row])):
                seen = hidden[row, t, agent, list(learner.mac.mask.indices(agent))]
                with torch.no_grad():
                    logits, state = network(seen.unsqueeze(0), state)
                open_logits = logits[0].masked_fill(data["avail_actions"][row, t, agent] == 0, -torch.inf)
                expected = open_logits.log_softmax(-1)[data["actions"][row, t, agent]]
                torch.testing.assert_close(log_probs[row][t, agent], expected, rtol=0, atol=2e-6)
    # The same episodes by the same teacher: the same labels as the buffer's.
    inside = block.acting > 0
    stored = data["teacher_logits"][kept]
    torch.testing.assert_close(block.teacher_logits[inside], stored[inside], rtol=0, atol=1e-5)
    torch.testing.assert_close(block.advantage, learner.expert._labels[0][:4][kept], rtol=0, atol=1e-5)


# --------------------------------------------------------------------------------------------------- recent episodes
def tagged(first, count, time=2, lengths=None):
    """Episodes first, first + 1, ...: every number of an episode is its own number."""
    lengths = torch.tensor(lengths or [time] * count)
    acting = (torch.arange(max(lengths)) < lengths.unsqueeze(1)).float().unsqueeze(-1).expand(-1, -1, 2)

    def block(*shape, dtype=torch.float32):
        numbers = torch.arange(first, first + count).view(-1, 1, *[1] * len(shape))
        return numbers.expand(count, int(max(lengths)), *shape).to(dtype)

    return LabelledSteps.of(
        acting,
        obs=block(2, 3),
        avail=block(2, 4, dtype=torch.uint8),
        actions=block(2, dtype=torch.int64),
        behaviour_log_prob=block(2),
        teacher_logits=block(2, 4),
        teacher_cosines=block(1),
        teacher_log_roles=block(2, 2),
        advantage=block(2),
        teacher_embedding=block(2, 6),
        state=block(5),
        speaks=block(2, dtype=torch.uint8),
        delivered=block(2, 2, dtype=torch.uint8),
        labelled_by=block(dtype=torch.int64),
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
    assert set(drawn.state[:, 0].tolist()) == set(range(33 - kept, 33))


def test_sampling_draws_every_episode_alike_and_keeps_its_numbers_together():
    recent, steps = RecentEpisodes(capacity=100), [2, 1, 5, 3, 5, 1, 4, 3]
    for start, count in ((1, 2), (3, 5), (8, 1)):
        recent.add(tagged(start, count, lengths=steps[start - 1 : start - 1 + count]))
    drawn = recent.sample(8000)
    begins = drawn.length.cumsum(0) - drawn.length
    numbers = drawn.state[begins, 0].long()
    share = torch.bincount(numbers, minlength=9)[1:] / 8000
    torch.testing.assert_close(share, torch.full((8,), 0.125), rtol=0, atol=0.02)
    assert torch.equal(drawn.length, torch.tensor(steps)[numbers - 1])
    expected = numbers.repeat_interleave(drawn.length).double().unsqueeze(1)
    for item in fields(drawn):
        if item.name not in ENDS:
            value = getattr(drawn, item.name).double().view(len(expected), -1)
            assert bool((value == expected).all()), item.name
    assert bool((drawn.acting == 1).all())


def test_an_episode_ends_with_its_last_decision():
    block = torch.arange(24.0).view(3, 4, 2)
    acting = torch.zeros(3, 4, 2)
    acting[0, 3, 1] = acting[1, 1, 0] = acting[1, 0, 1] = 1
    found = LabelledSteps.of(acting, **{item.name: block for item in fields(LabelledSteps) if item.name not in ENDS})
    # The last episode has no decision at all: one step of it stays, which counts nowhere.
    assert found.length.tolist() == [4, 2, 1]
    expected = torch.cat([block[0], block[1, :2], block[2, :1]])
    assert torch.equal(found.obs, expected) and torch.equal(found.state, expected)
    assert torch.equal(found.acting, torch.cat([acting[0], acting[1, :2], acting[2, :1]]))


def test_what_is_kept_is_a_copy():
    recent, source = RecentEpisodes(capacity=10), torch.arange(1.0, 3.0).view(2, 1, 1)
    named = {item.name: source for item in fields(LabelledSteps) if item.name not in ENDS}
    recent.add(LabelledSteps.of(torch.ones(2, 1, 1), **named))
    source.fill_(0)
    assert set(recent.sample(50).obs.unique().tolist()) == {1.0, 2.0}
