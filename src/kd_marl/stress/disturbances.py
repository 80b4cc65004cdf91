"""Disturbances of what agents observe: pure functions of a batch of observations, a memory and a random generator.

A disturbance is called once a step with everything that the agents would have seen, and returns what they see instead
and what it wants to remember until the next step. It changes none of its arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from kd_envs.hetero_mask.layouts import FeatureLayout

# What a disturbance remembers of an episode; empty when the episode begins.
Memory = tuple[Any, ...]


class Disturbance(Protocol):
    """Changes what agents observe."""

    def __call__(self, obs: np.ndarray, memory: Memory, rng: np.random.Generator) -> tuple[np.ndarray, Memory]:
        """Disturb one step.

        Args:
            obs: ``(batch, agents, obs_size)`` float32, as the environments show it.
            memory: what this disturbance returned at the step before; ``()`` at the first step of the episodes.
            rng: the only source of randomness.

        Returns:
            What the agents see, of the same shape and dtype, and the memory for the next step.
        """


@dataclass(frozen=True)
class Dropout:
    """Each feature group of each agent reads zero with a probability, anew at every step.

    Attributes:
        groups: ``(agents, obs_size)`` int: the group of each feature from 0; -1 for padding.
        probability: 0 to 1.
    """

    groups: np.ndarray
    probability: float

    def __call__(self, obs: np.ndarray, memory: Memory, rng: np.random.Generator) -> tuple[np.ndarray, Memory]:
        """See :class:`Disturbance`."""
        batch, agents, _ = obs.shape
        lost = np.zeros((batch, agents, self.groups.max() + 2), bool)
        # The last column is never lost: it is where -1 points.
        lost[..., :-1] = rng.random((batch, agents, lost.shape[-1] - 1)) < self.probability
        return np.where(lost[:, np.arange(agents)[:, None], self.groups], np.float32(0), obs), memory


@dataclass(frozen=True)
class Noise:
    """Gaussian noise on every feature, independent of all others.

    Attributes:
        scale: ``(agents, obs_size)``: the unit, each feature's own standard deviation.
        sigma: how many of these units the noise's standard deviation is.
    """

    scale: np.ndarray
    sigma: float

    def __call__(self, obs: np.ndarray, memory: Memory, rng: np.random.Generator) -> tuple[np.ndarray, Memory]:
        """See :class:`Disturbance`."""
        error = rng.standard_normal(obs.shape, np.float32)
        return obs + np.float32(self.sigma) * self.scale.astype(np.float32) * error, memory


@dataclass(frozen=True)
class Delay:
    """Agents see what was there ``steps`` steps ago; until so many have passed, what was there at the beginning."""

    steps: int

    def __call__(self, obs: np.ndarray, memory: Memory, rng: np.random.Generator) -> tuple[np.ndarray, Memory]:
        """See :class:`Disturbance`."""
        recent = (*memory, obs)[-self.steps - 1 :]
        return recent[0], recent


@dataclass(frozen=True)
class Chain:
    """Several disturbances, each of what the one before it shows; an empty chain changes nothing."""

    parts: Sequence[Disturbance] = ()

    def __call__(self, obs: np.ndarray, memory: Memory, rng: np.random.Generator) -> tuple[np.ndarray, Memory]:
        """See :class:`Disturbance`."""
        memories = memory or ((),) * len(self.parts)
        kept = []
        for part, own in zip(self.parts, memories, strict=True):
            obs, own = part(obs, own, rng)
            kept.append(own)
        return obs, tuple(kept)


def feature_groups(layout: FeatureLayout) -> np.ndarray:
    """Group the features that fail together: a block of the layout is one sensor.

    What an agent has in no block is one more group; in a layout without blocks each feature is a group of its own.

    Args:
        layout: names and blocks of the features.

    Returns:
        ``(agents, obs_size)`` int: each feature's group from 0; -1 for padding.
    """
    groups = np.full((layout.n_agents, layout.obs_size), -1)
    for row, agent in zip(groups, layout.agents, strict=True):
        of_feature = {name: letter for letter, names in agent.blocks.items() for name in names}
        numbers: dict[str, int] = {}
        for index, name in enumerate(agent.features):
            if name is not None:
                group = of_feature.get(name, "no block" if agent.blocks else name)
                row[index] = numbers.setdefault(group, len(numbers))
    return groups


def only_idle(available: np.ndarray, agent: int, idle: int | None) -> np.ndarray:
    """Leave a dead agent one action.

    Args:
        available: ``(batch, agents, actions)``, 0 where an action is not available.
        agent: who is dead.
        idle: the action that does nothing; None where there is none.

    Returns:
        A copy in which the agent has ``idle`` alone, or where that is not available the first action that is.
    """
    row = available[:, agent]
    chosen = row.argmax(-1) if idle is None else np.where(row[:, idle] != 0, idle, row.argmax(-1))
    left = available.copy()
    left[:, agent] = row * (np.arange(row.shape[-1]) == chosen[:, None])
    return left
