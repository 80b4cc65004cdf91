"""`benchmarks/talking.py`: the whole command, on few rounds."""

from __future__ import annotations

import json

import pytest
import talking

from kd_core.costs.flops import closed_formula


def test_talking_students_are_timed_beside_silent_ones(tmp_path, capsys):
    file = tmp_path / "talking.json"
    assert talking.main(["--rounds", "3", "--width", "8", "--message-bits", "5", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [(row["compiler"], row["bits"]) for row in rows] == [("o2", 0), ("o3", 0), ("o2", 5), ("o3", 5)]
    # Agent 0 sees landmarks and team mates, hears two agents and is heard.
    silent, talks = closed_formula(10, 8, 5), closed_formula(10, 8, 5, inbox=10, outbox=5)
    assert [row["FLOPs"] for row in rows] == [silent, silent, talks, talks]
    assert [row["times the FLOPs"] for row in rows[2:]] == pytest.approx([talks / silent] * 2)
    assert all(row["times as long"]["median"] == 1.0 for row in rows[:2])
    assert all(0.001 < row["us"]["median"] < 20 for row in rows)
    assert "| o3       | 5    |" in capsys.readouterr().out
