"""Writing an expert buffer: whole episodes, shard by shard, so that a kill at any moment loses no finished shard."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from kd_core import files
from kd_core.artifacts import shard
from kd_core.artifacts.buffer_facts import FACTS_FILE, FORMAT, REQUIRED_FACTS, SIZES, VERSION, read_facts
from kd_core.errors import UserError

# Facts in which episodes must agree to stand in one buffer. Seed, host and command may differ when it is continued.
_IDENTITY = ("task", *SIZES, "embedding_dtype", "env_args", "common_reward", "reward_scalarisation")

_log = logging.getLogger(__name__)


class ExpertBufferWriter:
    """Appends whole episodes to a buffer; finished shards are never touched again.

    A shard is renamed into place before `buffer.json` names it. If the process dies in between, the next writer
    adopts that shard, so nothing finished is lost or written twice. One process at a time may write to a folder.
    """

    def __init__(
        self, folder: Path | str, facts: Mapping[str, Any], *, resume: bool = False, shard_episodes: int = 64
    ) -> None:
        """Create the buffer, or open it to append.

        Args:
            folder: destination, created if missing.
            facts: the keys of `REQUIRED_FACTS` (`reward_size` defaults to 1, `embedding_dtype` to float16); others are
                kept as they are.
            resume: continue the buffer that is already there, if any.
            shard_episodes: episodes per shard; they are held in memory until the shard is full.

        Raises:
            UserError: a buffer is there and `resume` is false, it holds other data, or another process writes to it.
        """
        assert shard_episodes >= 1, f"shard_episodes must be at least 1, not {shard_episodes}"
        facts = {"format": FORMAT, "version": VERSION, "reward_size": 1, "embedding_dtype": "float16", **facts}
        missing = [key for key in REQUIRED_FACTS if key not in facts]
        assert not missing, f"buffer facts lack {', '.join(missing)}"
        self.facts: dict[str, Any]
        self.folder = Path(folder)
        self._shard_episodes = shard_episodes
        self._pending: list[dict[str, torch.Tensor]] = []
        self._pending_episodes = 0
        self._lock: int | None = _lock_folder(self.folder)
        try:
            if (self.folder / FACTS_FILE).exists():
                self._continue(facts, resume)
            else:
                self._begin(facts)
        except BaseException:
            self._release()
            raise

    @property
    def episodes(self) -> int:
        """Episodes appended so far: those on disk and those waiting for their shard to fill."""
        return self.stored_episodes + self._pending_episodes

    @property
    def stored_episodes(self) -> int:
        """Episodes that are safe on disk."""
        return self.facts["episodes"]

    def state(self, facts: Mapping[str, Any]) -> None:
        """Add facts that became known after the buffer was opened, before its first episode."""
        assert not self.episodes, "episodes were stored without these facts"
        self.facts = {**self.facts, **facts}
        files.write_json(self.folder / FACTS_FILE, self.facts)

    def append(self, episodes: Mapping[str, torch.Tensor]) -> None:
        """Add whole episodes; every shard that fills up is written at once.

        Args:
            episodes: every key of `shard.AXES`, with any number of episodes on the first axis, on any device.

        Raises:
            ValueError: keys or shapes differ from the facts, or the contents would not pass `check_buffer`.
            UserError: the disk is full; shards finished before stay valid.
        """
        if set(episodes) != set(shard.KEYS):
            raise ValueError(f"an episode needs the tensors {', '.join(shard.KEYS)}; got {', '.join(sorted(episodes))}")
        count = len(episodes["length"])
        types = shard.dtypes(self.facts)
        for key, shape in shard.shapes(self.facts, count).items():
            if tuple(episodes[key].shape) != shape:
                raise ValueError(f"{key} has shape {tuple(episodes[key].shape)}, the buffer's facts say {shape}")
        # Copied: the caller's batch is often a buffer that the next episodes overwrite.
        block = {key: episodes[key].detach().to("cpu", types[key], copy=True) for key in shard.KEYS}
        fault = shard.first_fault({key: value.numpy() for key, value in block.items()}, self.episodes)
        if fault is not None:
            raise ValueError(f"refusing to store a faulty episode: {fault}")
        self._pending.append(block)
        self._pending_episodes += count
        while self._pending_episodes >= self._shard_episodes:
            self._write_shard(self._shard_episodes)

    def close(self) -> None:
        """Write the last, partial shard and let other writers in."""
        try:
            if self._pending_episodes:
                self._write_shard(self._pending_episodes)
        finally:
            self._release()

    def __enter__(self) -> ExpertBufferWriter:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the buffer; after an error only the finished shards stay."""
        if error is None:
            self.close()
        else:
            self._release()

    def _begin(self, facts: dict[str, Any]) -> None:
        """Start an empty buffer."""
        strangers = sorted(path.name for path in self.folder.glob("shard-*.safetensors"))
        if strangers:
            raise UserError(f"{self.folder} holds {strangers[0]} but no {FACTS_FILE}: give an empty or new folder")
        files.remove_leftovers(self.folder)
        self.facts = {**facts, "episodes": 0, "steps": 0, "return_mean": None, "shards": []}
        files.write_json(self.folder / FACTS_FILE, self.facts)

    def _continue(self, facts: Mapping[str, Any], resume: bool) -> None:
        """Open the buffer that is there."""
        self.facts = read_facts(self.folder)
        if not resume:
            raise UserError(
                f"{self.folder} already holds {self.facts['episodes']} episodes: "
                "continue it with resume=True or give another folder"
            )
        for key in _IDENTITY:
            if self.facts[key] != facts[key]:
                raise UserError(
                    f"cannot continue {self.folder}: its {key} is {self.facts[key]}, this run's is {facts[key]}; "
                    "give another folder"
                )
        if self.facts["teacher"]["sha256"] != facts["teacher"]["sha256"]:
            raise UserError(f"cannot continue {self.folder}: another teacher wrote it; give another folder")
        files.remove_leftovers(self.folder)
        orphan = self.folder / shard.file_name(len(self.facts["shards"]))
        if orphan.exists():
            self._adopt(orphan)

    def _adopt(self, orphan: Path) -> None:
        """Take in the shard that a writer finished just before it died."""
        arrays = shard.MappedShard(orphan, self.facts).arrays
        fault = shard.first_fault(arrays, self.stored_episodes)
        if fault is not None:
            raise UserError(f"{orphan} is not listed in {FACTS_FILE} and cannot be adopted ({fault}): delete it")
        self._register(orphan, arrays, files.file_sha256(orphan))
        _log.info("Adopted %s, finished just before the last writer ended.", orphan.name)

    def _write_shard(self, count: int) -> None:
        """Write the first `count` pending episodes as one shard."""
        block = {key: torch.cat([part[key] for part in self._pending]) for key in shard.KEYS}
        first = {key: value[:count].contiguous() for key, value in block.items()}
        path = self.folder / shard.file_name(len(self.facts["shards"]))
        digest = files.save_safetensors(path, first)
        rest = {key: value[count:] for key, value in block.items()}
        self._pending_episodes -= count
        self._pending = [rest] if self._pending_episodes else []
        self._register(path, {key: value.numpy() for key, value in first.items()}, digest)

    def _register(self, path: Path, arrays: Mapping[str, np.ndarray], digest: str) -> None:
        """Name a finished shard in `buffer.json`."""
        entry = {"file": path.name, **shard.totals(arrays), "sha256": digest, "bytes": path.stat().st_size}
        shards = [*self.facts["shards"], entry]
        total = sum(item["episodes"] for item in shards)
        self.facts = {
            **self.facts,
            "episodes": total,
            "steps": sum(item["steps"] for item in shards),
            "return_mean": sum(item["return_mean"] * item["episodes"] for item in shards) / total,
            "shards": shards,
        }
        files.write_json(self.folder / FACTS_FILE, self.facts)

    def _release(self) -> None:
        """Let another process write to the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def wait_for_turn(folder: Path) -> int:
    """Take the folder's writer lock as soon as no other process has it.

    Args:
        folder: of the buffer, created if missing.

    Returns:
        The locked file: this process may open the folder's writer as long as nothing closes it.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        return _lock_folder(folder)
    except _TakenError:
        _log.info("Another process is writing to the expert buffer in %s: waiting for it to end", folder)
    return _lock_folder(folder, wait=True)


class _TakenError(UserError):
    """Another process holds the lock: it lives, since the system frees the lock of a process that has ended."""


def _lock_folder(folder: Path, wait: bool = False) -> int:
    """Take the folder's writer lock, which the system frees when the process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"cannot write the expert buffer to {folder}: {error.strerror or error}") from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise _TakenError(f"another process is writing to the expert buffer in {folder}: wait for it to end") from error
    return descriptor
