"""Particle worlds of one task, stepped together, with observations as in EPyMARL's gymma wrapper of PettingZoo."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from kd_envs import jax_support
from kd_envs.jax_batch import JaxBatch, Simulator, compile_simulator
from kd_envs.worlds import World, particle_world

# Tasks of which JaxMARL has the same worlds, observations and rewards: key -> module and class.
TASKS = {
    "pz-mpe-simple-spread-v3": ("simple_spread", "SimpleSpreadMPE"),
    "pz-mpe-simple-speaker-listener-v4": ("simple_speaker_listener", "SimpleSpeakerListenerMPE"),
    "pz-mpe-simple-adversary-v3": ("simple_adversary", "SimpleAdversaryMPE"),
}


class MpeBatch(JaxBatch):
    """``size`` worlds of one task stepped in one call.

    As in gymma, observations are padded with zeros at the end to the longest. The state is all of them in a row. An
    agent with fewer actions than another has the rest unavailable.
    """

    title = "MPE stepped in one call"
    idle_action = 0

    def __init__(
        self,
        size: int,
        key: str,
        time_limit: int,
        seed: int = 0,
        common_reward: bool = True,
        reward_scalarisation: str = "sum",
    ) -> None:
        """Read the task's sizes.

        Args:
            size: worlds stepped together.
            key: one of :data:`TASKS`.
            time_limit: steps of an episode; its last reward counts.
            seed: of world 0.
            common_reward: one reward for the team, or each agent's own.
            reward_scalarisation: the team's reward is the ``sum`` or the ``mean`` over the agents.

        Raises:
            UserError: JaxMARL is not installed.
        """
        self._key = key
        self._common_reward = common_reward
        self._mean = reward_scalarisation == "mean"
        widths, n_actions = _sizes(environment(key))
        env_info = {
            "state_shape": len(widths) * max(widths),
            "obs_shape": max(widths),
            "n_actions": max(n_actions),
            "n_agents": len(widths),
            "episode_limit": time_limit,
        }
        super().__init__(size, seed, env_info)

    @property
    def simulator(self) -> Simulator:
        """The compiled worlds, which :func:`worlds` caches."""
        return worlds(self._key, self.size)

    def share(self, rewards: np.ndarray) -> np.ndarray:
        """Compute the team's reward ``(k, 1)``, or return each agent's own ``(k, agents)``."""
        if not self._common_reward:
            return rewards
        return (np.mean if self._mean else np.sum)(rewards, axis=1, keepdims=True)

    def worlds(self, rows: Sequence[int]) -> list[World]:
        """Return where the agents and landmarks of these worlds are, and which landmark is the goal."""
        env, places = environment(self._key), self._places(rows)
        positions = np.asarray(self._world.p_pos)[places]
        goals = [None] * len(positions) if self._world.goal is None else np.asarray(self._world.goal)[places].tolist()
        radii = np.asarray(env.rad).tolist()
        colours = [tuple(int(part) for part in colour) for colour in env.colour[len(env.agents) :]]
        return [
            particle_world(list(env.agents), where.tolist(), radii, colours, goal)
            for where, goal in zip(positions, goals, strict=True)
        ]


def batched_mpe(
    size: int,
    key: str | None = None,
    time_limit: int = 0,
    max_cycles: int = 25,
    pretrained_wrapper: str | None = None,
    seed: int = 0,
    common_reward: bool = True,
    reward_scalarisation: str = "sum",
    **others: Any,
) -> MpeBatch | None:
    """Build the worlds of gymma's ``env_args``, stepped in one call; None where they would not be exactly the same.

    PettingZoo's own limit ``max_cycles`` must lie beyond ``time_limit``: when it is reached, the last reward is lost.
    """
    same_task = key in TASKS and pretrained_wrapper is None and not others and type(seed) is int
    same_episodes = type(time_limit) is int and type(max_cycles) is int and 1 <= time_limit < max_cycles
    known_reward = reward_scalarisation in ("sum", "mean")
    if not (same_task and same_episodes and known_reward and jax_support.available()):
        return None
    return MpeBatch(size, str(key), time_limit, seed, common_reward, reward_scalarisation)


def environment(key: str) -> Any:
    """Build JaxMARL's own environment of a task.

    Raises:
        UserError: JaxMARL is not installed.
    """
    module, name = TASKS[key]
    return getattr(jax_support.load(f"jaxmarl.environments.mpe.{module}"), name)()


@functools.lru_cache(maxsize=8)
def worlds(key: str, size: int) -> Simulator:
    """Compile one task for ``size`` worlds. No task ends by itself, and every info is empty."""
    jnp = jax_support.load("jax").numpy
    env = environment(key)
    agents = list(env.agents)
    widths, n_actions = _sizes(env)
    available = jnp.array([[action < own for action in range(max(n_actions))] for own in n_actions], jnp.int32)

    def views(obs: Any) -> tuple[Any, Any, Any]:
        rows = [jnp.pad(obs[agent], (0, max(widths) - width)) for agent, width in zip(agents, widths, strict=True)]
        return jnp.concatenate(rows), jnp.stack(rows), available

    def reset(draw: Any) -> tuple[Any, Any]:
        obs, world = env.reset(draw)
        return world, views(obs)

    def step(draw: Any, world: Any, actions: Any) -> tuple[Any, ...]:
        obs, world, rewards, _, _ = env.step_env(draw, world, dict(zip(agents, actions, strict=True)))
        return world, views(obs), jnp.stack([rewards[agent] for agent in agents]), jnp.array(False), {}

    return compile_simulator(size, len(agents), reset, step)


def _sizes(env: Any) -> tuple[list[int], list[int]]:
    """Return the numbers of features and of actions, per agent."""
    return (
        [int(env.observation_spaces[agent].shape[0]) for agent in env.agents],
        [int(env.action_spaces[agent].n) for agent in env.agents],
    )
