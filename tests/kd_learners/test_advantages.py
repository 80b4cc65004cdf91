"""The distilled advantages against slow loops, limit cases and both ways in which an episode can end."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_learners.advantages import gae, standardise, td_residual, without_others

quick = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)
rates = st.floats(0.0, 1.0)


def make_episodes(seed=0, episodes=4, time=7, agents=3, rewards=1):
    """Episodes of random length; the even ones end for good, the odd ones at a time limit; rubbish in the padding."""
    rng = np.random.default_rng(seed)
    length = rng.integers(1, time + 1, episodes)
    mask = torch.from_numpy((np.arange(time) < length[:, None]).astype(np.float32)).unsqueeze(-1)
    terminated = torch.zeros(episodes, time, 1)
    for episode in range(0, episodes, 2):
        terminated[episode, length[episode] - 1] = 1
    reward = torch.from_numpy(rng.standard_normal((episodes, time, rewards)))
    value = torch.from_numpy(rng.standard_normal((episodes, time + 1, agents)))
    return reward, value, terminated, mask, length


def slow_gae(reward, value, terminated, length, gamma, gae_lambda):
    """The textbook recursion, backwards through each episode, one agent at a time."""
    episodes, time, agents = value.shape[0], value.shape[1] - 1, value.shape[2]
    advantage = np.zeros((episodes, time, agents))
    for e in range(episodes):
        for i in range(agents):
            ahead = 0.0
            for t in reversed(range(length[e])):
                following = 0.0 if terminated[e, t, 0] else value[e, t + 1, i]
                r = reward[e, t, i if reward.shape[-1] > 1 else 0]
                ahead = r + gamma * following - value[e, t, i] + gamma * gae_lambda * ahead
                advantage[e, t, i] = ahead
    return advantage


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("rewards", [1, 3])
@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.99, 0.95), (0.9, 1.0), (1.0, 1.0), (0.99, 0.0)])
def test_advantages_match_the_float64_recursion(gamma, gae_lambda, rewards, dtype, tolerance):
    reward, value, terminated, mask, length = make_episodes(rewards=rewards)
    expected = slow_gae(*(x.numpy() for x in (reward, value, terminated)), length, gamma, gae_lambda)
    residual = td_residual(reward.to(dtype), value.to(dtype), terminated, mask, gamma)
    advantage = gae(residual, gamma, gae_lambda)
    assert advantage.dtype == dtype
    np.testing.assert_allclose(advantage.numpy(), expected, rtol=tolerance, atol=tolerance)


@quick
@given(seeds, rates, rates)
def test_advantages_match_the_recursion_for_any_discount(seed, gamma, gae_lambda):
    reward, value, terminated, mask, length = make_episodes(seed)
    expected = slow_gae(*(x.numpy() for x in (reward, value, terminated)), length, gamma, gae_lambda)
    advantage = gae(td_residual(reward, value, terminated, mask, gamma), gamma, gae_lambda)
    np.testing.assert_allclose(advantage.numpy(), expected, atol=1e-12)


def test_a_long_episode_keeps_its_precision():
    residual = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 400, 1)))
    expected, ahead = np.zeros(400), 0.0
    for t in reversed(range(400)):
        ahead = expected[t] = residual[0, t, 0].item() + 0.99 * 0.95 * ahead
    np.testing.assert_allclose(gae(residual.float(), 0.99, 0.95).flatten().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_a_time_limit_bootstraps_and_a_terminal_does_not():
    reward, value, mask = torch.zeros(2, 2, 1), torch.full((2, 3, 1), 10.0), torch.ones(2, 2, 1)
    terminated = torch.tensor([[[0.0], [0.0]], [[0.0], [1.0]]])
    residual = td_residual(reward, value, terminated, mask, gamma=0.5)
    assert residual.squeeze(-1).tolist() == [[-5.0, -5.0], [-5.0, -10.0]]


def test_a_common_reward_reaches_every_agent():
    residual = td_residual(torch.ones(1, 1, 1), torch.zeros(1, 2, 3), torch.zeros(1, 1, 1), torch.ones(1, 1, 1), 0.9)
    assert residual.tolist() == [[[1.0, 1.0, 1.0]]]


def test_lambda_zero_is_the_residual_and_lambda_one_the_return_less_the_value():
    reward, value, terminated, mask, length = make_episodes(3)
    residual = td_residual(reward, value, terminated, mask, 0.9)
    assert torch.equal(gae(residual, 0.9, 0.0), residual)
    returns = gae(residual, 0.9, 1.0)[:, 0] + value[:, 0]
    for episode, steps in enumerate(length):
        tail = 0.0 if episode % 2 == 0 else 0.9**steps * value[episode, steps]
        discounted = sum(0.9**t * reward[episode, t, 0] for t in range(steps)) + tail
        assert torch.allclose(returns[episode], discounted + torch.zeros(3).double())


def test_the_padding_reaches_no_advantage_even_if_it_holds_nan():
    reward, value, terminated, mask, length = make_episodes(4)
    clean = gae(td_residual(reward, value, terminated, mask, 0.9), 0.9, 0.8)
    for episode, steps in enumerate(length):
        reward[episode, steps:] = float("nan")
        value[episode, steps + 1 :] = float("nan")
        if episode % 2 == 0:  # the value of a terminal state means nothing either
            value[episode, steps] = float("nan")
    dirty = gae(td_residual(reward, value, terminated, mask, 0.9), 0.9, 0.8)
    assert torch.equal(clean, dirty)
    assert (dirty[(mask == 0).expand_as(dirty)] == 0).all()


def test_more_padding_changes_no_advantage():
    reward, value, terminated, mask, _ = make_episodes(5)

    def longer(x):
        return torch.cat([x, torch.zeros(x.shape[0], 4, x.shape[2])], dim=1)

    before = gae(td_residual(reward, value, terminated, mask, 0.9), 0.9, 0.8)
    after = gae(td_residual(*map(longer, (reward, value, terminated, mask)), 0.9), 0.9, 0.8)
    assert torch.allclose(after[:, :7], before, rtol=1e-12)
    assert (after[:, 7:] == 0).all()


# ------------------------------------------------------------------------------------------------- standardisation
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_standardised_advantages_have_mean_zero_and_spread_one_inside_the_mask(dtype):
    x = torch.from_numpy(np.random.default_rng(0).normal(50.0, 3.0, (4, 6, 2))).to(dtype)
    mask = torch.from_numpy(np.random.default_rng(1).integers(0, 2, (4, 6, 2)))
    out = standardise(x, mask)
    inside = x[mask > 0].double().numpy()
    expected = (inside - inside.mean()) / inside.std()
    assert out.dtype == dtype
    np.testing.assert_allclose(out[mask > 0].numpy(), expected, rtol=1e-6, atol=1e-6)
    assert (out[mask == 0] == 0).all()


@quick
@given(seeds, st.floats(0.01, 100.0), st.floats(-100.0, 100.0))
def test_standardisation_forgets_scale_and_shift(seed, scale, shift):
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((2, 5, 2)))
    mask = torch.ones(2, 5, 1)
    assert torch.allclose(standardise(scale * x + shift, mask), standardise(x, mask), atol=1e-9)


def test_rubbish_outside_the_mask_does_not_change_the_standardisation():
    x = torch.arange(8.0).reshape(2, 4, 1)
    mask = torch.tensor([[[1], [1], [1], [0]], [[1], [0], [0], [0]]])
    expected = standardise(x, mask)
    x[mask == 0] = float("nan")
    assert torch.equal(standardise(x, mask), expected)


@pytest.mark.parametrize("value", [0.0, 0.1, 12345.678])
def test_equal_advantages_become_zero(value):
    out = standardise(torch.full((3, 11, 2), value), torch.ones(3, 11, 1))
    assert out.abs().max() < 1e-3


def test_an_empty_mask_gives_zeros():
    assert (standardise(torch.ones(2, 3, 1), torch.zeros(2, 3, 1)) == 0).all()


def test_the_others_regrets_are_taken_out_and_one_s_own_stays():
    advantage = torch.full((1, 1, 3), 10.0)
    regret = torch.tensor([[[-1.0, -2.0, -4.0]]])
    assert without_others(advantage, regret).tolist() == [[[16.0, 15.0, 13.0]]]
    assert torch.equal(without_others(advantage[..., :1], regret[..., :1]), advantage[..., :1])


def test_credit_leaves_the_mean_of_a_policy_gradient_as_it_is():
    """All joint actions of two agents, weighted by their probabilities: the score times either advantage sums alike."""
    generator = np.random.default_rng(0)
    policies = [generator.dirichlet(np.ones(3)) for _ in range(2)]
    regrets = [np.minimum(generator.standard_normal(3), 0.0) for _ in range(2)]
    team = generator.standard_normal((3, 3))
    for agent in range(2):
        sums = np.zeros((2, 3))
        for joint in itertools.product(range(3), repeat=2):
            chance = policies[0][joint[0]] * policies[1][joint[1]]
            score = np.eye(3)[joint[agent]] - policies[agent]
            shared = torch.full((1, 1, 2), team[joint], dtype=torch.float64)
            own = torch.tensor([[[regrets[i][joint[i]] for i in range(2)]]], dtype=torch.float64)
            sums[0] += chance * score * team[joint]
            sums[1] += chance * score * float(without_others(shared, own)[0, 0, agent])
        np.testing.assert_allclose(sums[1], sums[0], atol=1e-12)
