"""What a run learnt from and what it made: ``lineage.json`` in its Sacred folder, by which its parents are found."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_core import files
from kd_core.errors import UserError

LINEAGE_FILE = "lineage.json"
STAGES = {"kd_mappo_teacher": "teacher", "kd_buffer_export": "buffer", "kd_mappo_student": "student"}
STOCK = "stock"
# Each learns from those before it.
ORDER = (*STAGES.values(), STOCK)


def stage(config: Mapping[str, Any]) -> str:
    """Name a run's stage: ``teacher``, ``buffer``, ``student``, or ``stock`` for an algorithm of the host."""
    return STAGES.get(str(config.get("learner")), STOCK)


def write(
    folder: Path, stage: str, teacher: Mapping[str, Any] | None, buffer: Path | None, model: Path | None = None
) -> None:
    """Write a run's ``lineage.json``.

    Args:
        folder: the run's.
        stage: as `stage` names it.
        teacher: ``path``, and ``sha256`` of the weights, of the teacher that it plays or learns from; None without one.
        buffer: folder of the expert buffer that it writes or reads.
        model: the final checkpoint that it saved.
    """
    weights = model / "agent.th" if model else None
    facts = {
        "stage": stage,
        "teacher": teacher,
        "buffer": str(buffer.absolute()) if buffer else None,
        "model": {"path": str(model), "sha256": files.file_sha256(weights)} if weights and weights.is_file() else None,
    }
    # A full disk is said by what fills it; a run does not end for this.
    with contextlib.suppress(UserError):
        files.write_json(folder / LINEAGE_FILE, facts)


def read(folder: Path, config: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """Read a run's ``lineage.json``; without one, what its configuration and its result tell."""
    if (folder / LINEAGE_FILE).is_file():
        return files.read_json(folder / LINEAGE_FILE)
    artifact = summary.get("teacher_artifact") or {}
    sha256 = artifact.get("sha256", {}).get("agent.th")
    teacher = {"path": artifact.get("path"), "sha256": sha256} if sha256 else None
    return {"stage": stage(config), "teacher": teacher, "buffer": None, "model": None}
