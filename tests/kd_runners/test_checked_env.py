"""What an environment does wrong is one line that names it, and never reaches a network."""

import numpy as np
import pytest

from epymarl_lite.runners.worker_pool import WorkerPool
from epymarl_lite.utils.errors import EnvironmentFaultError
from kd_runners.checked_env import CheckedEnv


class Field:
    """Two agents, three numbers each, four actions; what it does wrong from step 2 on is given."""

    def __init__(self, **wrong):
        self.wrong, self.steps = wrong, 0

    def get_env_info(self):
        return {"n_agents": 2, "obs_shape": 3, "state_shape": 6, "n_actions": 4, "episode_limit": 5}

    def reset(self, seed=None):
        self.steps = 0
        return self.get_obs(), {}

    def step(self, actions):
        self.steps += 1
        return self._late("step", (self.get_obs(), self._late("reward", 1.0), self.steps == 5, False, {}))

    def get_obs(self):
        return self._late("obs", [np.zeros(3), np.ones(3)])

    def get_state(self):
        return self._late("state", np.zeros(6))

    def get_avail_actions(self):
        return self._late("available", [[1, 1, 1, 1], [1, 0, 0, 0]])

    def close(self):
        pass

    def _late(self, what, right):
        value = self.wrong.get(what, right) if self.steps >= 2 else right
        if isinstance(value, Exception):
            raise value
        return value


def play(env):
    env.reset()
    ended = False
    while not ended:
        env.get_state(), env.get_obs(), env.get_avail_actions()
        _, _, ended, _, _ = env.step([0, 0])
    env.get_state(), env.get_obs(), env.get_avail_actions()


def test_a_sound_environment_plays_as_without_the_check():
    env = Field()
    play(CheckedEnv(env, "field", common_reward=True))
    assert env.steps == 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"obs": [np.zeros(3), np.array([0, np.nan, 0])]},
            "the observation of agent 1, number 1 is nan: expected",
        ),
        ({"obs": [np.array([np.inf, 0, 0]), np.zeros(3)]}, "the observation of agent 0, number 0 is inf"),
        ({"obs": [np.array([0, 0, 1e38]), np.zeros(3)]}, r"the observation of agent 0, number 2 is 1e\+38"),
        ({"obs": [np.zeros(3), np.zeros(2)]}, r"get_obs\(\) gives rows of different lengths: get_env_info\(\) ann"),
        ({"obs": [np.zeros(2), np.zeros(2)]}, r"get_obs\(\) gives shape \(2, 2\): get_env_info\(\) announces \(2, 3\)"),
        ({"state": np.zeros(5)}, r"get_state\(\) gives shape \(5,\): get_env_info\(\) announces \(6,\)"),
        ({"state": np.full(6, np.nan)}, "the state, number 0 is nan"),
        ({"reward": float("nan")}, "the reward is nan"),
        ({"reward": [1.0, 2.0, 3.0]}, r"step\(\) gives 3 rewards: expected 1"),
        ({"available": [[1, 1, 1, 1], [0, 0, 0, 0]]}, "agent 1 has no available action"),
        (
            {"reward": {"agent_0": 1.0}},
            r"step\(\) gives dict, bool, bool: expected a reward or a list of them, and two",
        ),
        ({"step": (1, 2, 3, 4)}, r"step\(\) gives 4 values: expected obs, reward, terminated, truncated, info"),
        ({"step": KeyError("wheel")}, r"step\(\) failed with KeyError: 'wheel' \(test_checked_env.py, line \d+\)"),
    ],
)
def test_what_is_wrong_is_named_with_its_step(wrong, message):
    with pytest.raises(EnvironmentFaultError, match=message) as caught:
        play(CheckedEnv(Field(**wrong), "field", common_reward=True))
    text = str(caught.value)
    assert text.startswith("environment field, in step 2 of an episode: ") and "\n" not in text


def test_rewards_are_counted_by_agent_where_each_has_its_own():
    with pytest.raises(EnvironmentFaultError, match=r"gives 1 rewards: expected 2"):
        play(CheckedEnv(Field(), "field", common_reward=False))


def test_a_worker_passes_the_line_on():
    def make():
        return CheckedEnv(Field(reward=float("inf")), "field", common_reward=True)

    pool = WorkerPool([make, make], 1)
    try:
        pool.reset()
        with pytest.raises(EnvironmentFaultError, match="in step 2 of an episode: the reward is inf"):
            for _ in range(3):
                pool.step([0, 1], np.zeros((2, 2), int))
    finally:
        pool.close()
