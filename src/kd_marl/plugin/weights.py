"""Weights of the host's learners on disk: written whole or not at all, and one line where they cannot be read."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from kd_core import files
from kd_core.artifacts.teacher_weights import MOMENTS, MOMENTS_FILE
from kd_core.errors import UserError
from kd_core.host import get_host


def saved_whole(learner: Any) -> None:
    """Change a learner's ``save_models``: a folder that it cannot fill is one line, and is left as it was.

    The running statistics by which it standardises, which EPyMARL's learners do not save, go into the same folder.
    """
    save = learner.save_models

    def whole(path: str) -> None:
        folder = Path(path)
        temporary = files.temporary_name(folder)
        try:
            temporary.mkdir(parents=True, exist_ok=True)
            save(str(temporary))
            if moments := {name: vars(getattr(learner, name)) for name in MOMENTS if hasattr(learner, name)}:
                torch.save(moments, temporary / MOMENTS_FILE)
            for file in temporary.iterdir():
                with open(file, "rb") as written:
                    os.fsync(written.fileno())
            folder.mkdir(parents=True, exist_ok=True)
            for file in temporary.iterdir():
                os.replace(file, folder / file.name)
        except (OSError, RuntimeError) as error:
            raise UserError(_why_not_saved(folder, error)) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    learner.save_models = whole


def _why_not_saved(folder: Path, error: Exception) -> str:
    """Say why weights were not written: PyTorch's own message tells nothing of a full disk."""
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    full = isinstance(error, OSError) and error.errno in files.DISK_FULL
    if full or (isinstance(error, RuntimeError) and shutil.disk_usage(there).free < _ROOM):
        return (
            f"disk full while writing the weights in {folder}: free some space or choose another local_results_path; "
            "the checkpoints finished before it are whole"
        )
    return f"cannot write the weights in {folder}: {' '.join(str(error).split())[:160]}"


# Less free space than any network's weights need.
_ROOM = 1 << 20


def loaded_in_one_line(learner: Any) -> None:
    """Change a learner's ``load_models``: weights of another network, or damaged ones, are one line.

    The bundled runtime goes on with the running statistics too; a checkout starts anew, as it does without kd-marl.
    """
    load = learner.load_models

    def checked(path: str) -> None:
        try:
            load(path)
            moments = Path(path, MOMENTS_FILE)
            if moments.is_file() and get_host().is_bundled:
                saved = torch.load(moments, map_location=getattr(learner.args, "device", "cpu"), weights_only=True)
                for name in (name for name in MOMENTS if name in saved and hasattr(learner, name)):
                    vars(getattr(learner, name)).update(saved[name])
        except UserError:
            raise
        except (RuntimeError, OSError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
            if file := _damaged(Path(path)):
                raise UserError(
                    f"{file} is damaged (cut short or altered): copy it again, or load another step with load_step"
                ) from None
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                f"{path} holds no weights of this configuration ({reason}): give the keys of the run that saved them"
            ) from None

    learner.load_models = checked


def _damaged(folder: Path) -> Path | None:
    """Find the first file of weights that cannot be read at all."""
    for file in sorted(folder.glob("*.th")):
        try:
            torch.load(file, map_location="cpu", weights_only=True)
        except Exception:
            return file
    return None
