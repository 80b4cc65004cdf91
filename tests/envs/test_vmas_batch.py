"""VMAS's own batches behind the runner's interface."""

from __future__ import annotations

import numpy as np
import pytest

from kd_envs.vmas_batch import batched_vmas
from kd_envs.worlds import read_world

KEY = "vmas-navigation"


def test_without_vmas_or_with_another_key_there_is_no_batch(monkeypatch):
    assert batched_vmas(2, key="pz-mpe-simple-spread-v3", time_limit=5, seed=0) is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert batched_vmas(2, key=KEY, time_limit=5, seed=0) is None


def test_a_batch_of_one_plays_what_gymma_plays():
    pytest.importorskip("vmas")
    from epymarl_lite.envs.gymma import GymmaWrapper

    env = GymmaWrapper(KEY, time_limit=8, seed=3)
    moves = np.random.default_rng(0).integers(0, 9, (8, 4))
    env.reset()
    alone = [(env.get_obs(), env.get_state(), 0.0)]
    for actions in moves:
        reward = env.step(actions)[1]
        alone.append((env.get_obs(), env.get_state(), reward))
    # VMAS's environments of one process share their random numbers, so one plays after the other.
    batch = batched_vmas(1, key=KEY, time_limit=8, seed=3)
    views, reward = batch.reset(), np.zeros((1, 1))
    for step, (obs, state, expected) in enumerate(alone):
        np.testing.assert_array_equal(views.obs[0], obs)
        np.testing.assert_array_equal(views.state[0], state)
        assert reward[0, 0] == pytest.approx(expected, abs=1e-6)
        if step < 8:
            views, reward, terminated, truncated, infos = batch.step([0], moves[step][None])
            assert truncated[0] == (step == 7 and not terminated[0])
    assert "agent_0/pos_rew" in infos[0]
    assert [shape.name for shape in batch.worlds([0])[0].shapes] == [shape.name for shape in read_world(env).shapes]


def test_environments_whose_episode_is_over_are_left_out():
    pytest.importorskip("vmas")
    batch = batched_vmas(3, key="vmas-football", time_limit=2, seed=0, common_reward=False)
    agents = batch.env_info["n_agents"]
    assert batch.reset().avail_actions.shape == (3, agents, batch.env_info["n_actions"])
    outcome = batch.step([0, 2], np.ones((2, agents), int))
    assert outcome.views.obs.shape == (2, agents, batch.env_info["obs_shape"])
    assert outcome.reward.shape == (2, agents) and not outcome.truncated.any() and outcome.infos == [{}, {}]
    assert batch.step([2], np.ones((1, agents), int)).truncated.all()
    # Of football's bodies only the agents that a policy moves have its numbers; the red team is scripted.
    shapes = batch.worlds([0])[0].shapes
    assert [shape.agent for shape in shapes if shape.kind == "agent"] == list(range(agents))
    assert {shape.kind for shape in shapes if shape.name.startswith("agent_red")} == {"opponent"}
