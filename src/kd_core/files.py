"""Files that are either whole or absent, whatever happens while they are written.

Every file is written beside its destination under a temporary name, flushed to the disk and only then renamed. No
reader ever meets half a file, even after a crash or on a full disk.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_core.errors import UserError
from kd_onboard.fields import strict_json

if TYPE_CHECKING:
    import torch

TEMPORARY_SUFFIX = ".kd-tmp"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def temporary_name(path: Path) -> Path:
    """Return the name under which `path` is written before it is renamed into place (same folder, hidden)."""
    return path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that a killed writer left in `folder`."""
    for leftover in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` to `path`, replacing what was there in one step.

    Raises:
        UserError: the disk is full or the file system refuses to write; the old file, if any, is untouched.
    """
    path = Path(path)
    temporary = temporary_name(path)
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UserError(
                f"disk full while writing {path} ({len(data)} bytes): free some space or choose another folder; "
                "the files finished before it are valid"
            ) from error
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        _discard(temporary)


def check_parent(file: Path) -> None:
    """See that a file can be written where it is asked for, before the work that it is to hold.

    Raises:
        UserError: its folder does not exist.
    """
    if not file.expanduser().absolute().parent.is_dir():
        raise UserError(f"cannot write {file}: there is no folder {file.parent}")


def write_json(path: Path | str, value: Mapping[str, Any]) -> None:
    """Write `value` as indented JSON; not-a-number and infinity are refused, since JSON has neither."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def save_safetensors(path: Path | str, tensors: Mapping[str, torch.Tensor]) -> str:
    """Write named tensors as one safetensors file.

    Returns:
        The sha256 of the file, in hexadecimal.
    """
    import safetensors.torch  # it brings torch, and most files hold no tensors

    # Serialised in memory: the library's own writer may map the file, and a full disk would then kill the process.
    data = safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def save_torch(path: Path | str, value: object) -> str:
    """Write `value` with `torch.save`, as EPyMARL's ``.th`` files are.

    Returns:
        The sha256 of the file, in hexadecimal.
    """
    import torch  # as above

    stream = io.BytesIO()
    torch.save(value, stream)
    data = stream.getvalue()
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path | str) -> str:
    """Compute the sha256 of a file, in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def read_json(path: Path | str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file is missing, unreadable, no JSON, or not an object.
    """
    try:
        # Python writes NaN where a metric has no value; anything else that programs read differently is refused.
        value = strict_json(Path(path).read_text(encoding="utf-8"), constants=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged: no JSON at line {error.lineno} ({error.msg})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged: it holds a key twice, or a number or a nesting that is too large"
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: expected a JSON object, found {type(value).__name__}")
    return value


def sync_folder(folder: Path) -> None:
    """Make a rename durable: the folder's own entry must reach the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(temporary: Path) -> None:
    """Delete a temporary file, unless it was renamed; on a read-only file system there is nothing to delete."""
    try:
        temporary.unlink(missing_ok=True)
    except OSError:
        return
