"""When a run has been made: its result on disk, made with today's settings and the suite's teacher.

Sacred's folders and the artifacts are the only evidence; the suite keeps no list of results of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from kd_core import checkpoints, files, stages
from kd_core.errors import UserError

# The teacher counts by its hash.
NOT_COMPARED = checkpoints.REPORTING | {"command", "resume", "teacher"}


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration decides what a run computes, as JSON has it."""
    kept = {key: value for key, value in checkpoints.telling(config).items() if key not in NOT_COMPARED}
    kept["env_args"] = checkpoints.unseeded(config["env_args"])
    return json.loads(json.dumps(kept, sort_keys=True, default=str))


def identity(config: Mapping[str, Any]) -> str:
    """Sha256 of that: two runs of one identity are the same run."""
    return hashlib.sha256(json.dumps(comparable(config), sort_keys=True).encode()).hexdigest()


class Proof(Protocol):
    """How to tell that a run has been made; plain data, since it travels to other machines."""

    def found(self) -> Path | None:
        """Where its result is; None if it is yet to be made."""


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
        """The newest such run's Sacred folder."""
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
        """Its last checkpoint, which is the artifact."""
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
        """Its folder.

        Raises:
            UserError: it is damaged, or was recorded in another environment.
        """
        if not (self.folder / "buffer.json").is_file():
            return None
        enough = stages.stored_episodes(self.folder) >= self.episodes
        facts = files.read_json(self.folder / "buffer.json")
        if other := stages.recorded_otherwise(facts, self.environment) or self._stored_otherwise(facts):
            raise UserError(
                f"the expert buffer in {self.folder} was recorded with {other}: give another --to, or remove the folder"
            )
        return self.folder if enough else None

    def _stored_otherwise(self, facts: Mapping[str, Any]) -> str:
        was, now = facts["embedding_dtype"], self.environment["embedding_dtype"]
        return f"embedding_dtype={was}, this suite has {now}" if was != now else ""


# Finished runs do not change: each is read once. Folder -> time of its summary, identity and teacher.
_READ: dict[Path, tuple[int, tuple[str, str]]] = {}


def _identified(folder: Path) -> tuple[str, str]:
    """The identity of a finished run and the hash of its teacher; empty where its record is damaged."""
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
