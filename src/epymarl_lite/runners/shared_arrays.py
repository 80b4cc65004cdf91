"""Arrays that two processes see at once, so that what changes at every step is not sent through a pipe."""

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
    """Arrays in memory without a name: it is gone with the last process that maps it, however those end.

    Attributes:
        layout: of each array its shape, and its dtype as text.
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
        self.arrays = [
            np.ndarray(shape, dtype, memory, place) for (shape, dtype), place in zip(layout, places, strict=True)
        ]

    @classmethod
    def new(cls, layout: Layout) -> SharedArrays:
        """Arrays in memory of their own, to be sent once."""
        return cls(layout, _anonymous_file())

    def send(self, connection: Connection) -> None:
        """Let the parent process, at the other end of the connection, :meth:`receive` the memory."""
        send_handle(connection, self._descriptor, os.getppid())
        os.close(self._descriptor)

    @classmethod
    def receive(cls, connection: Connection, layout: Layout) -> SharedArrays:
        """The arrays that the other end sends.

        Raises:
            EOFError: it ended first.
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
