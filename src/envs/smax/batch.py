"""Battles of one map behind the two faces a runner knows: many stepped together, or one environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.smax.simulator import STOP, Simulator, compile_simulator, map_facts
from epymarl_lite.runners.env_group import Outcome, Views
from kd_marl.errors import UserError


class SmaxBatch:
    """``size`` battles stepped in one call: a ``VectorEnv``.

    Battle i draws from a stream of its own, seeded with ``seed + i``: it is the same battle in a batch of any size.

    Attributes:
        size: how many battles.
        env_info: EPyMARL's sizes, and ``n_enemies`` and ``family``, which the layout of the observations needs.
    """

    def __init__(
        self,
        size: int,
        map_name: str,
        seed: int = 0,
        episode_limit: int = 100,
        common_reward: bool = True,
        reward_scalarisation: str = "sum",
    ) -> None:
        """Look the map up.

        Args:
            size: battles stepped together.
            map_name: a map of SMAX, such as ``8m``.
            seed: of battle 0.
            episode_limit: steps after which a battle is cut.
            common_reward: one reward for the team, or the same one for each agent.
            reward_scalarisation: read by no one here: the team's reward is already one number.

        Raises:
            UserError: an unknown map, an ``episode_limit`` that is no positive whole number, or no JaxMARL.
        """
        if type(episode_limit) is not int or episode_limit < 1:
            raise UserError(f"env_args.episode_limit is {episode_limit!r}: expected a number of steps of at least 1")
        self.size = size
        self.facts = map_facts(map_name)
        self.episode_limit = episode_limit
        self._rewards = 1 if common_reward else self.facts.n_agents
        self._map_name = map_name
        self._world: Any = None
        self.reseed(seed)
        self._steps = 0
        self.env_info: dict[str, Any] = {
            "state_shape": self.facts.state_size,
            "obs_shape": self.facts.obs_size,
            "n_actions": self.facts.n_actions,
            "n_agents": self.facts.n_agents,
            "episode_limit": episode_limit,
            "n_enemies": self.facts.n_enemies,
            "family": "smax",
        }

    def reseed(self, seed: int) -> None:
        """Start the battles' random streams anew: row i from ``seed + i``."""
        self._seed, self._keys = seed, None

    def reset(self) -> Views:
        """Begin a battle in each row."""
        if self._keys is None:
            self._keys = self._simulator.keys([self._seed + battle for battle in range(self.size)])
        self._keys, self._world, views = self._simulator.reset(self._keys)
        self._steps = 0
        return _numpy(views)

    def step(self, rows: Sequence[int], actions: np.ndarray) -> Outcome:
        """Step the battles ``rows`` with ``actions`` (k, agents); those that are over stand still, unseen."""
        every = np.full((self.size, self.facts.n_agents), STOP, np.int32)
        every[rows] = actions
        self._keys, self._world, views, reward, over, won = self._simulator.step(self._keys, self._world, every)
        self._steps += 1
        chosen = slice(None) if len(rows) == self.size else np.asarray(rows)
        terminated = np.array(over)[chosen]
        truncated = ~terminated & (self._steps >= self.episode_limit)
        won = np.array(won)[chosen]
        rewards = np.repeat(np.array(reward, np.float64)[chosen, None], self._rewards, axis=1)
        infos = [{"battle_won": bool(win)} if end else {} for win, end in zip(won, terminated | truncated, strict=True)]
        return Outcome(Views(*(view[chosen] for view in _numpy(views))), rewards, terminated, truncated, infos)

    @property
    def _simulator(self) -> Simulator:
        # Compiled when the first battle begins: whoever only asks for sizes does not wait for it.
        return compile_simulator(self._map_name, self.size)

    def call(self, method: str) -> list[Any]:
        """What a runner asks of every environment: its sizes; anything else a batch of battles cannot do.

        Raises:
            UserError: any other method.
        """
        if method == "get_env_info":
            return [self.env_info] * self.size
        raise UserError(f"SMAX cannot '{method}': leave render and save_replay at False")

    def close(self) -> None:
        """Forget the battles."""
        self._world = None


def _numpy(views: Sequence[Any]) -> Views:
    # Copies: JAX's own memory is read-only, and torch would share it.
    return Views(*(np.array(view) for view in views))
