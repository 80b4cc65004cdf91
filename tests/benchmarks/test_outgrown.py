"""The model of one training on several machines: its terms by hand, and the whole command."""

from __future__ import annotations

import json

import outgrown
import pytest

ROW = {"map": "3m", "agents": 3, "steps_per_s": 1000.0, "steps_per_block": 2000.0}


def test_the_model_is_what_its_formula_says():
    # Four machines: six messages, and one and a half times the bytes.
    assert outgrown.adding_s(4, 1000, 0.01, 100.0) == pytest.approx(6 * 0.01 + 1.5 * 10)
    # Two machines: one second of their own, and four times half a second of adding up.
    assert outgrown.share(2, block_s=2.0, updates=4, each_s=0.5) == pytest.approx(2.0 / (2 * (1.0 + 2.0)))
    assert outgrown.share(1, block_s=2.0, updates=4, each_s=0.0) == 1.0


def test_parameters_are_those_of_the_networks():
    obs, state, actions, agents, width = 75, 72, 8, 3, 16
    actor = (obs + agents) * width + width + 6 * width * (width + 1) + (width + 1) * actions
    critic = (state + agents) * width + width + width * (width + 1) + width + 1
    assert outgrown.parameters("3m", width) == actor + critic


def test_one_command_measures_and_models(tmp_path, capsys):
    scaling, file = tmp_path / "scaling.json", tmp_path / "outgrown.json"
    scaling.write_text(json.dumps({"hidden": 16, "teams": {"rows": [ROW]}}))
    assert outgrown.main(["--scaling", str(scaling), "--gbit", "10", "--machines", "2", "4", "--json", str(file)]) == 0
    row = json.loads(file.read_text())["rows"][0]
    assert 0 < row["measured_ms"] < 1000 and row["block_s"] == 2.0
    assert 0 < row["4 at 10 Gbit/s"] < row["2 at 10 Gbit/s"] < 1
    scaling.write_text("{}")
    assert outgrown.main(["--scaling", str(scaling)]) == 2
    assert "expected what benchmarks/scaling.py --part teams --json" in capsys.readouterr().err
