"""A toy teacher with its expert buffer, and a learner: `tiny_students` as fixtures.

The imports are inside: `tiny_stages` chooses the host and registers the toy task, and only who asks for it should.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kd_learners.student_learner import StudentLearner


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a teacher, and the expert buffer that it played: do not change it."""
    from kd_core.artifacts.teacher import save_teacher
    from tiny_stages import run_stage, stage_args, teacher_facts
    from tiny_students import networks

    folder = tmp_path_factory.mktemp("results")
    agent, critic = networks()
    save_teacher(folder / "teacher", agent.state_dict(), critic.state_dict(), teacher_facts())
    run_stage(stage_args("kd_export", folder, teacher=str(folder / "teacher"), expert_buffer=str(folder / "buffer")))
    return folder


@pytest.fixture
def learner(results: Path, tmp_path: Path) -> StudentLearner:
    """A learner as the host's loop would build it, with nothing but the tiny settings."""
    from tiny_students import make_learner

    return make_learner(results, tmp_path)
