"""One shard of an expert buffer: a safetensors file of whole episodes (format: docs/reference/formats/buffer.md)."""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kd_core.errors import UserError
from kd_onboard.fields import strict_json

# Axes of every tensor, in order; `axis_sizes` gives their lengths.
AXES: dict[str, tuple[str, ...]] = {
    "state": ("episodes", "steps+1", "state"),
    "obs": ("episodes", "steps+1", "agents", "obs"),
    "avail_actions": ("episodes", "steps+1", "agents", "actions"),
    "actions": ("episodes", "steps", "agents"),
    "behaviour_log_prob": ("episodes", "steps", "agents"),
    "teacher_logits": ("episodes", "steps", "agents", "actions"),
    "embedding": ("episodes", "steps", "agents", "hidden"),
    "reward": ("episodes", "steps", "rewards"),
    "terminated": ("episodes", "steps"),
    "truncated": ("episodes", "steps"),
    "length": ("episodes",),
}
KEYS = tuple(AXES)
_FLOAT_KEYS = ("state", "obs", "behaviour_log_prob", "teacher_logits", "embedding", "reward")
EMBEDDING_DTYPES = {"float16": torch.float16, "float32": torch.float32}
_DTYPES: dict[str, torch.dtype] = {
    **dict.fromkeys(_FLOAT_KEYS, torch.float32),
    "avail_actions": torch.uint8,
    "actions": torch.int64,
    "terminated": torch.uint8,
    "truncated": torch.uint8,
    "length": torch.int32,
}
# Names that safetensors uses in its header, and what they are in numpy.
_HEADER_TYPES: dict[torch.dtype, tuple[str, np.dtype[Any]]] = {
    torch.float16: ("F16", np.dtype("<f2")),
    torch.float32: ("F32", np.dtype("<f4")),
    torch.uint8: ("U8", np.dtype("u1")),
    torch.int32: ("I32", np.dtype("<i4")),
    torch.int64: ("I64", np.dtype("<i8")),
}
# Rounding of a log-softmax may leave a log-probability just above 0.
_LOG_PROB_SLACK = 1e-5


def file_name(index: int) -> str:
    """Return the file name of the shard with this 0-based index."""
    return f"shard-{index:05d}.safetensors"


def dtypes(facts: Mapping[str, Any]) -> dict[str, torch.dtype]:
    """Return the dtype of every tensor in a buffer with these facts."""
    return {**_DTYPES, "embedding": EMBEDDING_DTYPES[facts["embedding_dtype"]]}


def shapes(facts: Mapping[str, Any], episodes: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a shard with `episodes` episodes."""
    sizes = {
        "episodes": episodes,
        "steps": facts["episode_limit"],
        "steps+1": facts["episode_limit"] + 1,
        "agents": facts["n_agents"],
        "actions": facts["n_actions"],
        "obs": facts["obs_size"],
        "state": facts["state_size"],
        "hidden": facts["hidden_dim"],
        "rewards": facts["reward_size"],
    }
    return {key: tuple(sizes[axis] for axis in axes) for key, axes in AXES.items()}


class MappedShard:
    """A shard mapped into memory: its arrays are read-only views of the file, read as they are touched.

    Attributes:
        arrays: name -> read-only numpy array, shapes as in `AXES`.
        bytes: size of the file.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], episodes: int | None = None) -> None:
        """Map `path` and compare its header with the buffer's facts.

        Args:
            path: the shard.
            facts: the buffer's facts.
            episodes: how many episodes it must hold; None to take the file's word.

        Raises:
            UserError: the file is missing, cut off, or holds other tensors than the facts say.
        """
        try:
            with open(path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError as error:
            raise missing_shard(path) from error
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be mapped ({error}): it is empty or unreadable; export it again") from error
        self.bytes = len(self._map)
        header, data_start = _read_header(path, self._map)
        if episodes is None:
            episodes = next(iter(header["length"]["shape"]), 0) if "length" in header else 0
        types = dtypes(facts)
        self.arrays: dict[str, np.ndarray] = {}
        for key, shape in shapes(facts, episodes).items():
            name, dtype = _HEADER_TYPES[types[key]]
            entry = header.get(key)
            if entry is None:
                raise UserError(f"{path} lacks the tensor {key!r}: export the buffer again")
            if entry["dtype"] != name or tuple(entry["shape"]) != shape:
                raise UserError(
                    f"{path}: {key!r} is {entry['dtype']} {list(entry['shape'])}, but buffer.json says "
                    f"{name} {list(shape)}: export the buffer again"
                )
            begin, end = entry["data_offsets"]
            if end - begin != dtype.itemsize * math.prod(shape):
                raise _damaged(path, self.bytes)
            array = np.frombuffer(self._map, dtype, math.prod(shape), data_start + begin)
            self.arrays[key] = array.reshape(shape)


def _damaged(path: Path, size: int) -> UserError:
    return UserError(f"{path} is truncated or damaged ({size} bytes): copy it whole or export it again")


def _read_header(path: Path, data: mmap.mmap) -> tuple[dict[str, Any], int]:
    """Read the JSON header of a safetensors file and check that the file is as long as the header says.

    Returns:
        The header's entries, and the byte at which the tensors' data begins.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    damaged = _damaged(path, len(data))
    if len(data) < 8 or start > len(data):
        raise damaged
    try:
        header = strict_json(data[8:start])
    except (ValueError, RecursionError) as error:
        raise damaged from error
    if not isinstance(header, dict):
        raise damaged
    entries = {key: entry for key, entry in header.items() if key != "__metadata__"}
    if not entries or not all(map(_is_entry, entries.values())):
        raise damaged
    reached = 0
    for begin, end in sorted(entry["data_offsets"] for entry in entries.values()):
        # Neither a gap nor an overlap: every byte belongs to one tensor.
        if begin != reached or end < begin:
            raise damaged
        reached = end
    if start + reached != len(data):
        raise damaged
    return entries, start


def _is_entry(entry: Any) -> bool:
    """Tell whether this is how safetensors describes a tensor: type, shape, first and last byte."""
    if not isinstance(entry, dict) or type(entry.get("dtype")) is not str:
        return False
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        return False
    return all(type(number) is int and number >= 0 for number in (*shape, *offsets))


def missing_shard(path: Path) -> UserError:
    """Build the error for a shard that `buffer.json` names and the folder lacks."""
    return UserError(f"{path.name} is missing from {path.parent}: copy the buffer whole or export it again")


def totals(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Compute what `buffer.json` says of a shard's contents: episodes, steps, and the mean return over its episodes.

    The return of an episode is the undiscounted sum of its rewards, over the agents too where each has its own.
    """
    episodes = len(arrays["length"])
    return {
        "episodes": episodes,
        "steps": int(arrays["length"].sum()),
        "return_mean": float(arrays["reward"].sum(dtype=np.float64) / episodes),
    }


def first_fault(arrays: Mapping[str, np.ndarray], first_episode: int = 0) -> str | None:
    """Find the first thing wrong with the contents of a shard, in words; None if nothing is.

    Args:
        arrays: every key of `AXES`, of the shapes given there.
        first_episode: index of the shard's first episode in the buffer, for the message.
    """
    for key in _FLOAT_KEYS:
        bad = ~np.isfinite(arrays[key]).reshape(len(arrays[key]), -1).all(axis=1)
        if bad.any():
            return f"episode {first_episode + _first(bad)}: {key} holds a value that is not finite (NaN or infinity)"
    length, limit = arrays["length"], arrays["terminated"].shape[1]
    bad = (length < 1) | (length > limit)
    if bad.any():
        found = _first(bad)
        return f"episode {first_episode + found}: length {length[found]} is outside 1..{limit}"
    step = np.arange(limit)
    last = step == length[:, None] - 1
    valid = step < length[:, None]
    flags = arrays["terminated"].astype(np.int64) + arrays["truncated"]
    bad = (flags != last).any(axis=1)
    if bad.any():
        return (
            f"episode {first_episode + _first(bad)}: the end flags are inconsistent: exactly one of terminated and "
            "truncated must be 1 at the last step, and neither before or after it"
        )
    per_episode = {
        "reward is not 0 after the end": (arrays["reward"] != 0).any(axis=2) & ~valid,
        "behaviour_log_prob is above 0": (arrays["behaviour_log_prob"] > _LOG_PROB_SLACK).any(axis=2) & valid,
        "an action is outside the actions of the task": _outside(arrays).any(axis=2) & valid,
        "an action was not available when it was taken": _unavailable(arrays).any(axis=2) & valid,
    }
    for words, wrong in per_episode.items():
        if wrong.any():
            episode = _first(wrong.any(axis=1))
            return f"episode {first_episode + episode}, step {_first(wrong[episode])}: {words}"
    return None


def _outside(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Mark the steps at which an action is no index of an action, bool (episodes, steps, agents)."""
    return (arrays["actions"] < 0) | (arrays["actions"] >= arrays["avail_actions"].shape[-1])


def _unavailable(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Mark the steps at which an action was not available, bool (episodes, steps, agents)."""
    available = arrays["avail_actions"][:, :-1]
    chosen = np.clip(arrays["actions"], 0, available.shape[-1] - 1)[..., None]
    return np.take_along_axis(available, chosen, axis=-1)[..., 0] != 1


def _first(flags: np.ndarray) -> int:
    """Return the index of the first true element of a vector."""
    return int(np.argmax(flags))
