"""A suite's YAML file as data: tasks x methods x limits x seeds (every key: docs/reference/formats/suite.md).

Whatever is wrong with a file is one line that names the file, the key and the nearest valid word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_core import yaml_text
from kd_core.errors import UserError, nearest

LIMITS = ("fo", "lh", "lha")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# What the suite decides for every run, and how to say it in the file instead.
_OWN = {
    "seed": "the file's 'seeds'",
    "limits": "the file's 'limits'",
    "teacher": "the task's 'teacher'",
    "local_results_path": "--to",
    **dict.fromkeys(("resume", "evaluate", "checkpoint_path", "load_step", "final_evaluation"), "nothing"),
    "runner_processes": "the file's 'cpus'",
    "expert_buffer": "nothing: the suite makes it",
}

Overrides = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A task: which environment, and what its runs are given besides."""

    name: str
    env: str
    overrides: Overrides = field(default_factory=dict)
    teacher: str = ""
    teacher_overrides: Overrides = field(default_factory=dict)
    limits: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Method:
    """A method: an algorithm's configuration, and what differs from it."""

    name: str
    config: str
    overrides: Overrides = field(default_factory=dict)
    tasks: tuple[str, ...] | None = None
    limits: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    steps_of: str = ""
    cpus: int | None = None


@dataclass(frozen=True)
class Cell:
    """One run of the grid, by names."""

    task: str
    method: str
    limits: str
    seed: int

    @property
    def label(self) -> str:
        """Return a name for people."""
        return f"{self.task}/{self.method}/{self.limits}/seed{self.seed}"


@dataclass(frozen=True)
class Part:
    """The part of a grid that is asked for, by names; None: all."""

    tasks: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    limits: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Suite:
    """A whole file, and which part of its grid is asked for.

    Attributes:
        path: the file.
        limits: name -> what ``with`` says of who sees what.
        overrides: what the file gives every run; tasks, limits and methods win over it.
        updates: what the command line gives every run; it wins over all.
        cpus: processors of a run.
        retries: how often a run whose process was killed is tried again.
    """

    path: Path
    name: str
    tasks: dict[str, Task]
    methods: dict[str, Method]
    limits: dict[str, Overrides]
    seeds: tuple[int, ...]
    overrides: Overrides
    updates: Overrides
    cpus: int
    retries: int
    part: Part = Part()

    def cells(self) -> list[Cell]:
        """Return every run that is asked for, seed after seed: a suite that was stopped early has whole seeds."""
        part = self.part
        return [
            Cell(task.name, method.name, limits, seed)
            for seed in self.seeds
            if _among(seed, part.seeds)
            for task in self.tasks.values()
            if _among(task.name, part.tasks)
            for method in self.methods.values()
            if _among(method.name, part.methods) and _among(task.name, method.tasks) and _among(seed, method.seeds)
            for limits in self.limits
            if _among(limits, part.limits) and self.allows(task, method, limits)
        ]

    def cpus_of(self, method: str) -> int:
        """Return the processors of a method's runs, or of what cells share."""
        return (self.methods[method].cpus if method in self.methods else None) or self.cpus

    def allows(self, task: Task, method: Method, limits: str) -> bool:
        """Return whether a method is run on a task under limits."""
        return _among(limits, task.limits) and _among(limits, method.limits)


def _among(one: Any, only: tuple[Any, ...] | None) -> bool:
    return only is None or one in only


def load(path: Path, updates: Iterable[str] = (), part: Part | None = None) -> Suite:
    """Read a suite.

    Args:
        path: the YAML file.
        updates: ``key=value`` words for every run, which win over the file's.
        part: which of its runs are asked for; None: all.

    Raises:
        UserError: it cannot be read, or the first thing that is wrong in it or in what is asked of it.
    """
    content = yaml_text.read(path)
    try:
        return _suite(path, content, updates, part or Part())
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _suite(path: Path, content: Any, updates: Iterable[str], part: Part) -> Suite:
    keys = ("name", "tasks", "methods", "limits", "seeds", "with", "cpus", "retries")
    top = _keys(content, "the file", keys, required=("tasks", "methods", "seeds"))
    seeds = _seeds(top["seeds"], "seeds")
    limits = _limits(top.get("limits", "fo"))
    tasks = {name: _task(name, value) for name, value in _named(top["tasks"], "tasks").items()}
    methods = {name: _method(name, value) for name, value in _named(top["methods"], "methods").items()}
    for task in tasks.values():
        _known(task.limits, limits, f"tasks.{task.name}.limits")
    for method in methods.values():
        _known(method.tasks, tasks, f"methods.{method.name}.tasks")
        _known(method.limits, limits, f"methods.{method.name}.limits")
        _among_seeds(method.seeds, seeds, f"methods.{method.name}.seeds")
        _known([method.steps_of] if method.steps_of else None, methods, f"methods.{method.name}.steps_of")
        if method.steps_of and methods[method.steps_of].steps_of:
            raise UserError(f"methods.{method.name}.steps_of: {method.steps_of} has a steps_of itself; name a student")
        if method.steps_of and "t_max" in method.overrides:
            raise UserError(f"methods.{method.name}: steps_of decides t_max; leave one of the two out")
    name = top.get("name", path.stem)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(f"name is {name!r}: expected letters, digits, '_', '-' and '.'")
    own = dict(_word(word) for word in updates)
    suite = Suite(
        path=path,
        name=name,
        tasks=tasks,
        methods=methods,
        limits=limits,
        seeds=seeds,
        overrides=_overrides(top.get("with"), "with"),
        updates=_overrides(own, "'with' of the command line"),
        cpus=_count(top.get("cpus", 1), "cpus", least=1),
        retries=_count(top.get("retries", 2), "retries", least=0),
        part=part,
    )
    for wanted, there, option in (
        (part.tasks, tasks, "--tasks"),
        (part.methods, methods, "--methods"),
        (part.limits, limits, "--limits"),
    ):
        _known(wanted, there, option)
    _among_seeds(part.seeds, seeds, "--seeds")
    if not suite.cells():
        raise UserError("no task, method, limits and seed go together: see their 'tasks', 'limits' and 'seeds'")
    return suite


def _task(name: str, value: Any) -> Task:
    where = f"tasks.{name}"
    keys = ("env", "map_name", "key", "env_args", "with", "teacher", "teacher_with", "limits")
    given = _keys(value, where, keys, required=("env",))
    arguments = dict(_mapping_of(given.get("env_args"), f"{where}.env_args"))
    arguments.update({key: _text(given[key], f"{where}.{key}") for key in ("map_name", "key") if key in given})
    overrides = {f"env_args.{key}": value for key, value in arguments.items()}
    return Task(
        name=name,
        env=_text(given["env"], f"{where}.env"),
        overrides={**overrides, **_overrides(given.get("with"), f"{where}.with")},
        teacher=_text(given.get("teacher", ""), f"{where}.teacher"),
        teacher_overrides=_overrides(given.get("teacher_with"), f"{where}.teacher_with", own=("seed",)),
        limits=_names(given.get("limits"), f"{where}.limits"),
    )


def _method(name: str, value: Any) -> Method:
    where = f"methods.{name}"
    keys = ("config", "with", "tasks", "limits", "seeds", "steps_of", "cpus")
    given = _keys({} if value is None else value, where, keys)
    return Method(
        name=name,
        config=_text(given.get("config", name), f"{where}.config"),
        overrides=_overrides(given.get("with"), f"{where}.with"),
        tasks=_names(given.get("tasks"), f"{where}.tasks"),
        limits=_names(given.get("limits"), f"{where}.limits"),
        seeds=_seeds(given["seeds"], f"{where}.seeds") if "seeds" in given else None,
        steps_of=_text(given.get("steps_of", ""), f"{where}.steps_of"),
        cpus=_count(given["cpus"], f"{where}.cpus", least=1) if "cpus" in given else None,
    )


def _limits(value: Any) -> dict[str, Overrides]:
    if isinstance(value, Mapping):
        named = _named(value, "limits")
        found = {name: _overrides(given, f"limits.{name}", own=("limits",)) for name, given in named.items()}
        for name, overrides in found.items():
            if not overrides.keys() & {"limits", "masks"}:
                raise UserError(f"limits.{name} does not say who sees what: add 'limits: fo', 'lh' or 'lha', or masks")
        return found
    names = _names(value, "limits") or ()
    _known(names, LIMITS, "limits")
    return {name: {"limits": name} for name in names}


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    seeds = value if isinstance(value, list) else [value]
    if not seeds or any(type(seed) is not int or seed < 0 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise UserError(f"{where} is {value!r}: expected different whole numbers of at least 0, such as [1, 2, 3]")
    return tuple(seeds)


def _overrides(value: Any, where: str, own: tuple[str, ...] = ()) -> Overrides:
    """Return overrides with dotted keys, ``{"env_args.a": 1}``; refuse those that the suite sets itself."""
    flat: Overrides = {}
    for key, given in _mapping_of(value, where).items():
        if key == "env_args" and not isinstance(given, Mapping):
            raise UserError(f"{where}.env_args is {given!r}: expected keys with values, such as map_name: 3m")
        if isinstance(given, Mapping) and key != "masks":
            flat.update({f"{key}.{inner}": below for inner, below in given.items()})
        else:
            flat[str(key)] = given
    for key in flat:
        if key in _OWN and key not in own:
            raise UserError(f"{where}.{key}: the suite sets it itself; instead use {_OWN[key]}")
    return flat


def _word(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not key or not equals:
        raise UserError(f"'{word}' after 'with' is no key=value")
    return key, value


def _keys(value: Any, where: str, valid: tuple[str, ...], required: tuple[str, ...] = ()) -> dict[str, Any]:
    given = dict(_mapping_of(value, where))
    prefix = "" if where == "the file" else f"{where}."
    for key in given:
        if key not in valid:
            raise UserError(f"unknown key '{prefix}{key}': {nearest(key, valid)}")
    for key in required:
        if not given.get(key) and given.get(key) != 0:
            raise UserError(f"{prefix}{key} is missing: docs/reference/formats/suite.md shows every key")
    return given


def _named(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, list):
        value = dict.fromkeys(value) if all(isinstance(name, str) for name in value) else value
    given = _mapping_of(value, where)
    for name in given:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UserError(f"{where}: {name!r} is no name: use letters, digits, '_', '-' and '.' (quote numbers)")
    return dict(given)


def _mapping_of(value: Any, where: str) -> Mapping[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError(f"{where} is {value!r}: expected 'key: value' lines")
    return value


def _names(value: Any, where: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{where} is {value!r}: expected a list of names, such as [fo, lh]")
    return tuple(names)


def _known(names: Iterable[str] | None, valid: Iterable[str], where: str) -> None:
    for name in names or ():
        if name not in valid:
            raise UserError(f"{where}: there is no '{name}'; {nearest(name, valid)}")


def _among_seeds(named: Iterable[int] | None, seeds: tuple[int, ...], where: str) -> None:
    for seed in named or ():
        if seed not in seeds:
            raise UserError(f"{where}: there is no {seed}; the file's seeds are {', '.join(map(str, seeds))}")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where} is {value!r}: expected a word")
    return value


def _count(value: Any, where: str, least: int) -> int:
    if type(value) is not int or value < least:
        raise UserError(f"{where} is {value!r}: expected a whole number of at least {least}")
    return value
