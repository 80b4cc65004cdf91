"""A teacher as read from disk, and the files of its weights, which EPyMARL and kd_teacher write alike."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kd_core.errors import UserError

WEIGHT_FILES = ("agent.th", "critic.th")

StateDict = dict[str, torch.Tensor]


@dataclass(frozen=True)
class TeacherArtifact:
    """A teacher as read from disk.

    Attributes:
        folder: where it was read from.
        facts: the contents of `teacher.json` (for an EPyMARL checkpoint: the same keys, reconstructed).
        agent_state: the actor's state dict, on the CPU.
        critic_state: the central critic's state dict, on the CPU.
        warnings: what the user should know, one line each (e.g. statistics that must be re-estimated).
    """

    folder: Path
    facts: dict[str, Any]
    agent_state: StateDict
    critic_state: StateDict
    warnings: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """The task it was trained on, e.g. ``pz-mpe-simple-spread-v3``."""
        return self.facts["task"]

    @property
    def sha256(self) -> dict[str, str]:
        """The sha256 of each weight file."""
        return self.facts["sha256"]

    @property
    def normalisers(self) -> dict[str, dict[str, list[float]] | None]:
        """Statistics ``{"reward": {"mean", "std"}, "value": {...}}``; a None entry must be re-estimated."""
        return self.facts["normalisers"]


def load_state(path: Path) -> StateDict:
    """Read a state dict of tensors, without executing anything that the file may contain."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: a teacher needs {' and '.join(WEIGHT_FILES)}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise UserError(f"{path} is damaged or no file of plain tensors: copy it again or train again") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(
            f"{path} holds no state dict of tensors: a teacher needs a shared agent (rnn) and a shared critic "
            "(cv_critic or ac_critic)"
        )
    return dict(state)
