"""Adds the plug-in's learners and controllers to a host's registries."""

from __future__ import annotations

from kd_controllers.hetero_mac import HeteroMAC
from kd_controllers.teacher_mac import TeacherMAC
from kd_core.host import Host, add
from kd_learners.exporter import BufferExporter
from kd_learners.student_learner import StudentLearner
from kd_learners.teacher import TeacherLearner
from kd_runners import environments
from kd_runners.vector import VectorRunner


def register(host: Host) -> None:
    """Add every name the plug-in's YAML files use. Safe to call twice.

    Raises:
        ValueError: the host already has another entry of that name.
    """
    environments.register(host)
    add(host.runners, "vector", VectorRunner)
    add(host.controllers, "hetero_mac", HeteroMAC)
    add(host.controllers, "teacher_mac", TeacherMAC)
    add(host.learners, "kd_mappo_teacher", TeacherLearner)
    add(host.learners, "kd_buffer_export", BufferExporter)
    add(host.learners, "kd_mappo_student", StudentLearner)
