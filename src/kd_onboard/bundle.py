"""A student bundle on disk: the profile, and files that match it exactly.

Every file is checked against its size and sha256, and the profile against a checksum of its own bytes. That finds
damage. The bundle's signature tells its author: see :mod:`kd_onboard.signature`.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from kd_onboard.errors import BundleError
from kd_onboard.fields import parse_object
from kd_onboard.profile import AgentProfile, Profile, Task, parse_profile
from kd_onboard.tensors import read_tensors

PROFILE = "profile.json"
SIGNATURE = "signature.json"
_LARGEST_PROFILE = 16 << 20
_LARGEST_FILE = 256 << 20
_UNSEALED = "0" * 64


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked.

    Attributes:
        folder: its folder.
        profile: its description of the team.
        sealed: the bytes of `profile.json` that were read and checked.
        listing: every file but the signature, and every folder, whose path ends with "/"; sorted.
    """

    folder: Path
    profile: Profile
    sealed: bytes
    listing: tuple[str, ...]

    @property
    def task(self) -> Task:
        """The task that the team was trained for."""
        return self.profile.task

    @property
    def agents(self) -> tuple[AgentProfile, ...]:
        """The team, in the environment's order."""
        return self.profile.agents

    def agent(self, which: int | str) -> AgentProfile:
        """Return one agent, by its index or its name.

        Raises:
            BundleError: the bundle has no such agent.
        """
        for agent in self.agents:
            if type(which) is not bool and which in (agent.index, agent.name):
                return agent
        names = ", ".join(f"{agent.index} ({agent.name})" for agent in self.agents[:20])
        raise BundleError(f"{self.folder} has no agent {which!r}: choose one of {names}")

    def read(self, path: str) -> bytes:
        """Read a file's bytes and check them again, so that the bytes used are those described.

        Raises:
            BundleError: the file is not listed, or no longer matches the profile.
        """
        entry = self.profile.files.get(path)
        if entry is None:
            raise BundleError(f"{self.folder} lists no file {path}")
        data = read_file(self.folder / path, entry.size)
        if len(data) != entry.size:
            raise BundleError(f"{self.folder / path} is damaged: {len(data)} bytes, expected {entry.size}")
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise BundleError(
                f"{self.folder / path} is damaged: its sha256 is not the profile's; copy the bundle again"
            )
        return data

    def weights(self, agent: AgentProfile) -> dict[str, np.ndarray]:
        """Read an agent's network, float32, by name; shapes as in :func:`expected_shapes`.

        Raises:
            BundleError: a tensor is missing, has another shape, or does not belong to the network.
        """
        return self._joined(agent, {})

    def _joined(self, agent: AgentProfile, parts: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Join an agent's weight files; ``parts`` holds what was read before, so that a shared file is read once."""
        tensors: dict[str, np.ndarray] = {}
        for path in agent.weights:
            if path not in parts:
                parts[path] = read_tensors(self.read(path), str(self.folder / path))
            for name, values in parts[path].items():
                if name in tensors:
                    raise BundleError(f"{self.folder}: two weight files of {agent.label} have a tensor '{name}'")
                tensors[name] = values
        shapes = {name: values.shape for name, values in tensors.items()}
        expected = expected_shapes(agent)
        for name in sorted(expected.keys() | shapes.keys()):
            if shapes.get(name) != expected.get(name):
                raise BundleError(
                    f"{self.folder}: tensor '{name}' of {agent.label} is {shapes.get(name, 'missing')}, expected "
                    f"{expected.get(name, 'no such tensor')}"
                )
        if (total := sum(values.size for values in tensors.values())) != agent.parameters:
            raise BundleError(
                f"{self.folder}: the profile gives {agent.label} {agent.parameters} parameters, its weights are {total}"
            )
        return tensors


def expected_shapes(agent: AgentProfile) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor of an agent's network; GRU gates in the order r, z, n."""
    width, actions = agent.width, agent.n_actions
    shapes: dict[str, tuple[int, ...]] = {"align.weight": (width, agent.inputs), "align.bias": (width,)}
    for side in ("ih", "hh"):
        shapes[f"gru.weight_{side}"], shapes[f"gru.bias_{side}"] = (3 * width, width), (3 * width,)
    shapes["head.weight"], shapes["head.bias"] = (actions, width), (actions,)
    inbox, outbox, _ = agent.exchanged
    if inbox:
        shapes["hear.weight"] = (width, inbox)
    if outbox:
        shapes["speak.weight"] = (outbox, width)
    return shapes


def read_bundle(folder: str | os.PathLike[str]) -> Bundle:
    """Read a bundle and check all of it.

    Args:
        folder: the bundle.

    Raises:
        BundleError: the first fault found. It is not a bundle, or its format or version is another. A file is missing,
            surplus, changed or linked. A field has the wrong type, or weights do not fit the profile.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BundleError(f"{folder} is no folder: give the folder of a student bundle (kd-marl export writes one)")
    found, folders = _contents(folder)
    if PROFILE not in found:
        raise BundleError(f"{folder} is no student bundle: it has no {PROFILE} (kd-marl export writes one)")
    data = read_file(folder / PROFILE, _LARGEST_PROFILE)
    where = str(folder / PROFILE)
    values = parse_object(data, where)
    profile = parse_profile(values, where)
    _check_seal(data, values, where)
    expected = {*profile.files, PROFILE}
    if missing := sorted(expected - found):
        raise BundleError(f"{folder} lacks {missing[0]}: copy the bundle again")
    if surplus := sorted(found - expected - {SIGNATURE}):
        raise BundleError(f"{folder} has a file that its profile does not list: {surplus[0]}")
    needed = {f"{parent.as_posix()}/" for path in expected for parent in PurePosixPath(path).parents[:-1]}
    if surplus := sorted(folders - needed):
        raise BundleError(f"{folder} has a folder that its profile does not list: {surplus[0][:-1]}")
    bundle = Bundle(folder, profile, data, tuple(sorted(expected | needed)))
    weights = {path for agent in profile.agents for path in agent.weights}
    for path in profile.files:
        if path not in weights:
            bundle.read(path)
    parts: dict[str, dict[str, np.ndarray]] = {}
    for agent in profile.agents:
        bundle._joined(agent, parts)
    return bundle


def profile_text(values: Mapping[str, Any]) -> str:
    """Format the text of `profile.json`, with the checksum of its own bytes under ``checksum``."""
    others = {name: value for name, value in values.items() if name != "checksum"}
    unsealed = json.dumps({**others, "checksum": _UNSEALED}, indent=2, allow_nan=False) + "\n"
    before, _, after = unsealed.rpartition(_UNSEALED)
    return before + hashlib.sha256(unsealed.encode()).hexdigest() + after


def _check_seal(data: bytes, values: Mapping[str, Any], where: str) -> None:
    """Check that the checksum is that of the file with zeros in the checksum's place.

    Raises:
        BundleError: there is no checksum, or it is another.
    """
    given = values.get("checksum")
    if type(given) is not str or len(given) != 64 or not given.isascii() or data.count(given.encode()) != 1:
        raise BundleError(f"{where} is damaged: it has no checksum of its own")
    if hashlib.sha256(data.replace(given.encode(), _UNSEALED.encode())).hexdigest() != given:
        raise BundleError(f"{where} is damaged: its checksum is another; copy the bundle again")


def _contents(folder: Path) -> tuple[set[str], set[str]]:
    """List the relative paths of the files in a folder, and of its folders; refuse anything else."""
    found, folders, pending = set(), set(), [folder]
    try:
        while pending:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    path = Path(entry.path).relative_to(folder).as_posix()
                    if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
                        raise BundleError(f"{folder} has {path!a}, which is neither a plain file nor a folder")
                    if entry.is_dir():
                        folders.add(f"{path}/")
                        pending.append(Path(entry.path))
                    else:
                        found.add(path)
    except OSError as error:
        raise BundleError(f"cannot read {folder}: {error.strerror or error}") from None
    return found, folders


def read_file(path: Path, most: int) -> bytes:
    """Read a plain file's bytes, at most ``most`` and one more, so that a larger file is never read whole.

    Raises:
        BundleError: the file cannot be read, is not a plain file, or is larger than ``most``.
    """
    most = min(most, _LARGEST_FILE)
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BundleError(f"{path} is no plain file")
            data = file.read(most + 1)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise BundleError(f"cannot read {str(path)!a}: {error}") from None
    if len(data) > most:
        raise BundleError(f"{path} is larger than the {most} bytes expected")
    return data
