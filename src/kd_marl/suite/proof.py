"""The proof that a run has been made: its result on disk, of today's settings and the suite's teacher.

Sacred's folders and the artifacts are the only evidence; the suite keeps no list of results of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from kd_core import checkpoints, files, stages
from kd_core.errors import UserError
from kd_marl.runs.identity import identity


class Proof(Protocol):
    """The way to tell that a run has been made; plain data, since it travels to other machines."""

    def found(self) -> Path | None:
        """Return where its result is; None if it is yet to be made."""


@dataclass(frozen=True)
class Summary:
    """A run with a ``summary.json`` in its Sacred folder.

    Attributes:
        folder: of all runs of its name and task.
        identity: which of them.
        teacher: sha256 of the weights of the teacher it must have had; "" for none.
    """

    folder: Path
    identity: str
    teacher: str = ""

    def found(self) -> Path | None:
        """Return the newest such run's Sacred folder."""
        summaries = self.folder.glob("*/summary.json")
        for file in sorted(summaries, key=lambda file: file.stat().st_mtime, reverse=True):
            if _identified(file.parent) == (self.identity, self.teacher):
                return file.parent
        return None


@dataclass(frozen=True)
class Trained:
    """A teacher that is trained and measured."""

    results: Path
    name: str
    fingerprint: str
    seed: int

    def found(self) -> Path | None:
        """Return its last checkpoint, which is the artifact."""
        run = SimpleNamespace(local_results_path=self.results, name=self.name, fingerprint=self.fingerprint)
        point = checkpoints.newest(run, self.seed)
        return point.folder if point is not None and point.reported else None


@dataclass(frozen=True)
class Exported:
    """An expert buffer of at least so many episodes.

    Attributes:
        folder: where it belongs.
        episodes: how many.
        environment: the configuration of its export, as far as it says which environment that is and how embeddings are
            stored.
    """

    folder: Path
    episodes: int
    environment: Mapping[str, Any]

    def found(self) -> Path | None:
        """Return its folder.

        Raises:
            UserError: it is damaged, or was exported from another environment.
        """
        if not (self.folder / "buffer.json").is_file():
            return None
        enough = stages.stored_episodes(self.folder) >= self.episodes
        facts = files.read_json(self.folder / "buffer.json")
        if other := stages.environment_difference(facts, self.environment) or self._stored_otherwise(facts):
            raise UserError(
                f"the expert buffer in {self.folder} was exported with {other}: give another --to, or remove the folder"
            )
        return self.folder if enough else None

    def _stored_otherwise(self, facts: Mapping[str, Any]) -> str:
        was, now = facts["embedding_dtype"], self.environment["embedding_dtype"]
        return f"embedding_dtype={was}, this suite has {now}" if was != now else ""


# Finished runs do not change: each is read once. Folder -> time of its summary, identity and teacher.
_READ: dict[Path, tuple[int, tuple[str, str]]] = {}


def _identified(folder: Path) -> tuple[str, str]:
    """Return the identity of a finished run and the hash of its teacher; empty where its record is damaged."""
    written = (folder / "summary.json").stat().st_mtime_ns
    if folder not in _READ or _READ[folder][0] != written:
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            teacher = summary.get("teacher_artifact", {}).get("sha256", {}).get("agent.th", "")
            _READ[folder] = (written, (identity(config), teacher))
        except (OSError, ValueError, KeyError, AttributeError):
            _READ[folder] = (written, ("", ""))
    return _READ[folder][1]
