"""Sensors that fail in a film: ``AGENT:GROUP[@STEP]``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kd_core.errors import UserError, nearest
from kd_envs.hetero_mask.layouts import FeatureLayout
from kd_marl.stress.disturbances import Memory


@dataclass(frozen=True)
class FailedSensors:
    """Features that read zero from a step of every episode on: a :class:`kd_marl.stress.disturbances.Disturbance`.

    Attributes:
        since: ``(agents, obs_size)`` int: the step at which each feature fails; -1: never.
    """

    since: np.ndarray

    def failed(self, step: int) -> np.ndarray:
        """Return the features that are lost at a step, bool ``(agents, obs_size)``."""
        return (self.since >= 0) & (self.since <= step)

    def __call__(self, obs: np.ndarray, memory: Memory, rng: np.random.Generator) -> tuple[np.ndarray, Memory]:
        """See :class:`kd_marl.stress.disturbances.Disturbance`."""
        step = memory[0] if memory else 0
        return np.where(self.failed(step), np.float32(0), obs), (step + 1,)


def failed_sensors(words: Sequence[str], layout: FeatureLayout) -> FailedSensors:
    """Read the command's ``--fail-sensor``.

    Args:
        words: ``AGENT:GROUP`` or ``AGENT:GROUP@STEP``: an agent's index or name, and a block, a feature, or the part
            before its dot.
        layout: of the task's observations.

    Raises:
        UserError: an unknown agent or feature, or a step that is none.
    """
    since = np.full((layout.n_agents, layout.obs_size), -1)
    for word in words:
        who, colon, rest = word.partition(":")
        group, at, step = rest.partition("@")
        if not (colon and who and group) or (at and not (step.isdecimal() and len(step) < 10)):
            raise UserError(
                f"--fail-sensor {word}: expected AGENT:GROUP or AGENT:GROUP@STEP, for example 1:{_example(layout)}@10"
            )
        agent = agent_index(who, layout.agent_names, "--fail-sensor")
        try:
            found = layout.find(agent, group)
        except UserError as error:
            raise UserError(f"--fail-sensor {word}: {error}") from None
        derived = list(layout.agents[agent].derived.values())
        for index in found:
            # What is computed from others fails with them.
            sources: Sequence[Any] = [index] if index < layout.obs_size else derived[index - layout.obs_size]
            since[agent, list(sources)] = int(step or 0)
    return FailedSensors(since)


def agent_index(word: str, names: Sequence[str], option: str) -> int:
    """Return the index of an agent that a word names, by name or index.

    Raises:
        UserError: there is no such agent.
    """
    if word in names:
        return names.index(word)
    if word.isdecimal() and int(word) < len(names):
        return int(word)
    raise UserError(f"{option} {word} is no agent; {nearest(word, [*names, *map(str, range(len(names)))])}")


def _example(layout: FeatureLayout) -> str:
    """Return a group that the first agent has."""
    agent = layout.agents[0]
    return next(iter(agent.blocks), None) or str(agent.features[0])
