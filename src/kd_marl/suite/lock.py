"""One owner for each run: a lock on a file that the system frees however its holder ends.

The run's process inherits the locked file, so the lock lasts as long as either of the two lives. Where machines share
a folder over a file system that keeps locks to each machine, the owner's heartbeat speaks for it: a lock that seems
free but whose file another machine has touched within `STALE_SECONDS` is not.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from kd_core.errors import UserError

# A heartbeat older than this is of an owner that is gone; the clocks of two machines may differ by less.
STALE_SECONDS = 60.0
_TAKEN = (errno.EAGAIN, errno.EACCES)


class Lock:
    """A run that is ours.

    Attributes:
        descriptor: the locked file, for the run's process to inherit.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def beat(self) -> None:
        """Tell other machines that the owner lives; call it every few seconds."""
        os.utime(self.descriptor)


@contextlib.contextmanager
def locked(file: Path, wait: float = 0.0) -> Iterator[Lock | None]:
    """Within the block a run is ours, or it is not and the value is None.

    Args:
        file: its lock file, made if it is not there.
        wait: seconds to wait for an owner that may be about to end.

    Raises:
        UserError: the file cannot be written, or its file system has no locks.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"cannot write {file} ({error.strerror}): give --to a folder that you can write to") from None
    try:
        deadline = time.monotonic() + wait
        while not (ours := _take(descriptor, file, fcntl.LOCK_EX)) and time.monotonic() < deadline:
            time.sleep(0.2)
        if not ours:
            yield None
            return
        _write_owner(descriptor, {"host": socket.gethostname(), "pid": os.getpid()})
        try:
            yield Lock(descriptor)
        finally:
            _write_owner(descriptor, {})
            # For every copy of the descriptor: the run's process has ended, and whatever it left has no part in it.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def owner(file: Path) -> str | None:
    """Return who holds a run now, as ``machine, process 123``; None if nobody does."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {file} ({error.strerror}): give --to a folder that you can write to") from None
    try:
        # Shared: two that only look do not take each other for an owner, and looking needs no right to write.
        if _take(descriptor, file, fcntl.LOCK_SH):
            return None
        found = _read_owner(descriptor)
        return f"{found.get('host', 'unknown')}, process {found.get('pid', 'unknown')}"
    finally:
        os.close(descriptor)


def _take(descriptor: int, file: Path, kind: int) -> bool:
    """Lock the file, unless somebody holds it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise UserError(
            f"cannot lock {file} ({error.strerror}): give --to a folder on a file system that has locks"
        ) from None
    host = _read_owner(descriptor).get("host", socket.gethostname())
    if host != socket.gethostname() and abs(time.time() - os.fstat(descriptor).st_mtime) < STALE_SECONDS:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return False
    return True


def _read_owner(descriptor: int) -> dict[str, object]:
    try:
        found = json.loads(os.pread(descriptor, 4096, 0) or b"{}")
    except ValueError:
        # Its writer was cut short.
        return {}
    return found if isinstance(found, dict) else {}


def _write_owner(descriptor: int, facts: dict[str, object]) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(facts).encode(), 0)
