"""Particle worlds of one task, stepped together, with observations as in EPyMARL's gymma wrapper of PettingZoo."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kd_envs import jax_support
from kd_envs.gymma_args import GymmaArgs
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

    def __init__(self, size: int, args: GymmaArgs) -> None:
        """Read the task's sizes.

        Args:
            size: worlds stepped together.
            args: gymma's; the key is one of :data:`TASKS`.

        Raises:
            UserError: JaxMARL is not installed.
        """
        self._key, self._args = args.key, args
        widths, n_actions = _sizes(environment(args.key))
        env_info = {
            "state_shape": len(widths) * max(widths),
            "obs_shape": max(widths),
            "n_actions": max(n_actions),
            "n_agents": len(widths),
            "episode_limit": args.time_limit,
        }
        super().__init__(size, args.seed, env_info)

    @property
    def simulator(self) -> Simulator:
        """The compiled worlds, which :func:`worlds` caches."""
        return worlds(self._key, self.size)

    def share(self, rewards: np.ndarray) -> np.ndarray:
        """Compute the team's reward ``(k, 1)``, or return each agent's own ``(k, agents)``."""
        return self._args.share(rewards)

    def worlds(self, rows: Sequence[int]) -> list[World]:
        """Return where the agents and landmarks of these worlds are, and which landmark is the goal."""
        env, places = environment(self._key), self._places(rows)
        positions = np.asarray(self._world["p_pos"])[places]
        goals = np.asarray(self._world["goal"])[places].tolist() if "goal" in self._world else [None] * len(positions)
        radii = np.asarray(env.rad).tolist()
        colours = [tuple(int(part) for part in colour) for colour in env.colour[len(env.agents) :]]
        return [
            particle_world(list(env.agents), where.tolist(), radii, colours, goal)
            for where, goal in zip(positions, goals, strict=True)
        ]


def batched_mpe(size: int, **env_args: Any) -> MpeBatch | None:
    """Build the worlds of gymma's ``env_args``, stepped in one call; None where they would not be exactly the same.

    PettingZoo's own limit ``max_cycles`` must lie beyond ``time_limit``: when it is reached, the last reward is lost.
    """
    args = GymmaArgs.read(env_args)
    if args is None or args.key not in TASKS:
        return None
    cycles = args.others.get("max_cycles", 25)
    alike = args.others.keys() <= {"max_cycles"} and type(cycles) is int and args.time_limit < cycles
    return MpeBatch(size, args) if alike and jax_support.available() else None


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
    return compile_simulator(f"mpe/{key}", size, len(environment(key).agents), functools.partial(_rules, key))


def _rules(key: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return how one world begins and how it goes on."""
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

    return reset, step


def _sizes(env: Any) -> tuple[list[int], list[int]]:
    """Return the numbers of features and of actions, per agent."""
    return (
        [int(env.observation_spaces[agent].shape[0]) for agent in env.agents],
        [int(env.action_spaces[agent].n) for agent in env.agents],
    )
