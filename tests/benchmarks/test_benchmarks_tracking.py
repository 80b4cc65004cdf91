"""The benchmark of tracking: turns, their order, and what is counted in them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import tracking


def test_each_way_begins_every_second_pair_and_nothing_counts_before_the_first_turn():
    turns = tracking.Turns(pairs=4, seconds=0.0)
    ends = [turns.end_block(100 * block) for block in range(tracking.WARM + 8)]
    assert ends == [False] * (tracking.WARM + 7) + [True]
    assert [turn["tracked"] for turn in turns.done] == [True, False, False, True, True, False, False, True]
    assert [turn["steps"] for turn in turns.done] == [100] * 8


def test_ratios_are_of_costs_a_step_whichever_turn_came_first():
    def turn(tracked, steps, clock_s, processor_s, own_s=0.0, beats=0):
        return dict(tracked=tracked, steps=steps, clock_s=clock_s, processor_s=processor_s, own_s=own_s, beats=beats)

    found = tracking.ratios(
        [
            turn(True, 100, 10.0, 6.0, own_s=0.3, beats=3),
            turn(False, 200, 10.0, 6.0),
            turn(False, 100, 10.0, 9.0),
            turn(True, 100, 20.0, 9.0, own_s=0.1, beats=1),
        ]
    )
    assert found["clock_ratio"]["median"] == found["clock_ratio"]["min"] == 2.0
    assert (found["processor_ratio"]["min"], found["processor_ratio"]["max"]) == (1.0, 2.0)
    assert found["heartbeat_ms"]["median"] == pytest.approx(100.0)


@pytest.mark.slow
def test_a_short_run_has_all_its_turns(tmp_path, root):
    pytest.importorskip("mongomock")
    file = tmp_path / "found.json"
    words = ["--pairs", "1", "--seconds", "12", "--episodes", "20", "--json", str(file)]
    command = [sys.executable, "benchmarks/tracking.py", *words]
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    on, off = json.loads(file.read_text())["turns"]
    assert (on["tracked"], off["tracked"]) == (True, False)
    assert on["beats"] >= 1
    assert off["beats"] == 0
    assert on["own_s"] > off["own_s"]
    assert "| the processor" in shown
