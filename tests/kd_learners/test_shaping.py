"""The balance of forces as a potential, and who counts it: the teacher's training and what its critic then judges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kd_core.errors import UserError
from kd_learners import batches, frozen_teacher, shaping
from kd_learners.shaping import ForceBalance, potential, shaped
from tiny_students import make_learner as make_student
from tiny_teachers import ENDINGS, make_learner, played

ROW = 10


def slow_balance(ours, theirs):
    """Lanchester's square law in float64: units alive times the sum of their health, of either side."""
    force = [sum(1 for health in side if health > 0) * float(np.sum(side)) for side in (ours, theirs)]
    return (force[0] - force[1]) / sum(force) if sum(force) else 0.0


def state_of(ours, theirs):
    rows = np.zeros((len(ours) + len(theirs), ROW + 2))
    rows[:, 1:] = 0.7  # whatever is not a health
    flat = np.concatenate([np.c_[[*ours, *theirs], rows[:, 1:ROW]].ravel(), rows[:, ROW:].ravel()])
    return torch.from_numpy(flat).float()


healths = st.lists(st.sampled_from([0.0, 0.0, 0.2, 0.5, 1.0]), min_size=1, max_size=9)


@given(healths, healths)
def test_the_balance_is_lanchesters_for_any_two_sides(ours, theirs):
    phi = ForceBalance(len(ours), len(theirs), ROW)
    value = float(phi(state_of(ours, theirs)))
    assert value == pytest.approx(slow_balance(ours, theirs), abs=1e-6)
    mirrored = float(ForceBalance(len(theirs), len(ours), ROW)(state_of(theirs, ours)))
    assert value == pytest.approx(-mirrored, abs=1e-6) and -1.0 <= value <= 1.0


def test_a_won_battle_is_worth_one_a_lost_one_minus_one_and_an_empty_field_nothing():
    phi = ForceBalance(2, 3, ROW)
    fields = [([0.2, 0.0], [0.0] * 3), ([0.0] * 2, [0.0, 0.1, 0.0]), ([0.0] * 2, [0.0] * 3), ([1.0] * 2, [1.0] * 3)]
    values = phi(torch.stack([state_of(*field) for field in fields]))
    torch.testing.assert_close(values, torch.tensor([1.0, -1.0, 0.0, (4.0 - 9.0) / 13.0]))


def test_shaping_adds_what_a_step_changed_and_nothing_after_the_end():
    episodes = batches.from_host(played())
    phi = ForceBalance(1, 1, 2)
    rewards = shaped(episodes, phi, 0.5)
    assert rewards.shape == episodes.reward.shape
    for row, (length, _) in enumerate(ENDINGS):
        values = [slow_balance(*([float(x)] for x in state[[0, 2]])) for state in episodes.state[row].numpy()]
        for t in range(rewards.shape[1]):
            expected = float(episodes.reward[row, t, 0]) + 0.5 * (values[t + 1] - values[t]) if t < length else 0
            assert float(rewards[row, t, 0]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_only_an_environment_whose_units_are_known_can_be_shaped(tmp_path):
    assert potential("smax", 5, 12 * 11, "5m_vs_6m") == ForceBalance(5, 6, ROW)
    with pytest.raises(UserError, match="smax, or a warehouse of rware, not tiny_signals; set shaping=0"):
        make_learner(tmp_path, shaping=1.0)


def test_the_teachers_returns_count_the_shaping(tmp_path, monkeypatch):
    monkeypatch.setattr(shaping, "potential", lambda *_: ForceBalance(1, 1, 2))
    plain, with_it = (make_learner(tmp_path, shaping=weight) for weight in (0.0, 0.5))
    with_it.critic.load_state_dict(plain.critic.state_dict())
    episodes = batches.from_host(played())
    for learner in (plain, with_it):
        learner._prepare(episodes)
    gamma, lam = plain.settings.gamma, plain.settings.gae_lambda
    gain = shaped(episodes, ForceBalance(1, 1, 2), 0.5) - episodes.reward * episodes.filled
    # The same values, so that the lambda-returns differ by the discounted sum of what was added.
    after, added = np.zeros(len(gain)), []
    for t in reversed(range(gain.shape[1])):
        after = gain[:, t, 0].double().numpy() + gamma * lam * after
        added.append(after)
    taken = episodes.filled[..., 0].numpy() > 0
    expected = plain.returns.mean + np.stack(added[::-1], axis=1)[taken].mean()
    assert with_it.returns.mean == pytest.approx(expected, abs=1e-5)
    assert abs(with_it.returns.mean - plain.returns.mean) > 1e-3
    assert with_it.facts()["shaping"] == 0.5


def test_students_judge_their_steps_with_the_reward_that_the_critic_knows(results, tmp_path, monkeypatch):
    monkeypatch.setattr(shaping, "potential", lambda *_: ForceBalance(1, 1, 2))
    teacher = make_student(results, tmp_path).teacher
    episodes = batches.from_host(played())
    rewards = shaped(episodes, ForceBalance(1, 1, 2), 0.5)
    expected = teacher.advantages(batches.Episodes(**{**vars(episodes), "reward": rewards}), teacher.gamma, 0.8)
    before = teacher.advantages(episodes, teacher.gamma, 0.8)
    teacher.artifact.facts.update(shaping=0.5)
    again = frozen_teacher.FrozenTeacher(teacher.artifact, make_student(results, tmp_path).args)
    torch.testing.assert_close(again.advantages(episodes, teacher.gamma, 0.8), expected)
    assert not torch.allclose(before, expected)
