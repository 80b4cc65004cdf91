"""`kd-marl teachers pack`: a stock algorithm's checkpoint becomes a teacher that needs nothing beside it."""

from __future__ import annotations

import json

import pytest

from kd_core.artifacts.teacher import load_teacher
from kd_core.stages import locate_teacher
from kd_learners.value_teacher import frozen_teacher
from kd_marl.cli import main
from tiny_stages import AGENTS, TASK, described, stage_args
from value_runs import value_run

COMMAND = "python src/main.py --config=qmix --env-config=mpe with t_max=50000"
OF_THIS_PLACE = f"{COMMAND} local_results_path=/home/me"
CURVES = {
    "test_return_mean": {"steps": [10, 50_000, 60_000], "values": [-3.0, 1.5, 2.0]},
    "test_battle_won_mean": {"steps": [50_000], "values": [0.75]},
}


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A QMIX checkpoint, its record with curves, and the record of a run that evaluated it."""
    monkeypatch.chdir(tmp_path)
    folder = value_run(tmp_path / "results", command=OF_THIS_PLACE)
    record = tmp_path / "results/sacred/qmix" / TASK
    (record / "1/metrics.json").write_text(json.dumps(CURVES))
    (record / "2").mkdir()
    evaluated = {"checkpoint_path": str(folder.parent), "load_step": 50_000}
    (record / "2/config.json").write_text(json.dumps(evaluated))
    policy = {"return_mean": 1.25, "return_std": 0.5, "win_rate": None, "length_mean": 4.0}
    (record / "2/summary.json").write_text(json.dumps({"episodes": 64, "policy": policy}))
    return folder, record / "2"


def packing(folder, *more):
    return main(["teachers", "pack", str(folder), "--to", "packed", "--n-agents", str(AGENTS), *more])


def test_what_is_packed_tells_its_training_and_its_test_and_teaches(checkpoint, tmp_path, capsys):
    folder, run = checkpoint
    assert packing(folder, "--tested", str(run)) == 0
    facts = load_teacher("packed").facts
    assert (facts["algorithm"], facts["command"]) == ("qmix", f"{COMMAND} seed=1")
    assert facts["tests"] == [[10, -3.0], [50_000, 1.5, 0.75]]
    greedy = {"return_mean": 1.25, "return_std": 0.5, "win_rate": None}
    assert facts["test"] == {"episodes": 64, "greedy": greedy, "sampled": None}
    args = stage_args("kd_export", tmp_path, teacher="packed")
    teacher = frozen_teacher(locate_teacher(args, described(args).task), args)
    assert teacher.learns_values and teacher.mixer
    capsys.readouterr()
    assert main(["teachers", "list", "--search", "."]) == 0
    assert "1.25 ± 0.50" in capsys.readouterr().out
    assert main(["teachers", "train", "packed"]) == 2
    assert f"run `{COMMAND} seed=1`" in capsys.readouterr().err


def test_what_cannot_be_packed_says_why(checkpoint, tmp_path, capsys):
    folder, run = checkpoint
    (run / "config.json").write_text(json.dumps({"checkpoint_path": str(folder.parent), "load_step": 60_000}))
    assert packing(folder, "--tested", str(run)) == 2
    assert f"did not evaluate {folder}: give a run with evaluate=True" in capsys.readouterr().err
    assert not (tmp_path / "packed").exists()
    assert packing(folder) == 0
    capsys.readouterr()
    assert packing(folder) == 2
    assert "error: packed exists: give another folder" in capsys.readouterr().err
    assert main(["teachers", "pack", "packed", "--to", "again"]) == 2
    assert "packed is a teacher with its facts: copy it as it is" in capsys.readouterr().err


def test_of_runs_repeated_with_one_name_task_and_seed_one_must_be_named(checkpoint, capsys):
    folder, run = checkpoint
    own = run.with_name("1") / "config.json"
    run.with_name("3").mkdir()
    (run.with_name("3") / "config.json").write_text(own.read_text())
    assert packing(folder) == 2
    assert "2 runs below" in (said := capsys.readouterr().err) and "give --config PATH/config.json" in said
    assert packing(folder, "--config", str(own)) == 0
