"""The stages and the stock algorithms, whole, through ``src/main.py``."""

from __future__ import annotations

from stage_fixtures import words


def test_x(mains, tiny_teacher, tiny_buffer, tmp_path):
    run = mains.run(*words("kd_student", tmp_path, f"teacher={tiny_teacher}", f"expert_buffer={tiny_buffer}")).check()
    print(run.out, run.err, run.summary)
    run = mains.run(*words("kd_student", tmp_path, f"teacher={tiny_teacher}", "widths=[3]"))
    print(run.err)
    print(run.error)
    assert 0
