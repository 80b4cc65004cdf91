"""Adds the plug-in's learners and controllers to a host's registries."""

from __future__ import annotations

from typing import Any

from kd_core.host import Host


def register(host: Host) -> None:
    """Add every name the plug-in's YAML files use. Safe to call twice.

    Raises:
        ValueError: the host already has another entry of that name.
    """
    from envs.smax.env import SmaxEnv
    from kd_controllers import hetero_mac, teacher_mac
    from kd_learners import exporter, teacher
    from kd_learners import student_learner as student
    from kd_runners.vector import VectorRunner

    _add(host.envs, "smax", SmaxEnv)
    _add(host.runners, "vector", VectorRunner)
    _add(host.controllers, "hetero_mac", hetero_mac.HeteroMAC)
    _add(host.controllers, "teacher_mac", teacher_mac.TeacherMAC)
    _add(host.learners, "kd_mappo_teacher", teacher.TeacherLearner)
    _add(host.learners, "kd_buffer_export", exporter.BufferExporter)
    _add(host.learners, "kd_mappo_student", student.StudentLearner)


def _add(registry: dict[str, Any], name: str, entry: type) -> None:
    if registry.setdefault(name, entry) is not entry:
        raise ValueError(f"the host already registers '{name}' as {registry[name]}: rename one of the two")
