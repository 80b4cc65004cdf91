"""A task as its environment describes it: the sizes that every stage needs before its first episode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """What an environment says of itself.

    Attributes:
        name: the task's name, ``map_name`` of the configuration.
        n_agents: agents in a team.
        n_actions: actions of one agent, unavailable ones included.
        obs_size: features of one agent's unmasked observation.
        state_size: features of the state.
        episode_limit: steps after which an episode is cut.
        facts: all that the environment said, among it what names the features of a battle.
    """

    name: str
    n_agents: int
    n_actions: int
    obs_size: int
    state_size: int
    episode_limit: int
    facts: Mapping[str, Any]
