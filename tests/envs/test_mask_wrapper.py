"""The environment wrapper: what it hides, gives, draws and leaves alone."""

import copy
import pickle

import numpy as np
import pytest

from kd_core.errors import UserError
from kd_envs.hetero_mask import MaskedEnv, mask_for, plain_layout
from mpe_layouts import ADVERSARY, SPREAD


class CountingEnv:
    """A `MultiAgentEnv`: agent i's feature k is 1000 * i + 100 * episode + step + k / 100."""

    n_agents, size, episode_limit = 3, 18, 4

    def __init__(self):
        self.episode, self.t = -1, 0

    def reset(self, seed=None, options=None):
        self.episode, self.t = self.episode + 1, 0
        return self.get_obs(), {"seed": seed}

    def step(self, actions):
        self.t += 1
        return self.get_obs(), 1.0, False, self.t >= self.episode_limit, {"actions": list(actions)}

    def get_obs(self):
        base = np.arange(self.size) / 100 + 100 * max(self.episode, 0) + self.t
        return tuple((base + 1000 * i).astype(np.float32) for i in range(self.n_agents))

    def get_obs_agent(self, i):
        raise TypeError("as in a real checkout's gymma")

    def get_state(self):
        return np.concatenate(self.get_obs())

    def get_obs_size(self):
        return self.size

    def get_total_actions(self):
        return 5

    def get_env_info(self):
        return {
            "obs_shape": self.size,
            "n_agents": self.n_agents,
            "n_actions": 5,
            "state_shape": 54,
            "episode_limit": 4,
        }


def test_wrapper_zeroes_what_is_hidden_and_leaves_the_rest():
    inner, mask = CountingEnv(), mask_for(SPREAD, "lh", "paper")
    env = MaskedEnv(inner, mask, seed=1)
    obs, info = env.reset(seed=9)
    assert info == {"seed": 9}
    for rows in (obs, env.get_obs(), env.step([0, 1, 2])[0]):
        assert len(rows) == 3
        for row in rows:
            assert (row.shape, row.dtype) == ((18,), np.float32)
    after, raw = env.get_obs(), inner.get_obs()
    for agent in range(3):
        np.testing.assert_array_equal(after[agent], np.where(mask.visible[agent], raw[agent], 0))
        np.testing.assert_array_equal(env.get_obs_agent(agent), after[agent])
    np.testing.assert_array_equal(env.get_state(), inner.get_state())
    assert env.step([0, 1, 2])[1:] == (1.0, False, False, {"actions": [0, 1, 2]})
    assert (env.get_total_actions(), env.episode_limit, env.n_agents) == (5, 4, 3)
    assert env.get_env_info() == {**inner.get_env_info(), "obs_shape": 18}


def test_wrapper_gives_derived_features():
    env = MaskedEnv(CountingEnv(), mask_for(SPREAD, "lh", masks={1: ["D(A-A)"]}), seed=0)
    env.reset()
    raw = env.env.get_obs()[1].astype(np.float64)
    expected = [0.0] * 18 + [np.hypot(raw[10], raw[11]), np.hypot(raw[12], raw[13])]
    np.testing.assert_allclose(env.get_obs()[1], expected, rtol=1e-6)
    assert env.get_obs_size() == env.get_env_info()["obs_shape"] == 20


def test_wrapper_draws_a_mask_for_each_episode_and_keeps_it():
    mask = mask_for(SPREAD, "lh", "random")
    env = MaskedEnv(CountingEnv(), mask, seed=42)
    for episode in range(4):
        env.reset()
        assert env.episode == episode
        for _ in range(3):
            rows, *_ = env.step([0, 0, 0])
            np.testing.assert_array_equal(np.stack(rows) != 0, mask.draw(42, episode))


def test_hidden_nan_does_not_get_through():
    inner = CountingEnv()
    inner.get_obs = lambda: [np.full(18, np.nan, np.float32)] * 3
    rows = MaskedEnv(inner, mask_for(SPREAD, "lh", "paper"), seed=0).get_obs()
    assert np.isnan(rows[1][:2]).all()
    assert (rows[1][2:] == 0).all()


def test_wrapper_does_not_depend_on_what_reset_returns():
    inner = CountingEnv()
    inner.reset = lambda: ((inner.get_obs(), {}), {"from": "smaclite"})
    rows, info = MaskedEnv(inner, mask_for(SPREAD, "fo"), seed=0).reset()
    assert len(rows) == 3
    assert info == {"from": "smaclite"}
    inner.reset = lambda: None
    assert MaskedEnv(inner, mask_for(SPREAD, "fo"), seed=0).reset()[1] == {}


def test_wrapper_and_mask_can_be_pickled_and_copied():
    env = MaskedEnv(CountingEnv(), mask_for(plain_layout("counting", 3, 18), "lh", "random"), seed=3)
    env.reset()
    for twin in (pickle.loads(pickle.dumps(env)), copy.deepcopy(env)):
        np.testing.assert_array_equal(np.stack(twin.get_obs()), np.stack(env.get_obs()))
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = env.no_such_thing


def test_mask_for_another_environment_is_refused():
    with pytest.raises(UserError, match="mask is for 3 agents with 10 features each, the environment has 3 with 18"):
        MaskedEnv(CountingEnv(), mask_for(ADVERSARY, "fo"), seed=0)
