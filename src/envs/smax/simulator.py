"""SMAX's battles as pure functions, with a state that a network can read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kd_core.errors import UserError, nearest
from kd_envs.jax_batch import Simulator, compile_simulator
from kd_envs.jax_support import available, load
from kd_envs.smax.fast_battle import against_heuristic

STOP = 4
MOVES = 5
# A row of the observation: an ally, an enemy, the agent itself; a row of the state: a unit, then its team and type.
OBS_UNIT, OBS_OWN = 13, 10
STATE_UNIT, STATE_IDENTITY = 10, 2
UNIT_TYPES = 6
MAP_WIDTH = 32.0
# The JAX environment's own step limit, which is never reached: the batch has a limit that flags truncation.
NO_LIMIT = 2**30


@dataclass(frozen=True)
class SmaxFacts:
    """Sizes of a map: units of each side, features of an observation and of the state, actions of an agent."""

    n_agents: int
    n_enemies: int
    obs_size: int
    state_size: int
    n_actions: int


# Units of each side on JaxMARL's maps, which take two seconds to import.
SIZES = {
    "3m": (3, 3),
    "2s3z": (5, 5),
    "25m": (25, 25),
    "3s5z": (8, 8),
    "8m": (8, 8),
    "5m_vs_6m": (5, 6),
    "10m_vs_11m": (10, 11),
    "27m_vs_30m": (27, 30),
    "3s5z_vs_3s6z": (8, 9),
    "3s_vs_5z": (3, 5),
    "6h_vs_8z": (6, 8),
    "smacv2_5_units": (5, 5),
    "smacv2_10_units": (10, 10),
    "smacv2_20_units": (20, 20),
}


def map_facts(map_name: str) -> SmaxFacts:
    """Return the sizes of a map.

    Raises:
        UserError: there is no such map, or JaxMARL is not installed.
    """
    if map_name in SIZES and available():
        allies, enemies = SIZES[map_name]
    else:
        scenario = _scenario(map_name)
        allies, enemies = scenario.num_allies, scenario.num_enemies
    return SmaxFacts(
        n_agents=allies,
        n_enemies=enemies,
        obs_size=OBS_UNIT * (allies - 1 + enemies) + OBS_OWN,
        state_size=(STATE_UNIT + STATE_IDENTITY) * (allies + enemies),
        n_actions=MOVES + enemies,
    )


@functools.lru_cache(maxsize=8)
def battles(map_name: str, size: int) -> Simulator:
    """Compile one map for ``size`` battles.

    ``over`` is true where a side is dead, ``battle_won`` where only the enemies are.

    Raises:
        UserError: there is no such map, or JaxMARL is not installed.
    """
    facts = map_facts(map_name)
    return compile_simulator(f"smax/{map_name}", size, facts.n_agents, functools.partial(_rules, map_name, facts))


def _rules(map_name: str, facts: SmaxFacts) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return how one battle begins and how it goes on."""
    jnp = load("jax").numpy
    env = environment(map_name)
    agents = list(env.agents)
    units = facts.n_agents + facts.n_enemies

    def views(obs: Any, world: Any) -> tuple[Any, Any, Any]:
        available = env.get_avail_actions(world)
        return (
            normalise_state(jnp, obs["world_state"], units),
            jnp.stack([obs[agent] for agent in agents]),
            jnp.stack([available[agent] for agent in agents]).astype(jnp.int32),
        )

    def reset(key: Any) -> tuple[Any, Any]:
        obs, world = env.reset(key)
        return world, views(obs, world)

    def step(key: Any, world: Any, actions: Any) -> tuple[Any, ...]:
        # Not env.step, which begins the next episode at once and so replaces the last observation of this one.
        obs, world, rewards, _, _ = env.step_env(key, world, dict(zip(agents, actions, strict=True)))
        alive = world.state.unit_alive
        allies, enemies = alive[: facts.n_agents].any(), alive[facts.n_agents :].any()
        rewards = jnp.stack([rewards[agent] for agent in agents])
        return world, views(obs, world), rewards, ~(allies & enemies), {"battle_won": allies & ~enemies}

    return reset, step


def normalise_state(xp: Any, state: Any, units: int) -> Any:
    """Scale JaxMARL's ``world_state``, whose positions are in map units and whose cooldowns fall below 0.

    Args:
        xp: ``numpy`` or ``jax.numpy``.
        state: ``(12 * units,)``: of each unit health, x, y, cooldown in seconds, 6 type bits; then teams, then types.
        units: number of allies and enemies.

    Returns:
        ``(12 * units,)`` float32 in the same order: positions in [0, 1], cooldowns from 0 (ready), types in [0, 1].
    """
    rows = state[: STATE_UNIT * units].reshape(units, STATE_UNIT)
    health, place, cooldown, kind = rows[:, :1], rows[:, 1:3], rows[:, 3:4], rows[:, 4:]
    rows = xp.concatenate([health, place / MAP_WIDTH, xp.maximum(cooldown, 0.0), kind], axis=1)
    teams, types = state[STATE_UNIT * units : -units], state[-units:]
    return xp.concatenate([rows.reshape(-1), teams, types / (UNIT_TYPES - 1)]).astype(xp.float32)


def environment(map_name: str) -> Any:
    """Build JaxMARL's environment of a map, against its heuristic enemy.

    Raises:
        UserError: there is no such map, or JaxMARL is not installed.
    """
    scenario = _scenario(map_name)
    return against_heuristic(
        scenario=scenario,
        max_steps=NO_LIMIT,
        smacv2_position_generation=scenario.smacv2_position_generation,
        smacv2_unit_type_generation=scenario.smacv2_unit_type_generation,
    )


def _scenario(map_name: str) -> Any:
    maps = load("jaxmarl.environments.smax.smax_env").MAP_NAME_TO_SCENARIO
    if map_name not in maps:
        raise UserError(f"map_name '{map_name}' is no SMAX map; {nearest(str(map_name), list(maps))}")
    return maps[map_name]
