"""Gymnasium and PettingZoo environments with one entry per agent in every space."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from epymarl_lite.envs.multiagentenv import MultiAgentEnv
from epymarl_lite.envs.pz import make_pettingzoo
from epymarl_lite.envs.tag import FrozenTag, RandomTag
from epymarl_lite.envs.vmas import make_vmas

_WRAPPERS = {"RandomTag": RandomTag, "FrozenTag": FrozenTag}
_OF_A_CHECKOUT = ("PretrainedTag", "PretrainedAdversary")


class GymmaWrapper(MultiAgentEnv):
    """A Gymnasium environment with ``Tuple`` spaces, or a PettingZoo one, as a :class:`MultiAgentEnv`.

    Observations are flattened and padded with zeros at the end to the longest one; the state is all of them in a
    row. Without an explicit seed the first reset uses the constructor's, and later resets continue the same stream of
    random numbers.

    Args:
        key: Gymnasium id, ``module:id``, ``pz-<library>-<environment>``, or ``vmas-<scenario>``.
        time_limit: steps after which an episode is truncated.
        pretrained_wrapper: put around the inner environment: ``RandomTag``, ``FrozenTag``, ``package.module:Class``, or
            None.
        seed: seed of the first reset.
        common_reward: whether all agents share one reward.
        reward_scalarisation: the shared reward is the ``sum`` or the ``mean`` over agents.
        **kwargs: passed to the environment's own factory.

    Raises:
        ValueError: a wrong argument, or an environment without one discrete action space per agent.
    """

    def __init__(
        self,
        key: str,
        time_limit: int,
        pretrained_wrapper: str | None = None,
        seed: int | None = None,
        common_reward: bool = True,
        reward_scalarisation: str = "sum",
        **kwargs: Any,
    ) -> None:
        if reward_scalarisation not in ("sum", "mean"):
            raise ValueError(f"reward_scalarisation is 'sum' or 'mean', not '{reward_scalarisation}'")
        if time_limit < 1:
            raise ValueError(f"env_args.time_limit is at least 1 step, not {time_limit}")
        self._env = _make(key, pretrained_wrapper, kwargs)
        inner = self._env.unwrapped
        observation, action = self._env.observation_space, self._env.action_space
        if not isinstance(observation, spaces.Tuple) or not isinstance(action, spaces.Tuple):
            raise ValueError(f"env key '{key}' is not multi-agent: gymma needs Tuple spaces with one entry per agent")
        n_actions = [int(space.n) for space in action.spaces if isinstance(space, spaces.Discrete)]
        if len(n_actions) < len(action.spaces):
            raise ValueError(f"env key '{key}' has other than discrete actions: choose discrete ones in env_args")

        self.n_agents = int(getattr(inner, "n_agents", len(action.spaces)))
        self.episode_limit = int(time_limit)
        self._common_reward = common_reward
        self._scalarise: Callable[[Sequence[float]], float] = np.sum if reward_scalarisation == "sum" else np.mean
        self._seed = seed
        self._spaces = observation.spaces
        self._obs_size = max(spaces.flatdim(space) for space in self._spaces)
        self._state_size = int(getattr(inner, "state_size", self.n_agents * self._obs_size))
        self._n_actions = max(n_actions)
        self._starts = [int(getattr(space, "start", 0)) for space in action.spaces]
        self._avail = [[1] * own + [0] * (self._n_actions - own) for own in n_actions]
        self._steps = 0
        self._obs = np.zeros((self.n_agents, self._obs_size), np.float32)

    def step(self, actions: Sequence[int]) -> tuple[list[np.ndarray], float | list[float], bool, bool, dict[str, Any]]:
        """Play one joint action; the time limit is reported as truncation."""
        obs, reward, done, truncated, info = self._env.step(
            [int(action) + start for action, start in zip(actions, self._starts, strict=True)]
        )
        self._obs = self._pad(obs)
        self._steps += 1
        terminated = all(done) if isinstance(done, (list, tuple, np.ndarray)) else bool(done)
        truncated = bool(truncated) or self._steps >= self.episode_limit
        rewards = [float(value) for value in reward] if np.ndim(reward) else [float(reward)] * self.n_agents
        if self._common_reward:
            return list(self._obs), float(self._scalarise(rewards)), terminated, truncated, info
        return list(self._obs), rewards, terminated, truncated, info

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[list[np.ndarray], dict[str, Any]]:
        """Start an episode."""
        if seed is None:
            seed, self._seed = self._seed, None
        obs, info = self._env.reset(seed=seed, options=options)
        self._obs = self._pad(obs)
        self._steps = 0
        return list(self._obs), info

    def seed(self, seed: int | None = None) -> None:
        """Use ``seed`` at the next reset."""
        self._seed = seed

    def get_obs(self) -> list[np.ndarray]:
        """Return ``n_agents`` float32 rows of shape ``(obs_size,)``."""
        return list(self._obs)

    def get_obs_size(self) -> int:
        """Return the length of the longest observation."""
        return self._obs_size

    def get_state(self) -> np.ndarray:
        """Return all padded observations in a row, float32."""
        return self._obs.reshape(-1)

    def get_state_size(self) -> int:
        """Return the length of the state."""
        return self._state_size

    def get_avail_actions(self) -> list[list[int]]:
        """Return constant rows: ones up to each agent's own number of actions."""
        return self._avail

    def get_total_actions(self) -> int:
        """Return the largest number of actions of any agent."""
        return self._n_actions

    def render(self) -> None:
        """Render the inner environment."""
        self._env.render()

    def save_replay(self) -> None:
        """Write nothing: Gymnasium has no replays."""

    def close(self) -> None:
        """Close the inner environment."""
        self._env.close()

    def _pad(self, observations: Sequence[Any]) -> np.ndarray:
        rows = np.zeros((self.n_agents, self._obs_size), np.float32)
        for row, space, observation in zip(rows, self._spaces, observations, strict=True):
            if isinstance(space, spaces.Box):  # the usual case; ten times faster than spaces.flatten
                flat: Any = np.asarray(observation).reshape(-1)
            else:
                flat = spaces.flatten(space, observation)
            row[: len(flat)] = flat
        return rows


def gymma_fn(**kwargs: Any) -> GymmaWrapper:
    """Build a :class:`GymmaWrapper` from ``env_args``.

    Raises:
        ValueError: ``key`` is missing, or a value is wrong.
    """
    if not kwargs.get("key"):
        raise ValueError("gymma needs an environment: add 'with env_args.key=pz-mpe-simple-spread-v3', for example")
    return GymmaWrapper(**kwargs)


def _make(key: str, wrapper: str | None, kwargs: dict[str, Any]) -> Any:
    env: Any
    if key.startswith("pz-"):
        env = make_pettingzoo(key, **kwargs)
    elif key.startswith("vmas-"):
        env = make_vmas(key, **kwargs)
    else:
        try:
            # The checker warns about lists of rewards, which these environments return.
            env = gym.make(key, disable_env_checker=True, **kwargs)
        except (gym.error.UnregisteredEnv, gym.error.NamespaceNotFound) as error:
            raise ValueError(f"Gymnasium has no environment '{key}': {str(error).splitlines()[0]}") from error
    if wrapper is None:
        return env
    if wrapper in _WRAPPERS:
        return _WRAPPERS[wrapper](env)
    if wrapper in _OF_A_CHECKOUT:
        raise ValueError(
            f"env_args.pretrained_wrapper={wrapper} plays weights that come with EPyMARL itself: set "
            "EPYMARL_HOME=/path/to/epymarl"
        )
    module, _, name = wrapper.partition(":")
    if not name:
        raise ValueError(f"env_args.pretrained_wrapper is 'package.module:Class', not '{wrapper}'")
    return getattr(importlib.import_module(module), name)(env)
