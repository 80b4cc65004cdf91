"""A student that talks, from its training to what reads its run: evaluation, stress, and an export that is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kd_marl.cli import main
from kd_marl.runs.student_run import load_student
from stage_fixtures import words


@pytest.mark.slow
def test_a_talking_student_is_trained_evaluated_stressed_and_not_exported(
    mains, tiny_teacher, tiny_buffer, tmp_path, capsys
):
    given = [f"teacher={tiny_teacher}", f"expert_buffer={tiny_buffer}", "seed=1", "limits=lha"]
    talk = [*given, "message_bits=5", "message_loss=0.1"]
    trained = mains.run(*words("kd_student", tmp_path, *talk)).check()
    record, summary = Path(trained.out.rsplit("written to ")[-1].strip()).parent, trained.summary
    assert (summary["message_bits"], summary["bits_per_step"], summary["bits_per_second"]) == (5, 5.0, 50.0)
    run = load_student(record)
    assert run.facts["messages"]["links"] == [[0, 1], [1, 0]] and run.network.messages.loss == 0.1

    again = mains.run(*words("kd_student", tmp_path, *talk, "evaluate=True")).check()
    assert again.summary["student"] == summary["student"]
    for bits in ("message_bits=0", "message_bits=4"):
        named = f"checkpoint_path={run.checkpoint.parent}"
        refused = mains.run(*words("kd_student", tmp_path, *given, bits, "evaluate=True", named))
        assert "was trained with message_bits=5" in refused.error and f"not with {bits}" in refused.error

    none = ["--dropout", "--noise", "--delay", "--dead", "--maps"]
    assert main(["stress", str(record), "--episodes", "4", *none, "--message-loss", "1", "--jam", "0"]) == 0
    rows = {row["name"]: row for row in json.loads((record / "stress.json").read_text())["rows"]}
    assert list(rows) == ["none", "message loss 1", "message delay 1", "message delay 2", "jam speaker_0"]
    assert rows["message loss 1"]["student_mean"] == rows["jam speaker_0"]["student_mean"]
    capsys.readouterr()
    assert main(["export", str(record), "--to", str(tmp_path / "bundle")]) == 2
    assert "bundles of talking students are not supported yet" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()
