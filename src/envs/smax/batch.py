"""Battles of one SMAX map, stepped together."""

from __future__ import annotations

import numpy as np

from envs.jax_batch import JaxBatch, Simulator
from envs.smax.simulator import STOP, battles, map_facts
from kd_core.errors import UserError


class SmaxBatch(JaxBatch):
    """``size`` battles stepped in one call.

    Attributes:
        env_info: EPyMARL's sizes, and ``n_enemies`` and ``family``, which the layout of the observations needs.
    """

    title = "SMAX"
    idle_action = STOP

    def __init__(
        self,
        size: int,
        map_name: str,
        seed: int = 0,
        episode_limit: int = 100,
        common_reward: bool = True,
        reward_scalarisation: str = "sum",
    ) -> None:
        """Read the map's sizes.

        Args:
            size: battles stepped together.
            map_name: a map of SMAX, such as ``8m``.
            seed: of battle 0.
            episode_limit: steps after which a battle is cut.
            common_reward: one reward for the team, or the same one for each agent.
            reward_scalarisation: not read: the team's reward is already one number.

        Raises:
            UserError: an unknown map, an ``episode_limit`` that is not a positive whole number, or a missing JaxMARL.
        """
        if type(episode_limit) is not int or episode_limit < 1:
            raise UserError(f"env_args.episode_limit is {episode_limit!r}: expected a number of steps of at least 1")
        self.facts = map_facts(map_name)
        self._map_name = map_name
        self._common_reward = common_reward
        env_info = {
            "state_shape": self.facts.state_size,
            "obs_shape": self.facts.obs_size,
            "n_actions": self.facts.n_actions,
            "n_agents": self.facts.n_agents,
            "episode_limit": episode_limit,
            "n_enemies": self.facts.n_enemies,
            "family": "smax",
        }
        super().__init__(size, seed, env_info)

    @property
    def simulator(self) -> Simulator:
        """The compiled battles, which :func:`~envs.smax.simulator.battles` caches."""
        return battles(self._map_name, self.size)

    def share(self, rewards: np.ndarray) -> np.ndarray:
        """Return the team's reward ``(k, 1)``, or the same for each agent ``(k, agents)``."""
        return rewards[:, :1] if self._common_reward else rewards
