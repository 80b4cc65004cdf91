"""Training that begins with another teacher's networks instead of random ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kd_core.artifacts.teacher import NETWORK_FACTS, TeacherArtifact, load_teacher
from kd_core.errors import UserError
from kd_core.stages import reward_difference


def read_first_teacher(path: str, wanted: Mapping[str, Any]) -> TeacherArtifact:
    """Read the teacher that a training begins with.

    Args:
        path: ``begin_with``, a teacher's folder.
        wanted: facts of the teacher in training (docs/reference/formats/teacher.md).

    Raises:
        UserError: the folder holds no teacher, or one of another task or with other networks, or the unit of its
            critic's values is unknown.
    """
    teacher = load_teacher(path, n_agents=wanted["n_agents"])
    for name in ("task", *NETWORK_FACTS):
        found = teacher.facts[name]
        if found != wanted[name]:
            raise UserError(
                f"begin_with={path}: that teacher has {name} {found}, this run {wanted[name]}: "
                "set the run's keys as that teacher's command has them"
            )
    if other := reward_difference(teacher.facts, wanted):
        raise UserError(f"begin_with={path}: that teacher's critic values rewards with {other}: use the same rewards")
    if teacher.normalisers["value"] is None:
        raise UserError(
            f"begin_with={path}: nothing tells the unit of that critic's values; train a teacher here first"
        )
    return teacher
