"""Transforms that an episode batch applies to a key whenever that key is written."""

from __future__ import annotations

from typing import Protocol

import torch as th


class Transform(Protocol):
    """Turns the tensor stored under one key into the tensor stored under a derived key."""

    def transform(self, tensor: th.Tensor) -> th.Tensor:
        """Derive the new tensor; leading dimensions stay as they are."""
        ...

    def infer_output_info(self, vshape_in: tuple[int, ...], dtype_in: th.dtype) -> tuple[tuple[int, ...], th.dtype]:
        """Return the value shape and dtype of `transform`'s result for an input of this shape and dtype."""
        ...


class OneHot:
    """One-hot encoding of an index tensor `(..., 1)` as float32 `(..., out_dim)`."""

    def __init__(self, out_dim: int) -> None:
        """Set the number of categories."""
        self.out_dim = out_dim

    def transform(self, tensor: th.Tensor) -> th.Tensor:
        """Encode indices `(..., 1)` in `0..out_dim-1` as `(..., out_dim)`."""
        encoded = th.zeros(*tensor.shape[:-1], self.out_dim, device=tensor.device)
        return encoded.scatter_(-1, tensor.long(), 1.0)

    def infer_output_info(self, vshape_in: tuple[int, ...], dtype_in: th.dtype) -> tuple[tuple[int, ...], th.dtype]:
        """Return `((out_dim,), float32)`; the input must be a single index.

        Raises:
            ValueError: the input has another value shape than `(1,)`.
        """
        if tuple(vshape_in) != (1,):
            raise ValueError(f"OneHot encodes one index per entry: expected value shape (1,), got {tuple(vshape_in)}")
        return (self.out_dim,), th.float32
