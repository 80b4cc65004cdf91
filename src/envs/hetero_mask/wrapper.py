"""Environments whose agents see only what an `ObservationMask` shows: one (`MaskedEnv`) or many (`MaskedBatch`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kd_core.errors import UserError
from kd_envs.hetero_mask.mask import ObservationMask


class MaskedEnv:
    """Wrapper that masks the observations of a `MultiAgentEnv` of either host, and changes nothing else.

    Hidden features are zero. The state and the available actions are not masked. It inherits from no host class, so
    that it can be imported without a host.
    """

    def __init__(self, env: Any, mask: ObservationMask, seed: int) -> None:
        """Wrap an environment.

        Args:
            env: the environment; its `get_obs` gives one row of ``layout.obs_size`` numbers per agent.
            mask: the features that each agent sees.
            seed: the environment's own seed; it decides the masks that are drawn per episode.

        Raises:
            UserError: the mask was made for other observations.
        """
        info = env.get_env_info()
        agents, size = int(info["n_agents"]), int(info["obs_shape"])
        if (agents, size) != (mask.n_agents, mask.layout.obs_size):
            raise UserError(
                f"the mask is for {mask.n_agents} agents with {mask.layout.obs_size} features each, the environment"
                f" has {agents} with {size}"
            )
        self.env = env
        self.mask = mask
        self.mask_seed = seed
        # Number of the episode: the first call of reset begins episode 0.
        self.episode = -1
        self.visible = mask.draw(seed, 0)
        self.last_actions = np.full(agents, -1)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the wrapped environment."""
        # Pickle and copy ask for their protocols, and for `env` before it is set: neither can be delegated.
        if name == "env" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.env, name)

    def reset(self, *args: Any, **kwargs: Any) -> tuple[list[np.ndarray], dict[str, Any]]:
        """Begin an episode, with a mask of its own if the mask is drawn per episode.

        Returns:
            The masked observations, and the environment's info if it gave one.
        """
        result = self.env.reset(*args, **kwargs)
        self.episode += 1
        self.visible = self.mask.draw(self.mask_seed, self.episode)
        self.last_actions.fill(-1)
        # The result of reset differs between the hosts' environments; that of get_obs does not.
        info = result[1] if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict) else {}
        return self.get_obs(), info

    def step(self, actions: Any) -> tuple[list[np.ndarray], Any, bool, bool, dict[str, Any]]:
        """Step the environment.

        Args:
            actions: one action an agent, as the environment takes them.

        Returns:
            Masked observations, reward, terminated, truncated and info.
        """
        self.last_actions[:] = np.asarray(actions).reshape(-1)
        rows, reward, terminated, truncated, info = self.env.step(actions)
        return self._masked(rows), reward, terminated, truncated, info

    def get_obs(self) -> list[np.ndarray]:
        """Return one masked observation ``(mask.obs_size,)`` per agent, float32."""
        return self._masked(self.env.get_obs())

    def get_obs_agent(self, agent_id: int) -> np.ndarray:
        """Return the masked observation of one agent."""
        return self.get_obs()[agent_id]

    def get_obs_size(self) -> int:
        """Return the length of an observation, with derived features and own last actions if the mask shows any."""
        return self.mask.obs_size

    def get_env_info(self) -> dict[str, Any]:
        """Return the environment's facts with the masked observation's length."""
        return {**self.env.get_env_info(), "obs_shape": self.mask.obs_size}

    def _masked(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        obs = self.mask.extend(np.asarray(rows, np.float32), self.last_actions)
        # Not a product: a hidden NaN or infinity times 0 would be NaN.
        return list(np.where(self.visible, obs, np.float32(0)))


class MaskedBatch:
    """Wrapper that masks environments stepped together (a ``VectorEnv``), each as `MaskedEnv` does.

    Args:
        envs: the environments; row i is seeded with ``seed + i``.
        mask: the features that each agent sees.
        seed: of row 0; it decides the masks that are drawn per episode.
    """

    def __init__(self, envs: Any, mask: ObservationMask, seed: int) -> None:
        self.envs, self.mask, self.size = envs, mask, envs.size
        self._seed, self._episode = seed, -1
        self.visible = self._draw(0)
        self.last_actions = np.full((self.size, mask.n_agents), -1)

    def reset(self) -> Any:
        """Begin an episode in each row, with masks of its own if they are drawn per episode."""
        self._episode += 1
        if self.mask.draw_per_episode:
            self.visible = self._draw(self._episode)
        self.last_actions.fill(-1)
        return self._masked(self.envs.reset(), slice(None))

    def step(self, rows: Sequence[int], actions: np.ndarray) -> Any:
        """Step the environments ``rows`` with ``actions`` (k, agents)."""
        outcome = self.envs.step(rows, actions)
        self.last_actions[np.asarray(rows)] = actions
        return outcome._replace(views=self._masked(outcome.views, np.asarray(rows)))

    def call(self, method: str) -> list[Any]:
        """Call a method of every environment; their facts have the masked observation's length."""
        results = self.envs.call(method)
        if method == "get_env_info":
            return [{**info, "obs_shape": self.mask.obs_size} for info in results]
        return results

    def close(self) -> None:
        """Close every environment."""
        self.envs.close()

    def _draw(self, episode: int) -> np.ndarray:
        return np.stack([self.mask.draw(self._seed + row, episode) for row in range(self.size)])

    def _masked(self, views: Any, rows: Any) -> Any:
        # Not a product: a hidden NaN or infinity times 0 would be NaN.
        obs = self.mask.extend(views.obs, self.last_actions[rows])
        return views._replace(obs=np.where(self.visible[rows], obs, np.float32(0)))
