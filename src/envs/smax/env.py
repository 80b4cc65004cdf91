"""One battle as the hosts' ``MultiAgentEnv``: a batch of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from epymarl_lite.envs.env_group import Views
from kd_core.host import get_host
from kd_envs.smax.batch import SmaxBatch


class SmaxEnv(get_host().MultiAgentEnv):  # type: ignore[misc]
    """EPyMARL environment ``smax``; the arguments are :class:`SmaxBatch`'s, without ``size``."""

    def __init__(self, **env_args: Any) -> None:
        self.batch = SmaxBatch(size=1, **env_args)
        self.n_agents = self.batch.facts.n_agents
        self.episode_limit = self.batch.episode_limit
        self.common_reward = env_args.get("common_reward", True)
        self._latest: Views | None = None
        self._fresh = False

    @property
    def _views(self) -> Views:
        # Before the first reset, an environment already returns the battle that the first reset begins.
        if self._latest is None:
            self._latest, self._fresh = self.batch.reset(), True
        return self._latest

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[list[np.ndarray], dict]:
        """Begin a battle; ``seed`` restarts the stream of battles."""
        if seed is not None:
            self.seed(seed)
        if not self._fresh:
            self._latest = self.batch.reset()
        self._fresh = False
        return self.get_obs(), {}

    def step(self, actions: Sequence[int]) -> tuple[list[np.ndarray], Any, bool, bool, dict[str, Any]]:
        """Play one joint action."""
        self._fresh = False
        outcome = self.batch.step([0], np.asarray(actions, np.int32).reshape(1, -1))
        self._latest = outcome.views
        reward = float(outcome.reward[0, 0]) if self.common_reward else outcome.reward[0].tolist()
        return self.get_obs(), reward, bool(outcome.terminated[0]), bool(outcome.truncated[0]), outcome.infos[0]

    def get_obs(self) -> list[np.ndarray]:
        """Return every agent's observation, ``(obs_size,)`` float32 each."""
        return list(self._views.obs[0])

    def get_obs_agent(self, agent_id: int) -> np.ndarray:
        """Return one agent's observation."""
        return self._views.obs[0, agent_id]

    def get_obs_size(self) -> int:
        """Return the number of features of an observation."""
        return self.batch.facts.obs_size

    def get_state(self) -> np.ndarray:
        """Return the normalised world state ``(state_size,)`` float32."""
        return self._views.state[0]

    def get_state_size(self) -> int:
        """Return the number of features of the state."""
        return self.batch.facts.state_size

    def get_avail_actions(self) -> list[list[int]]:
        """Return 0/1 per agent and action: north, east, south, west, stop, then attack enemy k."""
        return self._views.avail_actions[0].tolist()

    def get_avail_agent_actions(self, agent_id: int) -> list[int]:
        """Return one agent's row of available actions."""
        return self.get_avail_actions()[agent_id]

    def get_total_actions(self) -> int:
        """Return the number of actions."""
        return self.batch.facts.n_actions

    def get_env_info(self) -> dict[str, Any]:
        """Return the sizes, as :attr:`SmaxBatch.env_info`."""
        return dict(self.batch.env_info)

    def get_stats(self) -> dict[str, Any]:
        """Return an empty dict: wins are in the info of an episode's last step."""
        return {}

    def seed(self, seed: int | None = None) -> None:
        """Restart the stream of battles from ``seed``."""
        self.batch.reseed(0 if seed is None else seed)
        self._latest, self._fresh = None, False

    def render(self) -> None:
        """Refuse to render, which battles cannot do.

        Raises:
            UserError: always.
        """
        self.batch.call("render")

    def save_replay(self) -> None:
        """Refuse to save a replay, which battles do not have.

        Raises:
            UserError: always.
        """
        self.batch.call("save_replay")

    def close(self) -> None:
        """Forget the battle."""
        self.batch.close()
