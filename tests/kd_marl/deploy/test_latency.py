"""`benchmarks/latency.py`: pairs and quartiles by hand, and the whole command on a small task."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import onboard_bundles  # puts benchmarks/ on the path

# isort: split
import latency
import latency_c
import latency_teams
import measured

from kd_core.costs.flops import closed_formula
from kd_onboard.backend import make_backend
from kd_onboard.bundle import read_bundle
from smac_layouts import smac_layout

SPREAD, BATTLE = latency_teams.SIZES


def test_every_subject_is_timed_once_a_round_in_blocks_of_its_own_length():
    calls = []

    def subject(name, seconds):
        def run(decisions):
            calls.append((name, decisions))
            return seconds * decisions

        return run

    found = latency.interleave([subject("fast", 0.001), subject("slow", 0.1)], rounds=3, block_s=0.01)
    np.testing.assert_allclose(found, [[0.001, 0.1]] * 3)
    rounds = calls[8:]
    assert sorted(rounds) == [("fast", 10)] * 3 + [("slow", 1)] * 3
    assert [{name for name, _ in rounds[i : i + 2]} for i in (0, 2, 4)] == [{"fast", "slow"}] * 3


def test_the_spread_is_median_and_quartiles():
    found = measured.spread(np.array([4.0, 1.0, 2.0, 3.0, 5.0]))
    assert found == {"min": 1.0, "low": 2.0, "median": 3.0, "high": 4.0, "max": 5.0}
    assert measured.cell(found) == "3 (2 to 4)"


def test_the_network_of_one_agent_alone_is_that_of_the_team(monkeypatch):
    """EPyMARL's call in a team of one must not be cheaper because its input is shorter."""
    size, built = SPREAD, []
    plain = latency_teams.HOST.controllers["basic_mac"]

    def build(*words):
        built.append(plain(*words))
        return built[-1]

    monkeypatch.setitem(latency_teams.HOST.controllers, "basic_mac", build)
    for count in (1, size.n_agents):
        assert latency_teams.host_timed(size, 32, count)(3) > 0
    shapes = [[tuple(p.shape) for p in mac.agent.parameters()] for mac in built]
    assert shapes[0] == shapes[1] and shapes[0][0] == (32, size.teacher_inputs)


def test_8ms_features_are_those_of_starcraft():
    assert latency_teams.layout_of(BATTLE) == smac_layout("8m")


@pytest.mark.parametrize(
    ("size", "limits", "inputs", "widths", "widest"),
    [
        (SPREAD, "fo", [18] * 3, [20] * 3, 0),
        (SPREAD, "lha", [10, 2, 2], [32, 16, 16], 0),
        (BATTLE, "fo", [80] * 8, [20] * 8, 0),
        # Blocks of the paper's Table I: moves 4, enemies 40, allies 35, own 1.
        (BATTLE, "lh", [44, 44, 44, 39, 39, 45, 40, 79], [20] * 8, 7),
        (BATTLE, "lha", [44, 44, 44, 39, 39, 45, 40, 79], [24, 24, 24, 16, 16, 32, 24, 32], 7),
    ],
)
def test_each_student_has_its_own_features_and_width(size, limits, inputs, widths, widest):
    team = latency_teams.students(size, limits, width=20)
    assert (list(team.inputs), list(team.widths), team.widest) == (inputs, widths, widest)


def test_flops_of_a_battle_under_lh_by_hand():
    team = latency_teams.students(BATTLE, "lh", width=32)
    # Multiply-adds that do not depend on the features: biases and ReLU, GRU with 13 element-wise terms a unit, head.
    fixed = 32 + 32 + (6 * 32 * 32 + 13 * 32) + (32 * 14 + 14)
    assert team.flops([7]) == 2 * (79 * 32 + fixed) == 19_228
    assert team.flops(range(8)) == 2 * (374 * 32 + 8 * fixed) == 137_312


def test_the_torch_student_is_built_from_each_agents_view(monkeypatch):
    team, built, plain = latency_teams.students(BATTLE, "lha", 32), [], latency_teams.HeteroMAC
    monkeypatch.setattr(latency_teams, "HeteroMAC", lambda *words: built.append(plain(*words)) or built[-1])
    for agents in (range(8), [7]):
        assert latency_teams.student_timed(team, agents)(2) > 0
        mac = built[-1]
        assert [mac.mask.indices(i) for i in range(mac.n_agents)] == [team.mask.indices(i) for i in agents]
        assert list(mac.agent.widths) == [team.widths[i] for i in agents]


@pytest.mark.parametrize("chosen", [[0, 1, 2], [2, 0], [1]])
def test_the_c_harness_gives_each_agent_its_own_row(tmp_path, chosen):
    bundle = read_bundle(onboard_bundles.write_bundle(tmp_path / "bundle"))
    agents, rng, steps = [bundle.agents[i] for i in chosen], np.random.default_rng(0), 40
    features = [rng.standard_normal((steps, agent.inputs)).astype(np.float32) for agent in agents]
    available = rng.random((steps, len(agents), onboard_bundles.ACTIONS)) < 2 / 3
    available[..., 0] = True
    assert [agent.inputs for agent in agents] == [len(onboard_bundles.SEEN[i]) for i in chosen]

    run = latency_c.decided(latency_c.library(bundle, agents, "o2", tmp_path), features, available)
    # Each call begins an episode, so what one more decision adds are the actions of that step.
    in_c = np.diff([run(decisions)[1] for decisions in range(steps + 1)])
    for name in ("numpy", "onnx"):
        chose = np.zeros((steps, len(agents)), int)
        for i, agent in enumerate(agents):
            backend = make_backend(bundle, agent, name)
            for step in range(steps):
                backend.features[:], backend.available[:] = features[i][step], available[step, i]
                chose[step, i] = backend.decide()
        np.testing.assert_array_equal(in_c, chose.sum(1))
    assert len(set(in_c)) > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "seen", "widths"), [("fo", [18, 18, 18], [24, 24, 24]), ("lha", [10, 2, 2], [32, 16, 16])]
)
def test_one_command_measures_everything(tmp_path, root, limits, seen, widths):
    file = tmp_path / "latency.json"
    words = ["--json", str(file), "--rounds", "3"]
    words += ["--width", "24", "--size", "spread", "--limits", limits]
    environment = {key: value for key, value in os.environ.items() if key != "EPYMARL_HOME"}
    done = subprocess.run(
        [sys.executable, str(root / "benchmarks" / "latency.py"), *words],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    task = found["tasks"]["spread"]
    flops = [closed_formula(inputs, width, 5) for inputs, width in zip(seen, widths, strict=True)]
    for scope, expected in (("agent", flops[0]), ("team", sum(flops))):
        assert {"epymarl_student_width", "numpy_session", "teacher_onnx"} < set(task[scope])
        assert task[scope]["teacher_onnx"]["speedup_vs_teacher_onnx"]["median"] == 1.0
        for name in ("torch", "numpy", "onnx_session", "int8", "ctypes", "c_o2", "c_o3"):
            assert task[scope][name]["flops"] == expected
        for level in ("o2", "o3"):
            # A loose bound: that C is timed and not a function that does nothing, and not in another unit.
            assert 0.01 < task[scope][f"c_{level}"]["us"]["median"] < 20
            assert task[scope][f"c_{level}"]["speedup_vs_epymarl"]["median"] > 20
    outside = {scope: us["max"] for scope, us in task["outside_c_us"].items()}
    # Within a round, so no more than the slowest call of all.
    assert all(0 < us < task[scope]["ctypes"]["us"]["max"] for scope, us in outside.items())
    assert "Microseconds that backend c spends outside the C: agent " in done.stdout
    # Faster than the cache can give is no measurement, nor is a hundredth of it.
    assert 0.01 < task["cache_share"]["median"] < 1 and "of what the first-level cache gives: 0." in done.stdout
    assert task["team"]["epymarl_teacher"]["flops"] == 3 * closed_formula(21, 256, 5)
    assert task["agent"]["c_o3"]["flops_ratio"] == pytest.approx(3 * closed_formula(21, 256, 5) / flops[0])
    assert task["team"]["c_o3"]["flops_ratio"] == pytest.approx(3 * closed_formula(21, 256, 5) / sum(flops))
    assert task["team"]["epymarl_student_width"]["flops"] == 3 * closed_formula(21, 24, 5)
    assert task["students"] == {"inputs": seen, "widths": widths, "one_agent": 0}
    assert found["limits"] == limits and f"### spread, limits {limits}: students of " in done.stdout
    assert f"students of {tuple(seen)} features and widths {tuple(widths)}, one agent is agent 0" in done.stdout
    assert found["host"]["name"] == "epymarl_lite" and "| epymarl_teacher " in done.stdout
    assert not (Path(tmp_path) / "results").exists()
