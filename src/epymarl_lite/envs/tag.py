"""Simple tag with a prey that is not learnt: EPyMARL's ``RandomTag`` and ``FrozenTag``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gymnasium import spaces


class FrozenTag:
    """The last agent always plays action 0, and the others are the team.

    Args:
        env: an environment of one entry per agent, such as ``pz-mpe-simple-tag-v3``.
    """

    def __init__(self, env: Any) -> None:
        self._env = env
        self._prey = env.action_space.spaces[-1]
        self.action_space = spaces.Tuple(env.action_space.spaces[:-1])
        self.observation_space = spaces.Tuple(env.observation_space.spaces[:-1])
        self.n_agents = len(self.action_space.spaces)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    @property
    def unwrapped(self) -> FrozenTag:
        """This object, whose team is one agent smaller."""
        return self

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[list[Any], dict[str, Any]]:
        """Start an episode."""
        if seed is not None:
            self._prey.seed(seed)
        observations, info = self._env.reset(seed=seed, options=options)
        return list(observations[:-1]), info

    def step(self, actions: Sequence[int]) -> tuple[list[Any], list[float], bool, bool, dict[str, Any]]:
        """Play the team's actions and the prey's."""
        observations, rewards, terminated, truncated, info = self._env.step([*actions, self._act()])
        return list(observations[:-1]), list(rewards[:-1]), terminated, truncated, info

    def _act(self) -> int:
        return int(self._prey.start)


class RandomTag(FrozenTag):
    """The last agent plays any of its actions with the same probability."""

    def _act(self) -> int:
        return int(self._prey.sample())
