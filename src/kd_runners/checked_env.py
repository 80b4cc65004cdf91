"""Names what an environment does wrong, before it reaches a network."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from epymarl_lite.utils.errors import EnvironmentFaultError
from kd_core.errors import UserError

# Networks square what they see, in float32.
LARGEST = 1e18


class CheckedEnv:
    """Environment wrapper that ends the run in one line where the environment does what no learner can use.

    Exceptions of its methods, views of another shape than announced, numbers that are not finite or beyond 1e18, agents
    without an available action, and rewards for another number of agents each raise ``EnvironmentFaultError``.

    Args:
        env: an environment with EPyMARL's interface.
        name: what the message calls it.
        common_reward: whether one reward stands for all agents.
    """

    def __init__(self, env: Any, name: str, common_reward: bool) -> None:
        self._env = env
        self._name = name
        self._step = 0
        self._ended = False
        info = env.get_env_info()
        agents = info["n_agents"]
        self._shapes = {
            "get_obs": (agents, info["obs_shape"]),
            "get_state": (info["state_shape"],),
            "get_avail_actions": (agents, info["n_actions"]),
        }
        self._rewards = 1 if common_reward else agents

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, *positional: Any, **named: Any) -> Any:
        """Start an episode."""
        self._step, self._ended = 0, False
        return self._call("reset", *positional, **named)

    def step(self, actions: Any) -> Any:
        """Play one joint action, and check the rewards."""
        self._step += 1
        result = self._call("step", actions)
        if not isinstance(result, tuple) or len(result) != 5:
            count = len(result) if isinstance(result, tuple) else 1
            raise self._fault(
                f"step() gives {count} values: expected obs, reward, terminated, truncated, info (Gymnasium's order)"
            )
        try:
            rewards = np.atleast_1d(np.asarray(result[1], np.float64))
            self._ended = bool(result[2]) or bool(result[3])
        except (ValueError, TypeError):
            given = ", ".join(type(value).__name__ for value in result[1:4])
            raise self._fault(f"step() gives {given}: expected a reward or a list of them, and two booleans") from None
        if rewards.shape != (self._rewards,):
            raise self._fault(f"step() gives {rewards.size} rewards: expected {self._rewards}")
        self._check_finite("reward", rewards)
        return result

    def get_obs(self) -> Any:
        """Return the agents' observations, each as long as announced and finite."""
        return self._view("get_obs", "observation")

    def get_state(self) -> Any:
        """Return the state, as long as announced and finite."""
        return self._view("get_state", "state")

    def get_avail_actions(self) -> Any:
        """Return what each agent may do, at least one action."""
        available = self._view("get_avail_actions", "available actions")
        idle = np.flatnonzero(~np.asarray(available).any(axis=-1))
        if idle.size and not self._ended:
            raise self._fault(f"agent {idle[0]} has no available action: one that is dead needs at least a no-op")
        return available

    def _view(self, method: str, what: str) -> Any:
        view = self._call(method)
        try:
            numbers = np.asarray(view, np.float64)
        except (ValueError, TypeError):
            numbers = None
        if numbers is None or numbers.shape != self._shapes[method]:
            given = "rows of different lengths" if numbers is None else f"shape {numbers.shape}"
            raise self._fault(f"{method}() gives {given}: get_env_info() announces {self._shapes[method]}")
        self._check_finite(what, numbers)
        return view

    def _check_finite(self, what: str, numbers: np.ndarray) -> None:
        # NaN compares as false.
        if (np.abs(numbers) <= LARGEST).all():
            return
        place = tuple(int(index) for index in np.argwhere(~(np.abs(numbers) <= LARGEST))[0])
        whose = f" of agent {place[0]}" if len(place) > 1 or (what == "reward" and numbers.size > 1) else ""
        index = f", number {place[-1]}" if what != "reward" else ""
        raise self._fault(f"the {what}{whose}{index} is {numbers[place]:g}: expected a finite number below 1e18")

    def _call(self, method: str, *positional: Any, **named: Any) -> Any:
        call: Callable[..., Any] = getattr(self._env, method)
        try:
            return call(*positional, **named)
        except (UserError, EnvironmentFaultError):
            raise
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            place = f"{Path(frame.filename).name}, line {frame.lineno}"
            raise self._fault(f"{method}() failed with {reason} ({place})") from error

    def _fault(self, what: str) -> EnvironmentFaultError:
        when = "at the start of an episode" if self._step == 0 else f"in step {self._step} of an episode"
        return EnvironmentFaultError(f"environment {self._name}, {when}: {what}; correct the environment")
