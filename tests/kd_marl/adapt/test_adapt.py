"""`kd-marl adapt`: a student whose sensors have died, from its measurement to its bundle."""

from __future__ import annotations

import json

import pytest
import torch

from kd_core.files import file_sha256
from kd_core.metrics.retention import retention
from kd_marl.cli import main
from kd_marl.runs.student_run import load_student

# Of simple_speaker_listener's blocks the listener sees M and V under the paper's masks.
DEAD = ["--masks", "listener_0: [M]"]


@pytest.mark.slow
def test_a_failure_is_measured_and_the_adapted_student_names_its_ancestor(tiny_student, capfd):
    former = load_student(tiny_student.record)
    command = ["adapt", str(tiny_student.record), *DEAD, "--steps", "40"]
    assert main(command) == 0
    said = capfd.readouterr().out
    record = next(tiny_student.results.glob("sacred/**/adapt.json")).parent
    assert f"written to {record / 'adapt.json'}" in said
    facts, adapted = json.loads((record / "adapt.json").read_text()), load_student(record)
    assert facts["before"]["return_mean"] == former.summary["student"]["return_mean"]
    assert facts["adapted"]["return_mean"] == adapted.summary["student"]["return_mean"]
    heads = [student.network.agent_network(1).fc2.weight for student in (former, adapted)]
    assert not torch.equal(*heads)
    # In the same episodes as before, so beside the same teacher.
    failed = facts["failed"]["return_mean"], former.summary["teacher"]["return_mean"]
    assert facts["failed"]["retention"] == pytest.approx(retention(*failed, win_rate=False))
    assert (facts["steps"], facts["episodes"]) == (40, 8)
    assert adapted.network.widths == former.network.widths
    assert adapted.mask.names(0) == former.mask.names(0)
    assert [name[:2] for name in adapted.mask.names(1)[:3]] == ["M0"] * 3
    profile = json.loads((record / "bundle" / "profile.json").read_text())
    assert profile["provenance"]["ancestor"]["sha256"] == file_sha256(former.checkpoint / "agent.th")
    assert profile["provenance"]["ancestor"]["path"] == "/".join(former.checkpoint.parts[-2:])
    assert main(["bundle", "check", str(record / "bundle")]) == 0

    capfd.readouterr()
    assert main([*command, "--no-bundle"]) == 0
    again = capfd.readouterr()
    assert "Beginning training" not in again.out + again.err
    assert f"written to {record / 'adapt.json'}" in again.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--masks", "listener_0: []"], "the mask hides everything from agent 'listener_0'"),
        (["--masks", "1: [M, V]"], "changes nothing that an agent sees"),
        (["--masks", "2: [M]"], "has agents 0 to 1"),
        ([*DEAD, "--steps", "0"], "--steps is 0: give at least 1"),
        ([*DEAD, "with", "limits=fo"], "adapt sets limits itself: give --masks"),
    ],
)
def test_what_cannot_be_adapted_is_one_line(tiny_student, capsys, options, message):
    assert main(["adapt", str(tiny_student.record), *options]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("error: ") and message in said[0]
