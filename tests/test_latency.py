"""`benchmarks/latency.py`: pairs and quartiles by hand, and the whole command on a small task."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import onboard_bundles  # noqa: F401 - puts benchmarks/ on the path

# isort: split
import latency
import latency_page
import latency_process
import latency_teams

from kd_marl.metrics.flops import closed_formula


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
    assert latency.spread(np.array([4.0, 1.0, 2.0, 3.0, 5.0])) == {"median": 3.0, "low": 2.0, "high": 4.0}


def test_the_headline_is_the_worst_task_with_its_ratio_of_flops():
    def task(speed, ratio):
        entry = {
            "speedup_vs_epymarl": {"median": speed},
            "speedup_vs_epymarl_alone": {"median": speed / 2},
            "flops_ratio": ratio,
        }
        pair = {"median": speed / 100, "flops_ratio": ratio / 3}
        return {
            "agent": {"epymarl_teacher": {}, "c_o3": entry, "student_onnx_vs_teacher_onnx": pair},
            "team": {"epymarl_teacher": {}, "c_o3": entry, "student_onnx_vs_teacher_onnx": pair},
        }

    found = latency.headline({"a": task(900.0, 30.0), "b": task(600.0, 60.0)})
    assert found["agent_c_o3_speedup_vs_epymarl"] == found["team_c_o3_speedup_vs_epymarl"] == 600.0
    assert found["team_c_o3_flops_ratio_vs_epymarl"] == 60.0
    assert found["agent_c_o3_speedup_vs_epymarl_alone"] == 300.0
    assert (found["student_onnx_vs_teacher_onnx"], found["student_onnx_vs_teacher_onnx_flops_ratio"]) == (6.0, 20.0)


def test_the_network_of_one_agent_alone_is_that_of_the_team(monkeypatch):
    """EPyMARL's call in a team of one must not be cheaper because its input is shorter."""
    size, built = latency_teams.SIZES[0], []
    plain = latency_teams.HOST.controllers["basic_mac"]

    def build(*words):
        built.append(plain(*words))
        return built[-1]

    monkeypatch.setitem(latency_teams.HOST.controllers, "basic_mac", build)
    for count in (1, size.n_agents):
        assert latency_teams.host_timed(size, 32, count)(3) > 0
    shapes = [[tuple(p.shape) for p in mac.agent.parameters()] for mac in built]
    assert shapes[0] == shapes[1] and shapes[0][0] == (32, size.teacher_inputs)


def test_energy_is_a_share_of_what_the_meter_says_or_absent(tmp_path, monkeypatch):
    meter = tmp_path / "energy_uj"
    assert latency_process.energy_uj(lambda decisions: 0.001 * decisions, meter) is None
    meter.write_text("0\n")
    monkeypatch.setattr(latency_process, "_ENERGY_S", 0.02)

    def run(decisions):
        # 3 microjoules a decision.
        meter.write_text(str(int(meter.read_text()) + 3 * decisions))
        return 0.001 * decisions

    assert latency_process.energy_uj(run, meter) == pytest.approx(3.0)


def test_a_programs_start_and_peak_memory_are_its_own(tmp_path):
    ballast = np.ones(20 << 20, np.uint8)
    code = (
        "import sys; x = bytearray(%d << 20); x[::4096] = b'1' * len(x[::4096]); print(1, flush=True); sys.stdin.read()"
    )
    small, large = (
        latency_process.process([sys.executable, "-S", "-c", code % size], tmp_path, starts=2) for size in (1, 41)
    )
    assert ballast.all() and 35 < large["memory_mib"] - small["memory_mib"] < 45
    assert small["memory_mib"] < 20 and 1 < small["start_ms"] < 10_000
    with pytest.raises(SystemExit, match="ended with status 3"):
        latency_process.process([sys.executable, "-c", "raise SystemExit(3)"], tmp_path, starts=1)


def test_one_command_measures_everything(tmp_path, root):
    file = tmp_path / "latency.json"
    words = ["--json", str(file), "--rounds", "3", "--starts", "0", "--width", "16", "--size", "spread"]
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
    for scope, count in (("agent", 1), ("team", 3)):
        assert set(task[scope]) == {*latency_page.ROWS, "student_onnx_vs_teacher_onnx"}
        assert task[scope]["c_o3"]["flops"] == count * closed_formula(18, 16, 5)
        for level in ("o2", "o3"):
            # A loose bound: that C is timed and not a function that does nothing, and not in another unit.
            assert 0.01 < task[scope][f"c_{level}"]["us"]["median"] < 20
            assert found[f"{scope}_c_{level}_speedup_vs_epymarl"] > 20
    assert task["team"]["epymarl_teacher"]["flops"] == 3 * closed_formula(21, 256, 5)
    assert task["agent"]["c_o3"]["flops_ratio"] == pytest.approx(
        3 * closed_formula(21, 256, 5) / closed_formula(18, 16, 5)
    )
    assert found["host"]["name"] == "epymarl_lite" and "epymarl_lite, teacher of width 256" in done.stdout
    assert not (Path(tmp_path) / "results").exists()
