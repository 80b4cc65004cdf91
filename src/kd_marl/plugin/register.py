"""Adds the plug-in's learners and controllers to a host's registries."""

from __future__ import annotations

from typing import Any

from kd_controllers.hetero_mac import HeteroMAC
from kd_controllers.teacher_mac import TeacherMAC
from kd_core.host import Host
from kd_envs.own import own_env
from kd_envs.smax.env import SmaxEnv
from kd_learners.exporter import BufferExporter
from kd_learners.student_learner import StudentLearner
from kd_learners.teacher import TeacherLearner
from kd_runners.vector import VectorRunner


def register(host: Host) -> None:
    """Add every name the plug-in's YAML files use. Safe to call twice.

    Raises:
        ValueError: the host already has another entry of that name.
    """
    _add(host.envs, "smax", SmaxEnv)
    _add(host.envs, "own", own_env)
    _add(host.runners, "vector", VectorRunner)
    _add(host.controllers, "hetero_mac", HeteroMAC)
    _add(host.controllers, "teacher_mac", TeacherMAC)
    _add(host.learners, "kd_mappo_teacher", TeacherLearner)
    _add(host.learners, "kd_buffer_export", BufferExporter)
    _add(host.learners, "kd_mappo_student", StudentLearner)


def _add(registry: dict[str, Any], name: str, entry: Any) -> None:
    if registry.setdefault(name, entry) is not entry:
        raise ValueError(f"the host already registers '{name}' as {registry[name]}: rename one of the two")
