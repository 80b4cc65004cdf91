"""`kd-marl export`: the bundle says what the run recorded and appears whole or not at all; the rest is refused."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from kd_envs.hetero_mask import naming
from kd_marl.cli import main
from kd_marl.deploy import export as writing
from kd_marl.deploy.check import check_bundle
from kd_onboard.bundle import read_bundle


def export(run, folder, *options):
    return main(["export", str(run), "--to", str(folder), "--no-latency", *options])


def one_line(capsys, prefix="error: "):
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(prefix), lines
    return lines[0]


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_profile_repeats_what_the_run_recorded(tiny_student, tiny_bundle):
    check_bundle(tiny_bundle)
    profile = json.loads((tiny_bundle / "profile.json").read_text())
    summary = json.loads((tiny_student.record / "summary.json").read_text())
    facts = json.loads((tiny_student.checkpoint / "checkpoint.json").read_text())
    buffer = json.loads((tiny_student.buffer / "buffer.json").read_text())
    assert profile["measured"]["student"] == {**summary["student"], "episodes": summary["episodes"]}
    assert [agent["width"] for agent in profile["agents"]] == summary["widths"] == [8, 12]
    assert [agent["inputs"] for agent in profile["agents"]] == summary["inputs"]
    assert np.mean([agent["parameters"] for agent in profile["agents"]]) == summary["params_student"]
    assert (
        np.mean([agent["flops_per_decision"] for agent in profile["agents"]]) == summary["flops_per_decision_student"]
    )
    assert profile["task"]["episode_limit"] == buffer["episode_limit"]
    assert profile["provenance"]["teacher"]["sha256"] == facts["teacher"]["sha256"]
    assert facts["teacher"]["path"].endswith(profile["provenance"]["teacher"]["path"])
    assert profile["provenance"]["buffer"]["episodes"] == buffer["episodes"]
    assert profile["provenance"]["seed"] == 1


def test_the_profile_names_what_each_agent_sees_and_does(tiny_bundle):
    speaker, listener = read_bundle(tiny_bundle).agents
    own = [f"own_action.{action}" for action in range(5)]
    assert [feature.name for feature in speaker.features] == ["G.red", "G.green", "G.blue", *own]
    assert speaker.actions == ("say_0", "say_1", "say_2", None, None) and speaker.noop_action is None
    assert [feature.name for feature in listener.features] == ["V.x", "V.y", "M0.0", "M0.1", "M0.2", *own]
    assert [feature.index for feature in listener.features] == [0, 1, 8, 9, 10, *range(11, 16)]
    assert [feature.unit for feature in listener.features] == ["world units/s"] * 2 + ["1"] * 8
    assert listener.actions[listener.noop_action] == "no_action"
    assert speaker.role.endswith("of 2") and listener.role.endswith("of 2")


@pytest.mark.parametrize("env", ["sc2", "sc2v2", "smaclite", "smax"])
def test_every_starcraft_has_names_for_its_actions_and_one_that_does_nothing(env):
    moves = 5 if env == "smax" else 6
    names = naming.action_names(env, "3m", "agent_0", moves + 3)
    assert names[moves:] == ["target_0", "target_1", "target_2"]
    assert names[naming.noop_action(names)] == "stop"


def test_any_of_its_folders_names_the_student(tiny_student, tiny_bundle, tmp_path):
    expected = {path: data for path, data in files_of(tiny_bundle).items() if path != "profile.json"}
    for index, run in enumerate((tiny_student.record, tiny_student.checkpoint)):
        assert export(run, tmp_path / str(index)) == 0
        found = files_of(tmp_path / str(index))
        assert {path: data for path, data in found.items() if path != "profile.json"} == expected


REFUSED = {
    "is a teacher, and a student was expected": lambda student: student.teacher,
    "is a run of kd_teacher": lambda student: next(student.results.glob("sacred/kd_teacher/*/1")),
    "there is no folder": lambda student: student.results / "nothing",
    "holds no student": lambda student: student.buffer,
    "saved in the middle of its run": lambda student: (
        min(student.models.glob("*/checkpoint.json"), key=lambda file: int(file.parent.name)).parent
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_no_finished_student_is_refused_in_one_line(tiny_student, tmp_path, capsys, message):
    run = REFUSED[message](tiny_student)
    if message == "is a run of kd_teacher" and not (run / "summary.json").is_file():
        copy = tmp_path / "results" / "sacred" / "kd_teacher" / "task" / "1"
        shutil.copytree(run, copy)
        (copy / "summary.json").write_text("{}")
        run = copy
    assert export(run, tmp_path / "bundle") == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "bundle").exists()


def moved(student, tmp_path):
    """A copy of the student's results that a test may damage."""
    results = tmp_path / "results"
    for folder in (student.record, student.models):
        shutil.copytree(folder, results / folder.relative_to(student.results))
    return results / student.record.relative_to(student.results), results / student.models.relative_to(student.results)


DAMAGE = {
    "summary.json) of": lambda record, steps: (record / "summary.json").unlink(),
    "agent.th is missing": lambda record, steps: (steps / "agent.th").unlink(),
    "agent.th is damaged": lambda record, steps: (steps / "agent.th").write_bytes(b"no tensors"),
    "agent.th does not fit its checkpoint.json": lambda record, steps: (steps / "checkpoint.json").write_text(
        (steps / "checkpoint.json").read_text().replace('"widths": [\n    8,', '"widths": [\n    9,')
    ),
    "training.th is missing": lambda record, steps: (steps / "training.th").unlink(),
    "config.json is damaged": lambda record, steps: (record / "config.json").write_text("{"),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_an_incomplete_or_damaged_run_is_refused_in_one_line(tiny_student, tmp_path, capsys, message):
    record, models = moved(tiny_student, tmp_path)
    DAMAGE[message](record, models / tiny_student.checkpoint.name)
    assert export(models, tmp_path / "bundle") == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "bundle").exists()


def test_without_the_expert_buffer_there_is_no_int8_and_no_role(tiny_student, tmp_path, capsys):
    _, models = moved(tiny_student, tmp_path)
    assert export(models, tmp_path / "bundle") == 0
    assert "no expert buffer was found" in capsys.readouterr().out
    profile = json.loads((tmp_path / "bundle" / "profile.json").read_text())
    assert profile["provenance"]["buffer"] is None
    for agent in profile["agents"]:
        assert (agent["onnx_int8"], agent["int8_agreement"], agent["role"]) == (None, None, "unknown")
    # The same, told where it is.
    assert export(models, tmp_path / "bundle", "--force", "--buffer", str(tiny_student.buffer)) == 0
    profile = json.loads((tmp_path / "bundle" / "profile.json").read_text())
    assert all(agent["int8_agreement"] is not None for agent in profile["agents"])


def test_a_buffer_of_another_teacher_is_refused(tiny_student, tmp_path, capsys):
    copy = tmp_path / "buffer"
    shutil.copytree(tiny_student.buffer, copy)
    text = (copy / "buffer.json").read_text()
    facts = json.loads(text)
    facts["teacher"]["sha256"]["agent.th"] = "0" * 64
    (copy / "buffer.json").write_text(json.dumps(facts))
    assert export(tiny_student.models, tmp_path / "bundle", "--buffer", str(copy)) == 2
    assert "give the one that this student" in one_line(capsys)


def test_noop_is_refused_where_an_agent_cannot_do_nothing_before_anything_is_played(
    tiny_student, tmp_path, capsys, monkeypatch
):
    from kd_marl.deploy import sensors

    monkeypatch.setattr(sensors, "measure", lambda *_: pytest.fail("played"))
    options = ["--on-fault", "noop", "--measure-sensors", "9"]
    assert export(tiny_student.models, tmp_path / "bundle", *options) == 2
    assert "agent 'speaker_0'" in one_line(capsys)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_exists_is_replaced_only_on_demand_and_only_if_it_is_a_bundle(
    tiny_student, tiny_bundle, tmp_path, capsys
):
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    assert export(tiny_student.models, folder, "--no-int8") == 2
    assert "--force to replace" in one_line(capsys)
    assert files_of(folder) == files_of(tiny_bundle)
    (folder / "weights" / "stranger").touch()
    assert export(tiny_student.models, folder, "--no-int8", "--force") == 0
    assert not (folder / "weights" / "stranger").exists() and check_bundle(folder)
    capsys.readouterr()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").touch()
    assert export(tiny_student.models, mine, "--force") == 2
    assert "replaces nothing else" in one_line(capsys)
    assert (mine / "thesis.tex").exists()


@pytest.mark.parametrize("force", [False, True])
def test_an_export_that_fails_leaves_what_was_there(tiny_student, tiny_bundle, tmp_path, monkeypatch, force):
    folder = tmp_path / "bundle"
    if force:
        shutil.copytree(tiny_bundle, folder)
    before = files_of(tmp_path)

    def fail(*_):
        raise RuntimeError("the power went")

    monkeypatch.setattr(writing.check, "check_bundle", fail)
    with pytest.raises(RuntimeError):
        export(tiny_student.models, folder, *(["--force"] if force else []))
    assert files_of(tmp_path) == before


@pytest.mark.skipif(
    "EPYMARL_HOME" in os.environ, reason="EPyMARL's gymma plays other episodes of a seed than the bundled"
)
def test_sensors_are_measured_in_the_student_s_own_episodes(tiny_student, tmp_path):
    summary = json.loads((tiny_student.record / "summary.json").read_text())
    episodes = summary["episodes"]
    assert export(tiny_student.models, tmp_path / "bundle", "--no-int8", "--measure-sensors", str(episodes)) == 0
    speaker, listener = json.loads((tmp_path / "bundle" / "profile.json").read_text())["agents"]
    assert [sensor["block"] for sensor in speaker["sensors"]] == ["G"]
    assert [sensor["block"] for sensor in listener["sensors"]] == ["V", "M"]
    for sensor in (*speaker["sensors"], *listener["sensors"]):
        # Played behind the mask there, behind the controller's here: the same episodes and actions.
        assert sensor["return_with"] == pytest.approx(summary["student"]["return_mean"], abs=1e-4)
        assert sensor["episodes"] == episodes


def test_latencies_are_measured_through_the_runtime(tiny_student, tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ONBOARD_CACHE", str(tmp_path / "compiled"))
    assert main(["export", str(tiny_student.models), "--to", str(tmp_path / "bundle"), "--no-int8"]) == 0
    profile = json.loads((tmp_path / "bundle" / "profile.json").read_text())
    assert profile["provenance"]["machine"]["processor"]
    for agent in profile["agents"]:
        expected = {"numpy", "onnx", "c"} if shutil.which("cc") else {"numpy", "onnx"}
        assert set(agent["latency"]) == expected, "int8 was left out"
        for times in agent["latency"].values():
            assert 0 < times["low_us"] <= times["median_us"] <= times["high_us"] < 1e5
