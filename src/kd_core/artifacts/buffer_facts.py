"""The facts of an expert buffer: `buffer.json`, its keys and their rules (docs/reference/formats/buffer.md)."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kd_core import files
from kd_core.artifacts import shard
from kd_core.errors import UserError

FORMAT = "kd-marl/expert-buffer"
VERSION = 1
FACTS_FILE = "buffer.json"
SIZES = ("n_agents", "n_actions", "obs_size", "state_size", "episode_limit", "hidden_dim", "reward_size")
# What a writer is given; the totals and the list of shards are its own.
REQUIRED_FACTS = (
    *("task", "env_args", "common_reward", "reward_scalarisation"),
    *(*SIZES, "embedding_dtype", "teacher", "seed", "host", "command"),
)
# Of a teacher that learnt action values: its policy's temperature, and the share of entropy that it was fitted to.
_OF_VALUES = ("teacher_temperature", "teacher_entropy")
_TOTALS = ("episodes", "steps", "return_mean", "shards")
# No size comes near it, and below it no shape overflows.
_LARGEST = 2**31


def _text(value: Any) -> bool:
    return type(value) is str


def _size(value: Any) -> bool:
    return type(value) is int and 1 <= value < _LARGEST


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _teacher(value: Any) -> bool:
    """Accept a path, and the sha256 of its files by name, the actor's among them."""
    if not isinstance(value, dict) or not _text(value.get("path")) or not isinstance(value.get("sha256"), dict):
        return False
    return _text(value["sha256"].get("agent.th")) and all(_text(digest) for digest in value["sha256"].values())


# Whether a value is one that its key may have.
_VALID: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("task", "host", "command"), _text),
    **dict.fromkeys(SIZES, _size),
    "embedding_dtype": lambda value: _text(value) and value in shard.EMBEDDING_DTYPES,
    "teacher": _teacher,
    "seed": lambda value: type(value) is int,
    "episodes": _count,
    "steps": _count,
    "return_mean": lambda value: value is None or _number(value),
    "shards": lambda value: isinstance(value, list),
    "env_args": lambda value: isinstance(value, dict),
    "common_reward": lambda value: type(value) is bool,
    "reward_scalarisation": _text,
    **dict.fromkeys(_OF_VALUES, lambda value: value is None or (_number(value) and value > 0)),
}
_VALID_IN_SHARD: dict[str, Callable[[Any], bool]] = {
    "file": _text,
    "episodes": _size,
    "steps": _size,
    "return_mean": _number,
    "sha256": _text,
    "bytes": _count,
}


def read_facts(folder: Path | str) -> dict[str, Any]:
    """Read and check `buffer.json` without touching the shards.

    Raises:
        UserError: it is missing, damaged, of another format or version, lacks a key, or contradicts itself.
    """
    path = Path(folder) / FACTS_FILE
    if not path.is_file():
        raise UserError(f"no expert buffer at {folder}: it has no {FACTS_FILE}; export one with --config=kd_export")
    facts = files.read_json(path)
    if facts.get("format") != FORMAT:
        raise UserError(f"{path} is no expert buffer: its format is {facts.get('format')!r}, expected {FORMAT!r}")
    if facts.get("version") != VERSION:
        raise UserError(
            f"{path} has version {facts.get('version')!r}, this kd-marl reads version {VERSION}: "
            "export the buffer again or use the kd-marl that wrote it"
        )
    missing = [key for key in (*REQUIRED_FACTS, *_TOTALS) if key not in facts]
    if missing:
        raise UserError(f"{path} is damaged: it lacks {', '.join(missing)}")
    if wrong := [key for key, valid in _VALID.items() if not valid(facts.get(key))]:
        raise UserError(f"{path} is damaged: {wrong[0]} has no valid value")
    shards = facts["shards"]
    for entry in shards:
        if not isinstance(entry, dict) or not entry.keys() >= _VALID_IN_SHARD.keys():
            raise UserError(f"{path} is damaged: a shard's entry needs {', '.join(_VALID_IN_SHARD)}")
        if wrong := [key for key, valid in _VALID_IN_SHARD.items() if not valid(entry[key])]:
            raise UserError(f"{path} is damaged: {wrong[0]} of a shard has no valid value")
    for key in ("episodes", "steps"):
        total = sum(entry[key] for entry in shards)
        if facts[key] != total:
            raise UserError(f"{path} was altered: it says {facts[key]} {key}, its shards add up to {total}")
    return facts
