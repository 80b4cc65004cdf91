"""The facts of an expert buffer: `buffer.json`, its keys, and what must be true of them (docs/formats.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kd_marl.artifacts import atomic, shard
from kd_marl.errors import UserError

FORMAT = "kd-marl/expert-buffer"
VERSION = 1
FACTS_FILE = "buffer.json"
SIZES = ("n_agents", "n_actions", "obs_size", "state_size", "episode_limit", "hidden_dim", "reward_size")
# What a writer is given; the totals and the list of shards are its own.
REQUIRED_FACTS = ("task", *SIZES, "embedding_dtype", "teacher", "seed", "host", "command")
_TOTALS = ("episodes", "steps", "return_mean", "shards")
_SHARD_KEYS = ("file", "episodes", "steps", "return_mean", "sha256", "bytes")


def read_facts(folder: Path | str) -> dict[str, Any]:
    """Reads and checks `buffer.json` without touching the shards.

    Raises:
        UserError: it is missing, damaged, of another format or version, lacks a key, or contradicts itself.
    """
    path = Path(folder) / FACTS_FILE
    if not path.is_file():
        raise UserError(f"no expert buffer at {folder}: it has no {FACTS_FILE}; export one with --config=kd_export")
    facts = atomic.read_json(path)
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
    wrong = [key for key in SIZES if not isinstance(facts[key], int) or facts[key] < 1]
    if wrong or facts["embedding_dtype"] not in shard.EMBEDDING_DTYPES:
        raise UserError(f"{path} is damaged: {wrong[0] if wrong else 'embedding_dtype'} has no valid value")
    shards = facts["shards"]
    listed = isinstance(shards, list) and all(isinstance(entry, dict) for entry in shards)
    if not listed or not all(entry.keys() >= set(_SHARD_KEYS) for entry in shards):
        raise UserError(f"{path} is damaged: a shard's entry needs {', '.join(_SHARD_KEYS)}")
    for key in ("episodes", "steps"):
        total = sum(entry[key] for entry in shards)
        if facts[key] != total:
            raise UserError(f"{path} was altered: it says {facts[key]} {key}, its shards add up to {total}")
    return facts
