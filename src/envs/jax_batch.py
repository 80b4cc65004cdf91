"""JAX environments with the interface of a ``VectorEnv``: many are stepped in one call of a compiled function."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from epymarl_lite.envs.env_group import Outcome, Views
from kd_envs import jax_traces
from kd_envs.jax_support import load
from kd_envs.stepped_together import SteppedTogether
from kd_envs.worlds import World


@dataclass(frozen=True)
class Simulator:
    """Compiled functions over ``size`` environments.

    Each environment has a stream of random keys that advances with its episodes. Each episode has a stream that
    advances with its steps. So no episode depends on the length of the other environments' episodes.

    Attributes:
        keys: a list of ``size`` seeds -> the environments' streams, ``(size, 2)`` uint32.
        reset: ``keys`` -> ``(keys, episodes, world, views)``, where ``episodes`` are the episodes' streams.
        step: ``episodes, world, actions (size, agents) int32`` -> ``(episodes, world, views, rewards (size, agents),
            over (size,), facts)``. ``over`` is true where the task ended. ``facts`` is a dict of the entries of an
            episode's last info, ``(size,)`` each. It also steps fewer environments than ``size``, and compiles once
            for each such number.
        only: ``rows, (episodes, world)`` -> these rows of both.

    ``world`` is a dict of arrays by their names in the environment's own class.
    ``views`` is ``(state (size, state_size), obs (size, agents, obs_size), avail_actions (size, agents, actions))``.
    """

    keys: Callable[[Sequence[int]], Any]
    reset: Callable[..., Any]
    step: Callable[..., Any]
    only: Callable[..., Any]


def compile_simulator(
    name: str, size: int, n_agents: int, rules: Callable[[], tuple[Callable[..., Any], Callable[..., Any]]]
) -> Simulator:
    """Compile one environment's pure functions for ``size`` environments: seconds at first, then less.

    Args:
        name: of the environment, such as ``smax/3m``; equal names have equal functions.
        size: environments stepped together.
        n_agents: agents of one environment, each with one action.
        rules: returns two functions, and is called only where no earlier run has traced them:
            ``key`` -> ``(world, views)``, which begins an episode, and
            ``key, world, actions (agents,)`` -> ``(world, views, rewards, over, facts)``.
    """
    jax = load("jax")
    jnp = jax.numpy
    random = jax.random

    @functools.cache
    def functions() -> tuple[Callable[..., Any], Callable[..., Any]]:
        reset, step = rules()
        example, _ = jax.eval_shape(reset, random.key(0))
        names, whole = list(_named(example)), jax.tree.structure(example)

        # Keys are split inside: a call from Python costs more than the step of a small environment.
        def begin(bits: Any) -> tuple[Any, ...]:
            key, episode = random.split(random.wrap_key_data(bits))
            episode, draw = random.split(episode)
            world, views = reset(draw)
            return random.key_data(key), random.key_data(episode), _named(world), views

        def go_on(bits: Any, world: Any, actions: Any) -> tuple[Any, ...]:
            episode, draw = random.split(random.wrap_key_data(bits))
            world, *others = step(draw, jax.tree.unflatten(whole, [world[name] for name in names]), actions)
            return random.key_data(episode), _named(world), *others

        return jax.vmap(begin), jax.vmap(go_on)

    def keys(seeds: Sequence[int]) -> Any:
        # What random.key(seed) holds, in one step instead of one for each seed.
        return jnp.asarray([(0, seed % (1 << 32)) for seed in seeds], jnp.uint32)

    some = keys([0] * size)
    compiled_reset = jax_traces.compiled(f"{name}/reset", lambda: functions()[0], some)
    _, episodes, world, _ = compiled_reset(some)
    steps: dict[int, Callable[..., Any]] = {}

    def stepped(episodes: Any, world: Any, actions: Any) -> Any:
        count = len(actions)
        if count not in steps:
            steps[count] = jax_traces.compiled(f"{name}/step", lambda: functions()[1], episodes, world, actions)
        return steps[count](episodes, world, actions)

    stepped(episodes, world, np.zeros((size, n_agents), np.int32))

    def only(rows: np.ndarray, pair: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[rows], pair)

    return Simulator(keys, compiled_reset, stepped, jax.jit(only))


def _named(world: Any) -> dict[str, Any]:
    """Return the arrays of a world by name, such as ``state.unit_health``: all that is kept of its classes."""
    paths = load("jax").tree_util
    leaves, _ = paths.tree_flatten_with_path(world)
    return {paths.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


# When at most one in SHRINK environments still plays, the others are no longer stepped. Below SMALLEST environments
# this saves nothing, because the call itself costs more.
SHRINK, SMALLEST = 4, 32


class JaxBatch(SteppedTogether, ABC):
    """``size`` environments stepped in one call: a ``VectorEnv``.

    Environment i has a random stream of its own, seeded with ``seed + i``. So it plays the same episodes in a batch of
    any size. All begin an episode together. After ``episode_limit`` steps those still playing are truncated.

    Attributes:
        size: number of environments.
        env_info: EPyMARL's sizes of one environment.
    """

    # Action of agents whose episode is over while others still play; its effect is never read.
    idle_action: ClassVar[int]

    def __init__(self, size: int, seed: int, env_info: dict[str, Any]) -> None:
        self.size = size
        self.env_info = env_info
        self.episode_limit: int = env_info["episode_limit"]
        self._episodes: Any = None
        self._world: Any = None
        self._held: np.ndarray = np.arange(size)  # the environments that are still stepped, in order
        self._steps = 0
        self.reseed(seed)

    @property
    @abstractmethod
    def simulator(self) -> Simulator:
        """The compiled functions; compiled when the first episode begins."""

    @abstractmethod
    def share(self, rewards: np.ndarray) -> np.ndarray:
        """Convert the agents' rewards ``(k, agents)`` to those of the learner: as many columns, or one."""

    @abstractmethod
    def worlds(self, rows: Sequence[int]) -> list[World]:
        """Return the world of each of the environments ``rows``, as the last call of reset or step left it."""

    def _places(self, rows: Sequence[int]) -> np.ndarray:
        """Find environments that are still stepped in what the simulator holds."""
        return np.searchsorted(self._held, rows)

    def reseed(self, seed: int) -> None:
        """Restart the random streams: row i from ``seed + i``."""
        self._seed, self._keys = seed, None

    def reset(self) -> Views:
        """Begin an episode in each row."""
        if self._keys is None:
            self._keys = self.simulator.keys([self._seed + row for row in range(self.size)])
        self._keys, self._episodes, self._world, views = self.simulator.reset(self._keys)
        self._held = np.arange(self.size)
        self._steps = 0
        return _numpy(views)

    def step(self, rows: Sequence[int], actions: np.ndarray) -> Outcome:
        """Step the environments ``rows`` with ``actions`` (k, agents); the others are done until the next reset."""
        self._let_go(np.asarray(rows))
        chosen = slice(None) if len(rows) == len(self._held) else np.searchsorted(self._held, rows)
        assert np.array_equal(self._held[chosen], rows), "a row that was left out before"
        every = np.full((len(self._held), self.env_info["n_agents"]), self.idle_action, np.int32)
        every[chosen] = actions
        stepped = self.simulator.step(self._episodes, self._world, every)
        self._episodes, self._world, views, rewards, over, facts = stepped
        self._steps += 1
        terminated = np.array(over)[chosen]
        truncated = ~terminated & (self._steps >= self.episode_limit)
        facts = {name: np.asarray(values)[chosen].tolist() for name, values in facts.items()}
        infos = [
            {name: values[row] for name, values in facts.items()} if ended else {}
            for row, ended in enumerate(terminated | truncated)
        ]
        views = Views(*(view[chosen] for view in _numpy(views)))
        return Outcome(views, self.share(np.array(rewards, np.float64)[chosen]), terminated, truncated, infos)

    def _let_go(self, rows: np.ndarray) -> None:
        """Drop environments that are no longer stepped: retain a quarter, or a quarter of that, with all ``rows``."""
        size = len(self._held)
        while size // SHRINK >= max(SMALLEST, len(rows)):
            size //= SHRINK
        if size < len(self._held):
            others = np.setdiff1d(self._held, rows)[: size - len(rows)]
            held = np.union1d(rows, others)
            places = np.searchsorted(self._held, held)
            self._episodes, self._world = self.simulator.only(places, (self._episodes, self._world))
            self._held = held

    def close(self) -> None:
        """Forget the episodes."""
        self._world = self._episodes = None


def _numpy(views: Sequence[Any]) -> Views:
    # Copies: JAX's own memory is read-only, and torch would share it.
    return Views(*(np.array(view) for view in views))
