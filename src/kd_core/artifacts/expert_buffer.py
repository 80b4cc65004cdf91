"""Expert buffer: the teacher's episodes on disk, mapped into memory as read (docs/reference/formats/buffer.md)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kd_core import files
from kd_core.artifacts import shard
from kd_core.artifacts.buffer_facts import FACTS_FILE, read_facts
from kd_core.artifacts.buffer_writer import ExpertBufferWriter
from kd_core.errors import UserError

__all__ = ["ExpertBuffer", "ExpertBufferWriter", "check_buffer"]

# Maps are dropped, oldest first, beyond these, so that neither memory nor open files grow with the buffer.
_MAPPED_BYTES = 128 << 20
_MAPPED_SHARDS = 128


class ExpertBuffer:
    """A buffer opened for reading. Its size on disk does not matter for memory: shards are mapped as needed.

    Attributes:
        folder: where it is.
        facts: its `buffer.json`.
        episodes: how many there are to read.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], episodes: int) -> None:
        """Use `open`, and `first` of what that gives."""
        self.folder = folder
        self.facts = facts
        self.episodes = episodes
        self._starts = np.cumsum([0, *(entry["episodes"] for entry in facts["shards"])])
        self._maps: OrderedDict[int, shard.MappedShard] = OrderedDict()

    @classmethod
    def open(cls, folder: Path | str, *, check: bool = False) -> ExpertBuffer:
        """Open a buffer and check its facts and the length and header of every shard.

        Args:
            folder: the buffer's folder.
            check: also verify every shard's sha256 and contents, which reads the whole buffer once.

        Raises:
            UserError: the first fault, in one line.
        """
        folder = Path(folder).expanduser()
        facts = read_facts(folder)
        buffer = cls(folder, facts, facts["episodes"])
        for index, entry in enumerate(buffer.facts["shards"]):
            buffer._check_size(index, entry)
            buffer._shard(index)
        if check and (fault := check_buffer(folder)):
            raise UserError(f"the expert buffer in {folder} is faulty: {fault}")
        return buffer

    def first(self, episodes: int) -> ExpertBuffer:
        """Return the buffer without what comes after so many episodes; as it is, if it has fewer."""
        return ExpertBuffer(self.folder, self.facts, min(episodes, self.episodes))

    @cached_property
    def steps(self) -> int:
        """Number of environment steps, all episodes together."""
        whole = self.episodes == self.facts["episodes"]
        return self.facts["steps"] if whole else int(self.lengths.sum())

    @cached_property
    def lengths(self) -> torch.Tensor:
        """Length of every episode in steps, int32 (episodes,)."""
        return self.gather(range(self.episodes), ("length",))["length"]

    def shards(self, keys: Sequence[str] = shard.KEYS) -> Iterator[dict[str, torch.Tensor]]:
        """Go through the buffer shard by shard, in order.

        Args:
            keys: the tensors wanted.

        Yields:
            Copies of the shard's tensors, shapes as in `shard.AXES`.
        """
        for index in range(int(np.searchsorted(self._starts, self.episodes))):
            arrays, left = self._shard(index).arrays, self.episodes - int(self._starts[index])
            yield {key: torch.from_numpy(arrays[key][:left].copy()) for key in keys}

    def gather(
        self, episode_indices: Sequence[int] | np.ndarray | torch.Tensor, keys: Sequence[str] = shard.KEYS
    ) -> dict[str, torch.Tensor]:
        """Copy chosen episodes, from whichever shards they are in.

        Args:
            episode_indices: 0-based indices, in any order; repetitions are allowed.
            keys: the tensors wanted.

        Returns:
            name -> tensor with `len(episode_indices)` episodes on its first axis, in the order asked for.
        """
        wanted = np.asarray(episode_indices, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.episodes):
            raise IndexError(f"episode indices must lie in 0..{self.episodes - 1}")
        owners = np.searchsorted(self._starts, wanted, side="right") - 1
        types = shard.dtypes(self.facts)
        sizes = shard.shapes(self.facts, len(wanted))
        result = {key: torch.empty(sizes[key], dtype=types[key]) for key in keys}
        outputs = {key: tensor.numpy() for key, tensor in result.items()}
        for owner in np.unique(owners):
            places = np.flatnonzero(owners == owner)
            rows = wanted[places] - self._starts[owner]
            arrays = self._shard(int(owner)).arrays
            for key, output in outputs.items():
                output[places] = arrays[key][rows]
        return result

    def _shard(self, index: int) -> shard.MappedShard:
        """Return the shard, mapped now if it is not mapped already."""
        mapped = self._maps.pop(index, None)
        if mapped is None:
            entry = self.facts["shards"][index]
            mapped = shard.MappedShard(self.folder / entry["file"], self.facts, entry["episodes"])
        self._maps[index] = mapped
        held = sum(other.bytes for other in self._maps.values())
        while len(self._maps) > 1 and (held > _MAPPED_BYTES or len(self._maps) > _MAPPED_SHARDS):
            held -= self._maps.popitem(last=False)[1].bytes
        return mapped

    def _check_size(self, index: int, entry: Mapping[str, Any]) -> None:
        """Refuse a shard that is missing, misnamed or of another length than `buffer.json` says."""
        path = self.folder / entry["file"]
        if entry["file"] != shard.file_name(index):
            raise UserError(f"{self.folder / FACTS_FILE} was altered: shard {index} is called {entry['file']!r}")
        if not path.is_file():
            raise shard.missing_shard(path)
        if path.stat().st_size != entry["bytes"]:
            raise UserError(
                f"{path} is truncated or altered: {path.stat().st_size} bytes, expected {entry['bytes']}; "
                "copy the buffer whole or export it again"
            )


def check_buffer(folder: Path | str) -> str | None:
    """Verify a whole buffer: facts, files, sha256 of every shard, and the meaning of what is in them.

    Returns:
        The first fault in one line, or None if there is none.
    """
    folder = Path(folder).expanduser()
    try:
        buffer = ExpertBuffer.open(folder)
        for index, entry in enumerate(buffer.facts["shards"]):
            if files.file_sha256(folder / entry["file"]) != entry["sha256"]:
                return f"{entry['file']} was altered after it was written: its sha256 is not the one in {FACTS_FILE}"
            arrays = buffer._shard(index).arrays
            if fault := shard.first_fault(arrays, int(buffer._starts[index])):
                return f"{entry['file']}, {fault}"
            for key, value in shard.totals(arrays).items():
                if value != entry[key]:
                    return f"{entry['file']} has {key} {value}, but {FACTS_FILE} says {entry[key]}"
    except UserError as error:
        return str(error)
    listed = {entry["file"] for entry in buffer.facts["shards"]}
    # The next shard may be there already: its writer ended before naming it, and resume=True adopts it.
    strangers = {path.name for path in folder.glob("shard-*")} - listed - {shard.file_name(len(listed))}
    if strangers:
        return f"{min(strangers)} is not listed in {FACTS_FILE}: it belongs to another buffer"
    return None
