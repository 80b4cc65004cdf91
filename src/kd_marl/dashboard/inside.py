"""Files below one folder, and nothing else: no link is followed, nothing but a regular file is read.

Every part of a path is opened from the folder before it, so nobody can swap a folder for a link between check and use.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

# When a file was written, its size and its inode: another stamp is another content.
Stamp: TypeAlias = tuple[int, int, int]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Without O_NONBLOCK a named pipe would wait for a writer for ever.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class UnreadableError(Exception):
    """A file is not what it should be: a few words for a reader, without the path."""


@contextlib.contextmanager
def folder(root: Path, parts: Sequence[str]) -> Iterator[int]:
    """Open a folder below ``root``.

    Raises:
        OSError: it is not there, or a part of the path is a link.
        UnreadableError: a part is no name.
    """
    descriptor = os.open(root, _FOLDER)
    try:
        for part in parts:
            before, descriptor = descriptor, open_below(descriptor, part)
            os.close(before)
        yield descriptor
    finally:
        os.close(descriptor)


def open_below(descriptor: int, name: str) -> int:
    """Open a folder in the open folder, for the caller to close; raises as `folder` does."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise UnreadableError(f"{name!r} is no name of a folder")
    return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)


def stamp(descriptor: int, name: str) -> Stamp | None:
    """Return a file's stamp; None if there is no such regular file in the open folder."""
    try:
        found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except OSError:
        return None
    return _stamp(found) if stat.S_ISREG(found.st_mode) else None


def read(descriptor: int, name: str, most: int) -> tuple[bytes, Stamp]:
    """Read a file of the open folder.

    Args:
        descriptor: the folder.
        name: the file.
        most: bytes that it may have.

    Raises:
        FileNotFoundError: there is none.
        UnreadableError: it is a link, no regular file, larger than that, or the system refuses it.
    """
    file, found = _opened(descriptor, name)
    try:
        if found.st_size > most:
            raise UnreadableError(f"{name} is {found.st_size >> 20} MB, and only {most >> 20} MB are read")
        return _bytes(file, found.st_size), _stamp(found)
    finally:
        os.close(file)


def tail(descriptor: int, name: str, most: int) -> bytes:
    """Read the last bytes of a file, ``most`` at most; raises as `read` does."""
    file, found = _opened(descriptor, name)
    try:
        os.lseek(file, max(0, found.st_size - most), os.SEEK_SET)
        return _bytes(file, min(most, found.st_size))
    finally:
        os.close(file)


def parse(content: bytes, name: str) -> dict[str, Any]:
    """Read a JSON object; a text cut short, no text at all or another value is `UnreadableError`."""
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError):
        raise UnreadableError(f"{name} is damaged or half written") from None
    if not isinstance(value, dict):
        raise UnreadableError(f"{name} is damaged: it holds no JSON object")
    return value


def _opened(descriptor: int, name: str) -> tuple[int, os.stat_result]:
    """Open a regular file, for the caller to close."""
    try:
        file = os.open(name, _FILE, dir_fd=descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        # ELOOP: a link, which may point anywhere.
        raise UnreadableError(f"{name} cannot be read ({error.strerror})") from None
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        os.close(file)
        raise UnreadableError(f"{name} is no regular file")
    return file, found


def _bytes(file: int, size: int) -> bytes:
    """Read so many bytes, or as many as there are; what is written meanwhile is for the next look."""
    content = os.read(file, size)
    while len(content) < size and (piece := os.read(file, size - len(content))):
        content += piece
    return content


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_mtime_ns, found.st_size, found.st_ino
