"""A teacher as read from disk, and the files of its weights, which EPyMARL and kd_teacher write alike."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kd_core.errors import UserError

WEIGHT_FILES = ("agent.th", "critic.th")
MIXER_FILE = "mixer.th"
# Beside them: the running statistics of a host's learner, name -> mean, var, count.
MOMENTS_FILE = "moments.th"
MOMENTS = ("rew_ms", "ret_ms")
# Least standard deviation by which rewards or values are divided.
LEAST_SPREAD = 1e-4

# Networks of actors: one for all, or one for each agent.
AGENTS = ("rnn", "rnn_ns")
# What a teacher that learnt action values has as `critic_type`: how the agents' values make the team's.
VALUE_CRITICS = ("qmix", "vdn", "iql")

StateDict = dict[str, torch.Tensor]


@dataclass(frozen=True)
class TeacherArtifact:
    """A teacher as read from disk.

    Attributes:
        folder: where it was read from.
        facts: the contents of `teacher.json` (for an EPyMARL checkpoint: the same keys, reconstructed).
        agent_state: the actor's state dict, on the CPU.
        critic_state: the central critic's state dict, on the CPU; of one that learnt values its mixer's, or empty.
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

    @property
    def learnt_values(self) -> bool:
        """Whether it learnt action values (QMIX, VDN, IQL) and no policy."""
        return self.facts["critic_type"] in VALUE_CRITICS

    def at(self, temperature: float) -> TeacherArtifact:
        """Return this teacher with the temperature at which its action values make a policy."""
        return replace(self, facts={**self.facts, "temperature": temperature})


def weight_files(critic_type: str) -> tuple[str, ...]:
    """Name the files of a teacher's weights: of those that learnt values only QMIX has a mixer that learns."""
    if critic_type not in VALUE_CRITICS:
        return WEIGHT_FILES
    return (WEIGHT_FILES[0], MIXER_FILE) if critic_type == "qmix" else WEIGHT_FILES[:1]


def load_state(path: Path) -> StateDict:
    """Read a state dict of tensors, without executing anything that the file may contain.

    Critics that share nothing are a list of state dicts in EPyMARL, a list of layers in the bundled runtime. Either
    becomes ``critics.<agent>.fc1.weight`` and so on.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        needed = (WEIGHT_FILES[0], path.name) if path.name not in WEIGHT_FILES else WEIGHT_FILES
        raise UserError(f"{path} is missing: a teacher needs {' and '.join(needed)}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise UserError(f"{path} is damaged or no file of plain tensors: copy it again or train again") from error
    if isinstance(state, list) and all(isinstance(own, Mapping) for own in state):
        state = {f"critics.{agent}.{key}": value for agent, own in enumerate(state) for key, value in own.items()}
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(
            f"{path} holds no state dict of tensors: a teacher needs the weights of an actor and of a critic of values"
        )
    return {_LAYER.sub(_layer_name, key): value for key, value in state.items()}


def networks(state: StateDict) -> int:
    """Count the networks of a state dict that has one for each agent."""
    return len({key.split(".")[1] for key in state if key.startswith(("agents.", "critics."))})


_LAYER = re.compile(r"(?<=^critics\.)(\d+)\.([024])\.")


def _layer_name(found: re.Match[str]) -> str:
    """Name a layer of the bundled runtime's critics as EPyMARL does: the others of the list are activations."""
    return f"{found[1]}.fc{int(found[2]) // 2 + 1}."


def load_moments(path: Path) -> dict[str, dict[str, list[float]]]:
    """Read saved running statistics as mean and standard deviation; empty where the file is missing.

    Raises:
        UserError: it is damaged.
    """
    if not path.is_file():
        return {}
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        return {
            name: {
                "mean": saved[name]["mean"].tolist(),
                "std": saved[name]["var"].sqrt().clamp(min=LEAST_SPREAD).tolist(),
            }
            for name in MOMENTS
            if name in saved
        }
    except Exception as error:
        raise UserError(f"{path} is damaged: copy it again, or remove it to have the statistics estimated") from error
