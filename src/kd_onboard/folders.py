"""Folders of the runtime's own on this machine: compiled programs, and the counters of accepted bundles."""

from __future__ import annotations

import os
from pathlib import Path

from kd_onboard.errors import TrustError

_OTHERS_CAN_WRITE = 0o022


def own_folder(variable: str, standard: str, base: str) -> Path:
    """Create a folder that only this user can write to.

    Args:
        variable: environment variable that names it.
        standard: environment variable of the standard folder above it, where ``variable`` is not set.
        base: that folder, where neither is set.

    Raises:
        TrustError: it cannot be created, or others can write to it.
    """
    given = os.environ.get(variable)
    folder = Path(given or os.path.join(os.environ.get(standard) or os.path.expanduser(base), "kd-onboard"))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise TrustError(
            f"cannot make the folder {folder} ({error.strerror or error}): name another one in {variable}"
        ) from None
    if found.st_uid != os.getuid() or found.st_mode & _OTHERS_CAN_WRITE or not os.access(folder, os.W_OK):
        raise TrustError(
            f"{folder} can be written by others, or not by you, so what is in it is not trusted: name a folder of your "
            f"own in {variable}"
        )
    return folder


def check_own_file(path: Path) -> None:
    """Check that a file is a plain one of this user's that nobody else can write.

    Raises:
        TrustError: it is not.
    """
    try:
        found = os.lstat(path)
    except OSError as error:
        raise TrustError(f"cannot read {path}: {error.strerror or error}") from None
    plain = found.st_mode & 0o170000 == 0o100000
    if not plain or found.st_uid != os.getuid() or found.st_mode & _OTHERS_CAN_WRITE:
        raise TrustError(f"{path} could have been changed by others, so it is not used: delete it")
