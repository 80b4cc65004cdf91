"""Arrays that two processes share, so that data of every step need no pipe."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle

import numpy as np

_CACHE_LINE = 64  # bytes: no two arrays share one

Layout = Sequence[tuple[tuple[int, ...], str]]


class SharedArrays:
    """Arrays in memory without a name, which is freed with the last process that maps it, even if killed.

    Attributes:
        layout: shape and dtype (as text) of each array.
        arrays: the arrays, zeros at first.
    """

    def __init__(self, layout: Layout, descriptor: int) -> None:
        """Map the memory behind an open file, which :meth:`send` or the caller closes."""
        self.layout = layout
        self._descriptor = descriptor
        places, end = [], 0
        for shape, dtype in layout:
            places.append(end)
            end += -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // _CACHE_LINE) * _CACHE_LINE
        os.ftruncate(descriptor, end)
        memory = mmap.mmap(descriptor, end)
        self.arrays: list[np.ndarray] = [
            np.ndarray(shape, dtype, memory, place) for (shape, dtype), place in zip(layout, places, strict=True)
        ]

    @classmethod
    def new(cls, layout: Layout) -> SharedArrays:
        """Allocate arrays in new memory, which can be sent once."""
        return cls(layout, _anonymous_file())

    def send(self, connection: Connection) -> None:
        """Send the memory to the parent process at the other end, which calls :meth:`receive`."""
        send_handle(connection, self._descriptor, os.getppid())
        os.close(self._descriptor)

    @classmethod
    def receive(cls, connection: Connection, layout: Layout) -> SharedArrays:
        """Map the arrays that the other end sends.

        Raises:
            EOFError: the other end closed before.
        """
        descriptor = recv_handle(connection)
        try:
            return cls(layout, descriptor)
        finally:
            os.close(descriptor)

    def write(self, *values: np.ndarray) -> None:
        """Copy values into the beginning of the arrays, in their order."""
        for array, value in zip(self.arrays, values, strict=False):
            array[tuple(map(slice, value.shape))] = value


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("arrays")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
