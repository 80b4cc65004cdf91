"""The interface of every environment to the runners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class MultiAgentEnv:
    """A multi-agent environment with discrete actions and a global state.

    Sub-classes set ``n_agents`` and ``episode_limit`` and implement the methods below.
    """

    n_agents: int
    episode_limit: int

    def step(self, actions: Sequence[int]) -> tuple[Any, float | Sequence[float], bool, bool, dict[str, Any]]:
        """Play one joint action, and return ``(observations, reward, terminated, truncated, info)``."""
        raise NotImplementedError

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, and return ``(observations, info)``."""
        raise NotImplementedError

    def get_obs(self) -> Sequence[np.ndarray]:
        """Return every agent's observation: ``n_agents`` arrays of shape ``(obs_size,)``."""
        raise NotImplementedError

    def get_obs_agent(self, agent_id: int) -> np.ndarray:
        """Return one agent's observation, shape ``(obs_size,)``."""
        return self.get_obs()[agent_id]

    def get_obs_size(self) -> int:
        """Return the number of features of one agent's observation."""
        raise NotImplementedError

    def get_state(self) -> np.ndarray:
        """Return the global state, shape ``(state_size,)``."""
        raise NotImplementedError

    def get_state_size(self) -> int:
        """Return the number of features of the global state."""
        raise NotImplementedError

    def get_avail_actions(self) -> Sequence[Sequence[int]]:
        """Return for each agent a row of 0/1, one entry per action."""
        raise NotImplementedError

    def get_avail_agent_actions(self, agent_id: int) -> Sequence[int]:
        """Return one agent's row of available actions."""
        return self.get_avail_actions()[agent_id]

    def get_total_actions(self) -> int:
        """Return the number of actions of the agent with the most."""
        raise NotImplementedError

    def get_env_info(self) -> dict[str, Any]:
        """Return the sizes from which networks and buffers are built."""
        return {
            "state_shape": self.get_state_size(),
            "obs_shape": self.get_obs_size(),
            "n_actions": self.get_total_actions(),
            "n_agents": self.n_agents,
            "episode_limit": self.episode_limit,
        }

    def get_stats(self) -> dict[str, Any]:
        """Return the statistics that the environment collects over its life."""
        return {}

    def seed(self, seed: int | None = None) -> None:
        """Seed the environment's random numbers."""
        raise NotImplementedError

    def render(self) -> None:
        """Show the current state."""
        raise NotImplementedError

    def save_replay(self) -> None:
        """Write a replay of the episodes played."""
        raise NotImplementedError

    def close(self) -> None:
        """Free the environment's resources."""
        raise NotImplementedError
