"""Several environments of one process, stepped by one call."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Number
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

import numpy as np

from epymarl_lite.envs import REGISTRY, MultiAgentEnv

EnvFactory = Callable[[], MultiAgentEnv]


class Views(NamedTuple):
    """States, observations and available actions of k environments before a step."""

    state: np.ndarray  # (k, state_size) float32
    obs: np.ndarray  # (k, agents, obs_size) float32
    avail_actions: np.ndarray  # (k, agents, actions) int32


class Outcome(NamedTuple):
    """Results of a step of k environments."""

    views: Views
    reward: np.ndarray  # (k, 1) or (k, agents) float64
    terminated: np.ndarray  # (k,) bool: the task ended
    truncated: np.ndarray  # (k,) bool: a limit outside the task ended the episode
    infos: list[dict[str, Any]]  # k, the numbers of the last step's info; empty before the last step


class VectorEnv(Protocol):
    """Environments stepped together, here or in other processes."""

    size: int

    def reset(self) -> Views:
        """Start an episode in each environment."""

    def step(self, rows: Sequence[int], actions: np.ndarray) -> Outcome:
        """Step the environments ``rows`` (ascending) with ``actions`` (k, agents)."""

    def call(self, method: str) -> list[Any]:
        """Call a method without arguments of every environment."""

    def close(self) -> None:
        """Close every environment; may be called twice."""


def env_factories(args: SimpleNamespace, registry: Mapping[str, Any] = REGISTRY) -> list[EnvFactory]:
    """Return builders of ``args.batch_size_run`` environments; the i-th is seeded with ``env_args.seed + i``.

    Raises:
        ValueError: an unknown environment.
    """
    if args.env not in registry:
        near = difflib.get_close_matches(str(args.env), registry, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "valid: " + ", ".join(sorted(registry))
        raise ValueError(f"unknown environment env='{args.env}': {hint}")
    make = partial(
        registry[args.env],
        **{
            **args.env_args,
            "common_reward": args.common_reward,
            "reward_scalarisation": args.reward_scalarisation,
        },
    )
    seed = args.env_args.get("seed")
    if seed is None:
        return [make] * args.batch_size_run
    return [partial(make, seed=seed + index) for index in range(args.batch_size_run)]


class EnvGroup:
    """Environments of this process, stepped one after the other.

    Attributes:
        envs: the environments, in order.
        size: number of environments.
    """

    def __init__(self, factories: Sequence[EnvFactory]) -> None:
        self.envs = [make() for make in factories]
        self.size = len(self.envs)

    def reset(self) -> Views:
        """Start an episode in each environment."""
        for env in self.envs:
            env.reset()
        return _views(self.envs)

    def step(self, rows: Sequence[int], actions: np.ndarray) -> Outcome:
        """Step the environments ``rows`` with ``actions`` (k, agents)."""
        envs = [self.envs[row] for row in rows]
        rewards, terminated, truncated, infos = [], [], [], []
        for env, action in zip(envs, actions, strict=True):
            _, reward, ended, cut, info = env.step(action)
            rewards.append(np.atleast_1d(np.asarray(reward, np.float64)))
            terminated.append(bool(ended))
            truncated.append(bool(cut))
            infos.append(_numbers(info) if ended or cut else {})
        return Outcome(_views(envs), np.stack(rewards), np.array(terminated), np.array(truncated), infos)

    def call(self, method: str) -> list[Any]:
        """Call a method without arguments of every environment."""
        return [getattr(env, method)() for env in self.envs]

    def close(self) -> None:
        """Close every environment."""
        while self.envs:
            self.envs.pop().close()


def _views(envs: Sequence[MultiAgentEnv]) -> Views:
    return Views(
        np.asarray([env.get_state() for env in envs], np.float32),
        np.asarray([env.get_obs() for env in envs], np.float32),
        np.asarray([env.get_avail_actions() for env in envs], np.int32),
    )


def _numbers(info: dict[str, Any]) -> dict[str, Any]:
    """Select the entries of an info dict that can be summed over episodes."""
    return {key: value for key, value in info.items() if isinstance(value, (Number, np.bool_))}
