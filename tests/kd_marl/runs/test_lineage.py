"""What a run learnt from and made: written beside it, and told from its configuration where that is missing."""

from __future__ import annotations

import hashlib
import json

import pytest

from kd_core.errors import UserError
from kd_marl.runs import lineage

TEACHER = {"path": "results/models/teacher/100", "sha256": "12ab"}


@pytest.mark.parametrize(
    ("learner", "stage"),
    [
        ("kd_mappo_teacher", "teacher"),
        ("kd_buffer_export", "buffer"),
        ("kd_mappo_student", "student"),
        ("qmix", "stock"),
        (None, "stock"),
    ],
)
def test_a_stage_is_named_by_its_learner(learner, stage):
    assert lineage.stage({"learner": learner}) == stage
    assert stage in lineage.ORDER


def test_what_was_written_is_read(tmp_path):
    (tmp_path / "agent.th").write_bytes(b"weights")
    lineage.write(tmp_path, "student", TEACHER, tmp_path / "buffer", tmp_path)
    assert lineage.read(tmp_path, {}, {}) == {
        "stage": "student",
        "teacher": TEACHER,
        "buffer": str(tmp_path / "buffer"),
        "model": {"path": str(tmp_path), "sha256": hashlib.sha256(b"weights").hexdigest()},
    }


def test_a_checkpoint_without_an_actor_is_no_model(tmp_path):
    lineage.write(tmp_path, "stock", None, None, tmp_path)
    assert lineage.read(tmp_path, {}, {})["model"] is None


def test_a_run_without_the_file_tells_its_teacher_by_its_result(tmp_path):
    summary = {"teacher_artifact": {"path": TEACHER["path"], "sha256": {"agent.th": "12ab", "critic.th": "34cd"}}}
    found = lineage.read(tmp_path, {"learner": "kd_mappo_student"}, summary)
    assert found == {"stage": "student", "teacher": TEACHER, "buffer": None, "model": None}
    assert lineage.read(tmp_path, {"learner": "qmix"}, {})["teacher"] is None


def test_a_folder_that_cannot_be_written_ends_no_run(tmp_path):
    lineage.write(tmp_path / "gone", "student", TEACHER, None)
    assert not (tmp_path / "gone").exists()


def test_a_damaged_file_is_said_in_one_line(tmp_path):
    (tmp_path / lineage.LINEAGE_FILE).write_text(json.dumps(TEACHER)[:-3])
    with pytest.raises(UserError, match="damaged"):
        lineage.read(tmp_path, {}, {})
