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


class SharedArrays:
    """Arrays in memory without a name: it is gone with the last process that maps it, however those end.

    One process makes them with :meth:`send`, the one at the other end of the connection with :meth:`receive`.

    Attributes:
        arrays: the arrays, zeros at first.
    """

    def __init__(self, layout: Sequence[tuple[tuple[int, ...], str]], descriptor: int) -> None:
        """Map the memory behind an open file.

        Args:
            layout: of each array its shape, and its dtype as text.
            descriptor: of the file; the mapping stays when it is closed.
        """
        places, end = [], 0
        for shape, dtype in layout:
            places.append(end)
            end += -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // _CACHE_LINE) * _CACHE_LINE
        os.ftruncate(descriptor, end)
        memory = mmap.mmap(descriptor, end)
        self.arrays = [
            np.ndarray(shape, dtype, memory, place) for (shape, dtype), place in zip(layout, places, strict=True)
        ]

    def write(self, *values: np.ndarray) -> None:
        """Copy values into the beginning of the arrays, in their order."""
        for array, value in zip(self.arrays, values, strict=False):
            array[tuple(map(slice, value.shape))] = value

    @classmethod
    def send(cls, connection: Connection, examples: Sequence[np.ndarray]) -> SharedArrays:
        """Make arrays of the examples' shapes and dtypes, and send them once to the process at the other end."""
        layout = [(array.shape, array.dtype.str) for array in examples]
        descriptor = _anonymous_file()
        try:
            shared = cls(layout, descriptor)
            connection.send(layout)
            send_handle(connection, descriptor, os.getppid())
        finally:
            os.close(descriptor)
        return shared

    @classmethod
    def receive(cls, connection: Connection) -> SharedArrays:
        """The arrays that the other end sends."""
        layout = connection.recv()
        descriptor = recv_handle(connection)
        try:
            return cls(layout, descriptor)
        finally:
            os.close(descriptor)


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("arrays")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
