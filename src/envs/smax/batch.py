"""Battles of one SMAX map, stepped together."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from kd_core.errors import UserError
from kd_envs.jax_batch import JaxBatch, Simulator
from kd_envs.smax.simulator import MAP_WIDTH, MOVES, STOP, battles, environment, map_facts
from kd_envs.worlds import Shape, World


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
        """The compiled battles, which :func:`~kd_envs.smax.simulator.battles` caches."""
        return battles(self._map_name, self.size)

    def share(self, rewards: np.ndarray) -> np.ndarray:
        """Return the team's reward ``(k, 1)``, or the same for each agent ``(k, agents)``."""
        return rewards[:, :1] if self._common_reward else rewards

    @functools.cached_property
    def _rules(self) -> Any:
        return environment(self._map_name)

    @functools.cached_property
    def _cooldowns(self) -> np.ndarray:
        """Seconds until each unit of each battle could attack, when `worlds` last looked."""
        return np.zeros((self.size, self.facts.n_agents + self.facts.n_enemies))

    def worlds(self, rows: Sequence[int]) -> list[World]:
        """Return the units of these battles, and who has hit whom since the last call."""
        names = ("unit_positions", "unit_health", "unit_alive", "unit_types", "prev_attack_actions")
        parts = {name: np.asarray(self._world[f"state.{name}"])[self._places(rows)] for name in names}
        cooldowns = np.asarray(self._world["state.unit_weapon_cooldowns"])[self._places(rows)]
        # A weapon cools down at every moment, but for the one at which it hits.
        step = self._rules.world_steps_per_env_step * self._rules.time_per_step
        hits = cooldowns > self._cooldowns[rows] - step + 1e-3
        self._cooldowns[rows] = cooldowns
        return [self._battle({name: part[k] for name, part in parts.items()}, hits[k]) for k in range(len(cooldowns))]

    def _battle(self, units: dict[str, np.ndarray], hits: np.ndarray) -> World:
        rules, allies = self._rules, self.facts.n_agents
        shapes, attacks = [], []
        for k, kind in enumerate(units["unit_types"].tolist()):
            ally = k < allies
            number = k if ally else k - allies
            name = rules.unit_type_names[kind]
            x, y = units["unit_positions"][k].tolist()
            shapes.append(
                Shape(
                    f"{name} {number}" if ally else f"enemy {name} {number}",
                    "agent" if ally else "opponent",
                    x,
                    y,
                    float(rules.unit_type_radiuses[kind]),
                    agent=k if ally else None,
                    features=(f"A{number}",) if ally else (f"E{number}",),
                    label=str(number),
                    health=float(units["unit_health"][k]),
                    full_health=float(rules.unit_type_health[kind]),
                    alive=bool(units["unit_alive"][k]),
                    sight=float(rules.unit_type_sight_ranges[kind]),
                )
            )
            target = int(units["prev_attack_actions"][k]) - MOVES
            if target >= 0 and hits[k]:
                # Enemies number the allies from the last.
                attacks.append((k, allies + target if ally else allies - 1 - target))
        return World((0.0, 0.0, MAP_WIDTH, MAP_WIDTH), tuple(shapes), tuple(attacks))
