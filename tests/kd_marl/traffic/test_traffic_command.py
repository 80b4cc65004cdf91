"""`kd-marl traffic`: rows by hand, mistakes in one line, and the same waiting times as the environment's own."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

from kd_core.host import get_host

get_host()  # before anything of ours asks the host for its classes

from kd_marl.cli import main  # noqa: E402
from kd_marl.traffic.command import summary_rows  # noqa: E402


def test_a_single_run_has_intervals_over_episodes_and_several_over_runs():
    one = {"fixed_time": np.array([19.0, 21.0]), "teacher": np.array([10.0, 10.0]), "student": np.array([12.0, 10.0])}
    rows = {row["control"]: row for row in summary_rows([one])}
    # Two numbers one apart from their mean: Student's t of one degree, 12.706, over the root of 2 - 1.
    assert rows["fixed_time"]["waiting_time"] == 20 and rows["fixed_time"]["high"] == pytest.approx(
        20 + 12.706, abs=1e-3
    )
    assert [rows[name]["gain"] for name in one] == pytest.approx([0, 1, 0.9])
    other = {"fixed_time": np.array([20.0]), "teacher": np.array([12.0]), "student": np.array([13.0])}
    rows = {row["control"]: row for row in summary_rows([one, other])}
    assert rows["student"]["waiting_time"] == 12 and rows["student"]["low"] == pytest.approx(12 - 12.706, abs=1e-3)
    assert rows["student"]["gain"] == pytest.approx((20 - 12) / (20 - 11))


def test_without_a_teacher_that_gains_there_is_no_share_and_one_episode_has_no_interval():
    (row, worse) = summary_rows([{"fixed_time": np.array([10.0]), "teacher": np.array([11.0])}])
    assert (row["gain"], worse["gain"], row["low"], row["high"]) == (None, None, None, None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give students' runs, or --map-name NAME (for example --map-name cologne1) without any"),
        (["nowhere"], "there is no folder"),
        (["--map-name", "cologne1", "--episodes", "0"], "of at least 1"),
    ],
)
def test_a_mistake_is_one_line(words, message, capsys):
    if "cologne1" in words and importlib.util.find_spec("libsumo") is None:
        message = "needs libsumo, which is not installed: pip install"
    assert main(["traffic", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("libsumo", "sumo_rl")),
    reason="SUMO is not installed: pip install -e '.[traffic]'",
)
def test_the_table_has_the_waiting_times_of_the_environment(tmp_path, capsys):
    assert main(["traffic", "--map-name", "ingolstadt1", "--episodes", "1", "--out", str(tmp_path / "out.json")]) == 0
    assert "mean waiting time in s per vehicle" in capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text())
    assert [row["control"] for row in found["rows"]] == ["fixed_time", "max_pressure"]
    from kd_envs.traffic.env import TrafficEnv
    from kd_marl.evaluation.episodes import evaluation_seed

    for row in found["rows"]:
        env = TrafficEnv("ingolstadt1", control=row["control"], seed=evaluation_seed(1))
        env.reset()
        score: dict = {}
        while not score:
            *_, score = env.step([0])
        env.close()
        assert row["waiting_time"] == pytest.approx(score["waiting_time"])
