"""An episode that an environment ends for want of time is truncated, however the environment says so."""

from __future__ import annotations

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from epymarl_lite.envs.gymma import GymmaWrapper
from kd_runners.environments import started_at_zero
from kd_runners.time_limits import TimeLimits, is_known, own_limit


class Task(gymnasium.Env):
    """Two agents, four actions each from `start` on; ends with a termination after `lasts` steps."""

    n_agents = 2

    def __init__(self, lasts=6, start=0, **limits):
        self.observation_space = spaces.Tuple([spaces.Box(-1, 1, (3,), np.float32)] * 2)
        self.action_space = spaces.Tuple([spaces.Discrete(4, start=start)] * 2)
        self.lasts, self.played = lasts, []
        vars(self).update(limits)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return (np.zeros(3, np.float32),) * 2, {}

    def step(self, action):
        assert all(space.contains(own) for space, own in zip(self.action_space, action, strict=True)), action
        self.t += 1
        self.played.append(tuple(action))
        return (np.zeros(3, np.float32),) * 2, [1.0, 1.0], self.t == self.lasts, False, {}


gymnasium.register("TimeLimitsTask-v0", entry_point=Task)
gymnasium.register("TimeLimitsTask-v1", entry_point=Task, max_episode_steps=6)


def built(version=0, **arguments):
    return GymmaWrapper(f"TimeLimitsTask-v{version}", 10, **arguments)


def last_step(env):
    env.reset()
    while True:
        result = env.step([0, 0])
        if result[2] or result[3]:
            return result


STATED = [{name: 6} for name in ("max_cycles", "_max_episode_steps", "max_episode_steps", "max_steps")]


@pytest.mark.parametrize("stated", [*STATED, {"version": 1}], ids=str)
def test_a_step_that_reaches_the_environments_own_limit_is_a_truncation(stated):
    env = built(**stated)
    assert own_limit(env) == 6
    assert is_known(env)
    _, reward, terminated, truncated, info = last_step(TimeLimits(env, False, own_limit(env)))
    assert (terminated, truncated, info, reward) == (False, True, {}, 2.0)
    *_, info = last_step(TimeLimits(env, True, own_limit(env)))
    assert info == {"episode_limit": True}


def test_an_end_before_the_limit_stays_a_termination():
    env = built(lasts=3, max_cycles=6)
    limited = TimeLimits(env, True, own_limit(env))
    for _ in range(3):
        assert last_step(limited)[2:] == (True, False, {})


def test_an_environment_that_states_no_limit_is_told_from_one_that_has_none():
    assert not is_known(built())
    assert own_limit(built()) is None
    assert is_known(built(max_steps=None))


@pytest.mark.parametrize("terminations", [{"a": True, "b": True}, {"a": False, "b": False}, {}])
def test_pettingzoos_agents_that_left_are_truncated_or_terminated_as_they_said(terminations):
    """EPyMARL's wrapper says terminated and truncated of an empty list of agents."""

    class Parallel:
        possible_agents = ("a", "b")

        def step(self, actions):
            return {}, {}, terminations, {agent: not done for agent, done in terminations.items()}, {}

    class Wrapper:
        def __init__(self):
            self._env = Parallel()

        def step(self, actions):
            self._env.step({})
            return [], 0.0, True, True, {}

    _, _, terminated, truncated, info = TimeLimits(Wrapper(), True).step([0, 0])
    ran_out = bool(terminations) and not all(terminations.values())
    assert (terminated, truncated) == ((False, True) if ran_out else (True, True))
    assert info == ({"episode_limit": True} if ran_out else {})


def test_actions_count_from_what_a_space_begins_with():
    env = built(start=5, lasts=1)
    env.reset()
    env.step([0, 3])
    assert env._env.unwrapped.played == [(5, 8)]


def test_so_they_do_behind_a_checkouts_wrapper_which_does_not_read_it():
    plain = SimpleNamespace(_env=Task(start=-1), step=lambda actions: actions)
    assert started_at_zero(plain).step([0, 3]) == [-1, 2]
    untouched = SimpleNamespace(_env=Task())
    assert started_at_zero(untouched) is untouched
