"""marl-eval's JSON, held to the structure that its tools read by a check of its own."""

from __future__ import annotations

import json

import pytest

from kd_marl.report import marl_eval
from report_runs import SPREAD, fill, grouped, put


def check(raw):
    """Hold a document to what marl-eval's data tools go through: they lower keys, and average every list of a step.

    Every step has the metrics of ``absolute_metrics``, which comes last; counts of steps rise; no comma in a method.
    """
    for tasks in raw.values():
        for algorithms in tasks.values():
            for algorithm, runs in algorithms.items():
                assert "," not in algorithm and runs
                for run, steps in runs.items():
                    assert run.startswith("seed_") and int(run[5:]) >= 0
                    *names, last = steps
                    assert last == "absolute_metrics" and names == [f"step_{number}" for number in range(len(names))]
                    counts = [steps[name]["step_count"] for name in names]
                    assert counts and all(type(count) is int for count in counts) and counts == sorted({*counts})
                    metrics = set(steps[last])
                    for name, step in steps.items():
                        assert set(step) - {"step_count"} == metrics, name
                        values = [value for metric in metrics for value in step[metric]]
                        assert values and all(type(value) is float for value in values)


def test_runs_have_the_structure_that_marl_eval_reads(tmp_path):
    fill(tmp_path)
    raw = json.loads(marl_eval.document(grouped(tmp_path)))
    check(raw)
    assert set(raw) == {"smax", "gymma"}
    assert set(raw["smax"]) == {"3m_fo", "3m_lh", "3m_lha", "3s5z_lha"}
    assert set(raw["gymma"]) == {"simple_spread_lh_paper", "simple_spread_lh_random"}
    assert set(raw["smax"]["3m_lh"]) == {"kd_student", "mappo", "kd_no_kl", "own_method"}
    run = raw["smax"]["3m_lh"]["kd_student"]["seed_2"]
    assert run["step_1"] == {"step_count": 500, "return": [-40.0], "win_rate": [0.5]}
    assert run["absolute_metrics"] == {"return": [pytest.approx(7.2)], "win_rate": [0.72]}


def test_returns_alone_where_nothing_is_won_and_a_run_without_tests_has_one_point(tmp_path):
    folder = put(tmp_path, 1, task=SPREAD, env="gymma", score=-50.0)
    (folder / "metrics.json").write_text(json.dumps({"loss": {"steps": [1, 900], "values": [1.0, 2.0]}}))
    raw = json.loads(marl_eval.document(grouped(tmp_path)))
    check(raw)
    run = raw["gymma"]["simple_spread_lh_paper"]["kd_student"]["seed_1"]
    assert run == {"step_0": {"step_count": 900, "return": [-50.0]}, "absolute_metrics": {"return": [-50.0]}}


def test_a_test_that_was_made_twice_counts_once(tmp_path):
    folder = put(tmp_path, 1, task=SPREAD, env="gymma")
    tests = {"steps": [100, 200, 200, 300], "values": [1.0, 2.0, 2.5, 3.0]}
    (folder / "metrics.json").write_text(json.dumps({"test_return_mean": tests}))
    raw = json.loads(marl_eval.document(grouped(tmp_path)))
    check(raw)
    run = raw["gymma"]["simple_spread_lh_paper"]["kd_student"]["seed_1"]
    assert [run[f"step_{number}"]["return"] for number in range(3)] == [[1.0], [2.5], [3.0]]


def test_the_project_s_evidence_has_that_structure(root):
    check(json.loads(marl_eval.document(grouped(*sorted((root / "evidence").glob("*.json.xz"))))))
