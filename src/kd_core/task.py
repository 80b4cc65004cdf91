"""A task as its environment describes it: the sizes that every stage needs before its first episode."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from kd_core.errors import UserError


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

    @property
    def parts(self) -> tuple[Task, ...]:
        """The tasks that one team plays, in their order; this one where it is one."""
        return tuple(replace(self, name=name) for name in task_names(self.name))


def task_names(name: str) -> tuple[str, ...]:
    """Split the name of a run's task: ``3s5z,8m`` are two tasks that one team plays, most names are one task.

    Raises:
        UserError: a task is named twice, or there is nothing between two commas.
    """
    names = tuple(part.strip() for part in str(name).split(","))
    if len(set(names)) < len(names) or (len(names) > 1 and "" in names):
        raise UserError(f"the tasks {name} are not different names with commas between: expected such as 3s5z,8m")
    return names


def of_task(args: Any, name: str, **updates: Any) -> SimpleNamespace:
    """Copy the namespace of a run on several tasks as that of a run on one of them.

    Args:
        args: the run's namespace.
        name: one of `task_names`.
        updates: other values that differ.
    """
    key = "map_name" if args.env_args.get("map_name") else "key"
    prefix = f"env_args.{key}="
    words = [f"{prefix}{name}" if word.startswith(prefix) else word for word in shlex.split(args.command)]
    one = {"map_name": name, "env_args": {**args.env_args, key: name}, "command": shlex.join(words)}
    return SimpleNamespace(**{**vars(args), **one, **updates})


def shares(size: int, tasks: int) -> list[int]:
    """Divide a block's episodes among tasks: the first task's come first, and none has two more than another."""
    return [size // tasks + (number < size % tasks) for number in range(tasks)]


# A fact of an environment -> how a message calls it.
_WORDS = {"n_agents": "agents", "n_actions": "actions", "obs_shape": "features", "state_shape": "features of the state"}


def check_equal_sizes(infos: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse tasks that one team cannot play.

    Args:
        infos: task -> what its environment says of itself.

    Raises:
        UserError: two of them differ; the message has all in which they do.
    """
    first = next(iter(infos))
    for other, info in infos.items():
        facts = {**infos[first], **info}
        different = [key for key in facts if infos[first].get(key) != info.get(key)]
        if different:
            parts = [_difference(key, infos[first].get(key), info.get(key)) for key in different]
            raise UserError(
                f"one student plays tasks of equal sizes, and {first} and {other} differ: {', '.join(parts)}; "
                "train a student for each"
            )


def _difference(key: str, one: Any, other: Any) -> str:
    """Write in what two environments differ, with the values where they are short."""
    word = _WORDS.get(key, key)
    return f"{word} {one} and {other}" if all(isinstance(value, int | str) for value in (one, other)) else word
