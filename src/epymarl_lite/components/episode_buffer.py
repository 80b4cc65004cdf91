"""Storage of whole episodes: a batch of them and a ring buffer of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TypeAlias, overload

import numpy as np
import torch as th

from epymarl_lite.components.transforms import Transform

Spec: TypeAlias = dict  # vshape (int or tuple), and optionally group, dtype, episode_const
Scheme: TypeAlias = dict[str, Spec]
Groups: TypeAlias = dict[str, int]
Preprocess: TypeAlias = dict[str, tuple[str, list[Transform]]]
Index: TypeAlias = int | slice | list | np.ndarray | th.Tensor
Values: TypeAlias = th.Tensor | np.ndarray | list | tuple


def _value_shape(spec: Spec, groups: Groups) -> tuple[int, ...]:
    """Return the shape of one entry of a key, with the group's size in front where the key belongs to a group."""
    vshape = (spec["vshape"],) if isinstance(spec["vshape"], int) else tuple(spec["vshape"])
    group = spec.get("group")
    if group is None:
        return vshape
    if group not in groups:
        raise ValueError(f"scheme names the group {group!r}, but groups has only {sorted(groups)}")
    return (groups[group], *vshape)


def _full_scheme(scheme: Scheme, preprocess: Preprocess) -> Scheme:
    """Copy a scheme and add to it the derived keys and `filled`."""
    if "filled" in scheme:
        raise ValueError('"filled" is reserved for the mask of valid steps: rename this key of the scheme')
    full = {key: dict(spec) for key, spec in scheme.items()}
    for key, (new_key, transforms) in preprocess.items():
        spec = full[key]
        vshape, dtype = spec["vshape"], spec["dtype"]
        for transform in transforms:
            vshape, dtype = transform.infer_output_info(vshape, dtype)
        kept = {name: spec[name] for name in ("group", "episode_const") if name in spec}
        full[new_key] = {"vshape": vshape, "dtype": dtype, **kept}
    full["filled"] = {"vshape": (1,), "dtype": th.long}
    return full


def _keep_dim(index: Index) -> Index:
    """Convert an int to a slice of length one, so that indexing never drops a dimension."""
    if isinstance(index, int | np.integer):
        return slice(index, index + 1 or None)
    return index


def _zeros(shape: tuple[int, ...], dtype: th.dtype) -> th.Tensor:
    """Allocate zeros through numpy, which leaves the memory of steps that are never played untouched."""
    return th.from_numpy(np.zeros(shape, th.empty(0, dtype=dtype).numpy().dtype))


def _count(index: Index, size: int) -> int:
    """Count the entries that `index` picks from a dimension of length `size`."""
    if isinstance(index, slice):
        return len(range(*index.indices(size)))
    picked = th.as_tensor(index)
    return int(picked.sum()) if picked.dtype == th.bool else picked.numel()


class EpisodeBatch:
    """Several episodes, one zero-initialised tensor per key of a scheme.

    Keys of single steps are `(batch, time, [group,] *vshape)`; keys marked `episode_const` are `(batch, [group,]
    *vshape)`. `filled` `(batch, time, 1)` is 1 where a step was written.

    Attributes:
        data: `transition_data` and `episode_data`, the two dicts of tensors.
    """

    def __init__(
        self,
        scheme: Scheme,
        groups: Groups,
        batch_size: int,
        max_seq_length: int,
        data: SimpleNamespace | None = None,
        preprocess: Preprocess | None = None,
        device: str | th.device = "cpu",
    ) -> None:
        """Allocate a batch, or with `data` wrap tensors that already follow the (complete) scheme."""
        self.groups = groups
        self.batch_size = batch_size
        self.max_seq_length = max_seq_length
        self.preprocess = preprocess or {}
        self.device = device
        if data is None:
            self.scheme = _full_scheme(scheme, self.preprocess)
            self.data = self._allocate()
        else:
            self.scheme = dict(scheme)
            self.data = data

    def _allocate(self) -> SimpleNamespace:
        data = SimpleNamespace(transition_data={}, episode_data={})
        for key, spec in self.scheme.items():
            const = spec.get("episode_const", False)
            lead = (self.batch_size,) if const else (self.batch_size, self.max_seq_length)
            store = data.episode_data if const else data.transition_data
            shape = (*lead, *_value_shape(spec, self.groups))
            store[key] = _zeros(shape, spec.get("dtype", th.float32)).to(self.device)
        return data

    def update(
        self,
        data: Mapping[str, Values],
        bs: Index = slice(None),
        ts: int | slice = slice(None),
        mark_filled: bool = True,
    ) -> None:
        """Write values at episodes `bs` and times `ts`, and refresh the keys derived from them.

        A value's shape must equal the target's up to dimensions of size one. Where step keys are written, `filled` is
        set to 1 unless `mark_filled` is False.

        Raises:
            KeyError: a key that the batch does not have.
            ValueError: a value of another shape.
        """
        episodes, times = _keep_dim(bs), _keep_dim(ts)
        where: tuple[Index, ...]
        for key, value in data.items():
            if key in self.data.transition_data:
                store, where = self.data.transition_data, (episodes, times)
                if mark_filled:
                    store["filled"][where] = 1
                    mark_filled = False
            elif key in self.data.episode_data:
                store, where = self.data.episode_data, (episodes,)
            else:
                raise KeyError(f"{key!r} is not a key of this batch, which has {sorted(self.scheme)}")
            self._write(store, key, where, value)
            if key in self.preprocess:
                new_key, transforms = self.preprocess[key]
                derived = store[key][where]
                for transform in transforms:
                    derived = transform.transform(derived)
                store[new_key][where] = derived

    def _write(self, store: dict[str, th.Tensor], key: str, where: tuple[Index, ...], value: Values) -> None:
        target = store[key]
        if isinstance(value, list | tuple):
            value = np.asarray(value)  # much faster than torch on a list of arrays
        new = th.as_tensor(value, dtype=target.dtype, device=target.device)
        shape = target[where].shape
        if new.shape != shape:
            if [n for n in new.shape if n != 1] != [n for n in shape if n != 1]:
                raise ValueError(f"{key!r} has shape {tuple(new.shape)}, but {tuple(shape)} is to be written")
            new = new.reshape(shape)
        target[where] = new

    @overload
    def __getitem__(self, item: str) -> th.Tensor: ...
    @overload
    def __getitem__(self, item: tuple | Index) -> EpisodeBatch: ...
    def __getitem__(self, item: str | tuple | Index) -> th.Tensor | EpisodeBatch:
        """Return a key's tensor, or a batch of some keys (tuple of names), episodes, or episodes and times.

        Ints keep their dimension. Slices give views; lists, arrays and tensors of episode indices give copies.

        Raises:
            KeyError, ValueError: a key that the batch does not have.
            IndexError: times that are neither an int nor a slice.
        """
        if isinstance(item, str):
            if item in self.data.transition_data:
                return self.data.transition_data[item]
            if item in self.data.episode_data:
                return self.data.episode_data[item]
            raise ValueError(f"{item!r} is not a key of this batch, which has {sorted(self.scheme)}")
        if isinstance(item, tuple) and item and all(isinstance(name, str) for name in item):
            return self._select_keys(item)
        bs, ts = item if isinstance(item, tuple) else (item, slice(None))
        bs, ts = _keep_dim(bs), _keep_dim(ts)
        if not isinstance(ts, slice):
            raise IndexError("times must be an int or a slice")
        picked = SimpleNamespace(
            transition_data={key: value[bs, ts] for key, value in self.data.transition_data.items()},
            episode_data={key: value[bs] for key, value in self.data.episode_data.items()},
        )
        size, length = _count(bs, self.batch_size), _count(ts, self.max_seq_length)
        return EpisodeBatch(self.scheme, self.groups, size, length, data=picked, device=self.device)

    def _select_keys(self, names: tuple[str, ...]) -> EpisodeBatch:
        for name in names:
            if name not in self.scheme:
                raise KeyError(f"{name!r} is not a key of this batch, which has {sorted(self.scheme)}")
        data = SimpleNamespace(
            transition_data={k: v for k, v in self.data.transition_data.items() if k in names},
            episode_data={k: v for k, v in self.data.episode_data.items() if k in names},
        )
        scheme = {name: self.scheme[name] for name in names}
        used = {spec["group"] for spec in scheme.values() if "group" in spec}
        groups = {name: size for name, size in self.groups.items() if name in used}
        return EpisodeBatch(scheme, groups, self.batch_size, self.max_seq_length, data=data, device=self.device)

    def to(self, device: str | th.device) -> None:
        """Move every tensor to `device`, in place."""
        for store in (self.data.transition_data, self.data.episode_data):
            for key, value in store.items():
                store[key] = value.to(device)
        self.device = device

    def max_t_filled(self) -> th.Tensor:
        """Return the length of the longest episode in steps: int64 `(1,)`, usable as the end of a slice."""
        return self.data.transition_data["filled"].sum(dim=1).amax(dim=0)

    def __repr__(self) -> str:
        """Show the sizes and the keys."""
        return (
            f"{type(self).__name__}(batch_size={self.batch_size}, max_seq_length={self.max_seq_length}, "
            f"keys={sorted(self.scheme)}, groups={sorted(self.groups)})"
        )


class ReplayBuffer(EpisodeBatch):
    """A ring of the latest `buffer_size` episodes."""

    def __init__(
        self,
        scheme: Scheme,
        groups: Groups,
        buffer_size: int,
        max_seq_length: int,
        preprocess: Preprocess | None = None,
        device: str | th.device = "cpu",
    ) -> None:
        """Allocate the whole ring at once."""
        super().__init__(scheme, groups, buffer_size, max_seq_length, preprocess=preprocess, device=device)
        self.buffer_size = buffer_size
        self.buffer_index = 0
        self.episodes_in_buffer = 0

    def insert_episode_batch(self, ep_batch: EpisodeBatch) -> None:
        """Append the batch's episodes, overwriting the oldest ones once the ring is full."""
        start = 0
        while start < ep_batch.batch_size:
            stop = min(ep_batch.batch_size, start + self.buffer_size - self.buffer_index)
            part = ep_batch[start:stop]
            end = self.buffer_index + part.batch_size
            where = slice(self.buffer_index, end)
            # Only the steps of the new episodes are copied; old steps beyond them are set to zero.
            until, before = int(part.max_t_filled()), int(self[where].max_t_filled())
            for values in self.data.transition_data.values():
                values[where, until:before] = 0
            steps = {key: values[:, :until] for key, values in part.data.transition_data.items()}
            self.update(steps, where, slice(0, until), mark_filled=False)
            self.update(part.data.episode_data, where)
            self.episodes_in_buffer = max(self.episodes_in_buffer, end)
            self.buffer_index = end % self.buffer_size
            start = stop

    def can_sample(self, batch_size: int) -> bool:
        """Tell whether at least `batch_size` episodes are stored."""
        return self.episodes_in_buffer >= batch_size

    def sample(self, batch_size: int) -> EpisodeBatch:
        """Draw distinct episodes uniformly.

        If exactly that many are stored, return all of them in ring order, as views.

        Raises:
            ValueError: fewer episodes are stored.
        """
        if not self.can_sample(batch_size):
            raise ValueError(f"cannot sample {batch_size} episodes: only {self.episodes_in_buffer} are stored")
        if self.episodes_in_buffer == batch_size:
            return self[:batch_size]
        return self[np.random.choice(self.episodes_in_buffer, batch_size, replace=False)]
