"""The runs behind the results page: what its suites ask for, and which finished runs count."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
import yaml

pytest.importorskip("matplotlib", reason="the figures need the extra report")

import results
import results_page
from results_evidence import Evidence

from kd_marl import cli
from result_runs import (
    BASELINE,
    LISTENER,
    MPE,
    SMAX,
    SPREAD,
    STUDENT,
    Grid,
    config_of,
    make_grid,
    put,
    put_buffer,
    put_teacher,
    row_of,
)


@pytest.fixture
def grid(tmp_path, monkeypatch):
    return make_grid(tmp_path, monkeypatch)


def found(grid, algorithm=STUDENT, task=SPREAD, setting="fo"):
    return grid.find(grid.row(algorithm, task, setting)[0])


@pytest.mark.parametrize(
    ("family", "tasks", "students", "baselines"),
    [(SMAX, 4, {"fo": 3, "lh": 5, "lha": 5}, {}), (MPE, 3, {}, {"fo": 3, "lh-paper": 3, "lh-random": 3})],
    ids=["smax", "mpe"],
)
def test_each_row_has_the_seeds_of_the_suite(tmp_path, family, tasks, students, baselines):
    grid = Grid(family, tmp_path)
    students = students or {"fo": 3, "lh-paper": 3, "lh-random": 5, "lha-paper": 3, "lha-random": 5}
    assert len(grid.tasks) == tasks and set(grid.settings) == set(students)
    assert {setting: len(grid.seeds(STUDENT, setting)) for setting in grid.settings} == students
    made = {setting: len(grid.seeds(BASELINE, setting)) for setting in grid.settings}
    assert {setting: count for setting, count in made.items() if count} == baselines
    for task in grid.tasks:
        assert len(grid.cells(task)) == sum(students.values()) + sum(baselines.values())
        assert grid.teacher(task)["task"] == task
    rows = Evidence(grid, {}, []).seeds
    assert rows == ("3 seeds (fo), 5 (lh, lha)" if baselines == {} else rows) and rows.startswith("3 seeds (fo")


def test_a_command_line_says_what_is_run_and_not_where(tmp_path):
    lines = [Grid(SMAX, tmp_path).shell_line(cell) for cell in Grid(SMAX, tmp_path).cells("3m")]
    begin = "python src/main.py --config=kd_student --env-config=smax with eval_episodes=2000 env_args.map_name=3m"
    assert lines[0] == f"{begin} limits=fo hidden_dim=16 seed=1"
    assert lines[-1] == f"{begin} limits=lha seed=5"
    config = config_of(lines[0].split()[2:])
    assert (config["env_args"]["episode_limit"], config["hidden_dim"], config["eval_episodes"]) == (100, 16, 2000)


def test_baselines_are_trained_as_long_as_teacher_buffer_and_student_together(grid):
    assert grid.steps(SPREAD, "lh-paper") is None
    assert grid.shell_line(grid.row(BASELINE, SPREAD, "fo")[0]) == "known once there is an expert buffer"
    put_buffer(grid, SPREAD, steps=80_000)
    student = config_of(grid.plan.job(grid.row(STUDENT, SPREAD, "lh-paper")[0].label).words)
    assert grid.steps(SPREAD, "lh-paper") == grid.teacher(SPREAD)["steps"] + 80_000 + student["t_max"]


def test_a_run_of_other_settings_is_not_counted(grid):
    folder = put(grid, STUDENT, SPREAD, "fo", 1, number=1)
    assert found(grid).folder == folder
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "log_interval": 7}))
    rewrite(folder)
    assert found(grid).folder == folder
    (folder / "config.json").write_text(json.dumps({**config, "lr": 0.5}))
    rewrite(folder)
    assert found(grid) is None


def rewrite(folder):
    """Give a run another time: each is read once."""
    stat = (folder / "summary.json").stat()
    os.utime(folder / "summary.json", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))


def test_a_student_of_another_teacher_is_not_counted(grid, tmp_path):
    put(grid, STUDENT, SPREAD, "fo", 1, number=1)
    assert found(grid) is not None
    put_teacher(tmp_path / "zoo" / SPREAD, sha256={"agent.th": "cd" * 32})
    assert found(Grid(grid.family, grid.results)) is None


def test_the_newest_of_two_runs_counts(grid):
    put(grid, STUDENT, SPREAD, "fo", 1, number=10, student=-1.0)
    rewrite(put(grid, STUDENT, SPREAD, "fo", 1, number=9, student=-2.0))
    assert found(grid).summary["student"]["return_mean"] == -2.0


def test_a_run_from_before_a_key_counts_if_that_key_is_as_it_was(grid):
    folder = put(grid, STUDENT, SPREAD, "fo", 1, number=1)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({key: config[key] for key in config if key != "feature_coef"}))
    assert found(grid).shares_episodes
    (folder / "config.json").write_text(json.dumps({**config, "feature_coef": 0.5}))
    rewrite(folder)
    assert found(grid) is None


def test_without_a_run_the_command_that_makes_them_is_said(tmp_path, capsys):
    assert results.main(["--results", str(tmp_path), "--docs", str(tmp_path), "--family", "smax"]) == 2
    assert capsys.readouterr().err == (
        "error: no finished run that counts: kd-marl suite run suites/results_smax.yaml --to results/smax makes them\n"
    )


@pytest.mark.slow
def test_real_runs_are_recognised_and_tabulated(tmp_path):
    suite = yaml.safe_load(MPE.suite.read_text())
    blocks = {
        "runner": "parallel",
        "eval_episodes": 4,
        **dict.fromkeys(("batch_size_run", "batch_size", "buffer_size"), 4),
    }
    small = {**suite["tasks"][LISTENER], "teacher": "train", "teacher_with": {**blocks, "t_max": 400}}
    student = {"limits": "lh-paper", "with": {**blocks, "buffer_episodes": 20, "minibatch_episodes": 4, "t_max": 500}}
    baseline = {"limits": "lh-paper", "steps_of": STUDENT, "with": blocks}
    suite |= {"tasks": {LISTENER: small}, "methods": {STUDENT: student, BASELINE: baseline}, "seeds": [1, 2, 3]}
    suite["limits"] = {"lh-paper": suite["limits"]["lh-paper"]}
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(suite))
    assert cli.main(["suite", "run", str(file), "--to", str(tmp_path / "results"), "--seeds", "1"]) == 0

    results_page.write([Grid(replace(MPE, suite=file), tmp_path / "results")], tmp_path / "docs")
    page = (tmp_path / "docs" / "results.md").read_text()
    assert "1 of 3" in row_of(page, "simple_speaker_listener", "lh-paper", "setting")
    assert page.count("- kd_student on") == page.count("- mappo on") == 2
    assert "<svg" in (tmp_path / "docs" / "results-mpe.svg").read_text()
