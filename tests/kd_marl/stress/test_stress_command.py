"""`kd-marl stress`: what is measured of teacher and student under disturbances, and the command."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import shutil
import signal
import sys
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kd_core.host import get_host
from kd_marl.cli import main

HOST = get_host()  # before anything of ours asks the host for its classes

from epymarl_lite.runners.worker_pool import WorkerPool  # noqa: E402
from kd_core.errors import UserError  # noqa: E402
from kd_core.places import ZOO  # noqa: E402
from kd_marl.stress import measure, page  # noqa: E402
from kd_marl.stress.disturbances import Dropout, Noise, feature_groups  # noqa: E402
from kd_marl.stress.envs import Trouble  # noqa: E402
from kd_marl.stress.plan import Trial  # noqa: E402
from kd_marl.stress.scores import Scores, retention_of  # noqa: E402
from kd_runners import environments  # noqa: E402
from tiny_students import make_learner  # noqa: E402

# ---- what is measured -----------------------------------------------------------------------------------------------


def scores(values, wins=True):
    values = np.asarray(values, float)
    return Scores(values, values if wins else np.full(len(values), np.nan))


def test_a_row_has_the_retention_of_both_teachers():
    whole, teacher, student = (scores([1] * won + [0] * (100 - won)) for won in (80, 60, 45))
    found = measure.row(Trial("delay", "delay 1", 1.0, "3m"), teacher, student, whole)
    assert (found["teacher_mean"], found["student_mean"], found["episodes"]) == (0.6, 0.45, 100)
    assert found["retention_undisturbed"] == pytest.approx(45 / 80)
    assert found["retention_disturbed"] == pytest.approx(45 / 60)
    assert found["retention_teacher"] == pytest.approx(60 / 80)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    returns = measure.row(Trial("none", "none", None, "t"), *(scores([-v, -v - 2], wins=False) for v in (9, 19, 9)))
    assert returns["retention_disturbed"] == pytest.approx(1 - 10 / 10)
    assert returns["teacher_mean"] == returns["teacher_return"] == -10


def test_the_interval_of_a_retention_is_that_of_a_ratio_of_paired_means():
    rng = np.random.default_rng(4)
    teacher = (rng.random(800) < 0.8).astype(float)
    student = np.where(rng.random(800) < 0.7, teacher, rng.random(800) < 0.4).astype(float)
    share, low, high = retention_of(scores(student), scores(teacher))
    # The delta method, which knows the covariance of the pairs.
    ratio = student.mean() / teacher.mean()
    half = 1.96 * (student - ratio * teacher).std() / teacher.mean() / math.sqrt(800)
    assert share == pytest.approx(ratio)
    assert (low, high) == pytest.approx((ratio - half, ratio + half), abs=0.15 * half)


def test_the_retention_where_nothing_is_won():
    none, some = scores([0] * 50), scores([1, 0] * 25)
    assert retention_of(some, none) == (None, None, None)
    share, low, high = retention_of(none, some)
    # Wilson's upper end for 0 of 50, over the other's 0.5.
    assert (share, low, high) == (0.0, 0.0, pytest.approx(1.96**2 / (50 + 1.96**2) / 0.5, rel=1e-4))
    assert retention_of(scores([1.0]), scores([1.0])) == (1.0, None, None)


def match_of(learner, results, episodes=6, batch=4, **changes):
    """A match of a toy student and the toy teacher."""
    from kd_core.artifacts.teacher import load_teacher

    run = SimpleNamespace(mask=learner.mac.mask, network=learner.mac.agent)
    args = SimpleNamespace(**{**vars(learner.args), **changes})
    task = learner.context.task
    return measure.Match(HOST, run, args, task, load_teacher(results / "teacher"), episodes, batch)


@pytest.fixture
def match(learner, results):
    return match_of(learner, results)


def test_no_disturbance_scores_as_the_evaluation_does(learner, results):
    from kd_marl.evaluation.evaluator import evaluate

    args = SimpleNamespace(**{**vars(learner.args), "runner": "vector"})
    summary, _ = evaluate(HOST, args, learner.context, learner.compared())
    match = match_of(learner, results, args.eval_episodes, args.batch_size_run)
    for make, name in ((match.teacher_mac, "teacher"), (match.student_mac, "student")):
        played = match.play(make, Trouble(), "")
        assert played.returns.mean() == pytest.approx(summary[name]["return_mean"], abs=1e-6)
        assert not played.has_wins


def test_with_every_sensor_lost_the_policy_sees_zeros_only(match):
    seen = []
    every = Trouble(Dropout(feature_groups(match.layout), 1.0))
    for make in (match.teacher_mac, match.student_mac):
        match.play(make, every, "", watch=seen.append)
    assert sum(len(episodes.length) for episodes in seen) == 12
    assert all(not episodes.obs.any() for episodes in seen)
    assert all(episodes.state.any() and episodes.avail_actions.any() for episodes in seen)


def test_teacher_and_student_meet_the_same_episodes_and_the_same_noise(match):
    seen = {}
    noise = Trouble(Noise(np.ones((2, 5)), 0.5))
    for make in (match.teacher_mac, match.student_mac):
        blocks = seen[make.__name__] = []
        match.play(make, noise, "", watch=lambda episodes, blocks=blocks: blocks.append(episodes))
    # The toy task does not react to actions, so all of it is the same.
    for ours, theirs in zip(*seen.values(), strict=True):
        assert torch.equal(ours.obs, theirs.obs)


def test_a_dead_agent_only_ever_does_nothing(match):
    actions = []
    for dead, idle in ((0, 1), (1, None)):
        match.play(match.student_mac, Trouble(dead=dead, idle=idle), "", watch=actions.append)
        for episodes in actions:
            taken = episodes.actions[:, :, dead][episodes.filled.squeeze(-1) > 0]
            assert (taken == (idle or 0)).all()
        actions.clear()


def test_a_failing_radio_leaves_a_talker_what_arrives(results, tmp_path):
    learner = make_learner(results, tmp_path, message_bits=4)
    with torch.no_grad():  # Outputs that the messages decide.
        for parameter in learner.mac.parameters():
            parameter.mul_(4.0)
    match = match_of(learner, results, episodes=40, batch=20)

    def actions(make):
        played = []
        match.play(make, Trouble(), "", watch=lambda episodes: played.append(episodes.actions))
        return torch.cat(played)

    whole = actions(match.student_mac)
    assert torch.equal(actions(match.student_under(Trouble())), whole)
    # Two agents: with either jammed, or all messages lost, nobody hears anything.
    deaf = actions(match.student_under(Trouble(message_loss=1.0)))
    assert torch.equal(actions(match.student_under(Trouble(jammed=0))), deaf)
    assert torch.equal(actions(match.student_under(Trouble(jammed=1))), deaf)
    assert torch.equal(deaf[:, 0], whole[:, 0]) and not torch.equal(deaf, whole)
    some = actions(match.student_under(Trouble(message_loss=0.5)))
    assert not torch.equal(some, whole) and not torch.equal(some, deaf)
    # Three steps later than after one step is never, in episodes of four.
    late = actions(match.student_under(Trouble(message_delay=3)))
    assert torch.equal(late, deaf) and not torch.equal(actions(match.student_under(Trouble(message_delay=1))), deaf)


def test_the_spread_is_the_standard_deviation_over_the_steps_of_living_agents(match):
    spread, rows = measure.Spread(2, 5), [[], []]

    def watch(episodes):
        spread.add(episodes)
        for e, length in enumerate(episodes.length.tolist()):
            for t in range(length):
                for i in range(2):
                    if episodes.avail_actions[e, t, i].sum() > 1:
                        rows[i].append(episodes.obs[e, t, i].numpy().astype(np.float64))

    match.play(match.teacher_mac, Trouble(), "", watch=watch)
    np.testing.assert_allclose(spread.std(), [np.std(agent, axis=0) for agent in rows], atol=1e-7)
    assert len(rows[0]) > len(rows[1]) > 5


def test_the_runner_leaves_no_trace_in_the_host(match):
    before = dict(HOST.runners)
    match.play(match.teacher_mac, Trouble(), "")
    assert HOST.runners == before


# ---- the command ----------------------------------------------------------------------------------------------------

FEW = ["--episodes", "6", "--dropout", "0", "0.5", "--noise", "0", "0.5", "--delay", "0", "2", "--dead", "listener_0"]
NOTHING = ["--dropout", "--noise", "--delay", "--dead", "--maps"]
NAMES = ["none", "dropout 0", "dropout 0.5", "noise 0", "noise 0.5", "delay 0", "delay 2", "dead listener_0"]


@pytest.fixture
def student(tiny_student, tmp_path, monkeypatch):
    """A copy of the tiny student's run; its worlds are stepped in worker processes, with or without JAX installed."""
    monkeypatch.setattr(environments, "BATCHED", {})
    for name in ("sacred", "models"):
        shutil.copytree(tiny_student.results / name, tmp_path / name)
    # So little training leaves policies that always act the same: here are two that react to what they see.
    checkpoint = tmp_path / tiny_student.checkpoint.relative_to(tiny_student.results)
    generator = torch.Generator().manual_seed(1)
    weights = torch.load(checkpoint / "agent.th", weights_only=True)
    torch.save({k: torch.randn(v.shape, generator=generator) for k, v in weights.items()}, checkpoint / "agent.th")
    facts, zoo = json.loads((checkpoint / "checkpoint.json").read_text()), ZOO / tiny_student.record.parent.name
    facts["teacher"] = {"path": str(zoo), "sha256": json.loads((zoo / "teacher.json").read_text())["sha256"]}
    (checkpoint / "checkpoint.json").write_text(json.dumps(facts))
    record = tmp_path / tiny_student.record.relative_to(tiny_student.results)
    summary = json.loads((record / "summary.json").read_text())
    (record / "summary.json").write_text(json.dumps({**summary, "teacher_artifact": facts["teacher"]}))
    return record


def stress(run, *options):
    return main(["stress", str(run), *FEW, *options])


def content(student):
    return json.loads((student / "stress.json").read_text())


@pytest.mark.skipif(not HOST.is_bundled, reason="a checkout has runners of its own")
def test_a_worker_that_is_killed_is_one_line(student, capsys, monkeypatch):
    whole = WorkerPool.reset

    def reset(pool, *arguments):
        os.kill(pool.processes[0].pid, signal.SIGKILL)
        return whole(pool, *arguments)

    monkeypatch.setattr(WorkerPool, "reset", reset)
    assert stress(student, "with", "batch_size_run=3") == 2
    _, err = capsys.readouterr()
    assert re.search(r"^error: the worker of environments? 0.* ended by signal 9", err, re.MULTILINE)
    assert not (student / "stress.json").exists()


def test_the_command_writes_the_result_the_page_and_the_figure(student, capsys):
    assert stress(student, "with", "batch_size_run=3") == 0
    out, err = capsys.readouterr()
    found = content(student)
    rows = {entry["name"]: entry for entry in found["rows"]}
    assert list(rows) == NAMES
    assert (found["measures"], found["episodes"], found["batch"]) == ("return", 6, 3)
    (line,) = found["commands"]
    assert line.startswith("kd-marl stress ") and line.endswith("with batch_size_run=3")
    same = {"name", "kind", "level"}
    for name in ("dropout 0", "noise 0", "delay 0"):
        assert {k: v for k, v in rows[name].items() if k not in same} == {
            k: v for k, v in rows["none"].items() if k not in same
        }
    for policy in ("teacher_mean", "student_mean"):
        assert len({entry[policy] for entry in rows.values()}) == len(NAMES) - 3
    for entry in found["rows"]:
        teacher, student_mean, whole = entry["teacher_mean"], entry["student_mean"], rows["none"]["teacher_mean"]
        assert entry["retention_disturbed"] == pytest.approx(1 - abs(student_mean - teacher) / abs(teacher))
        assert entry["retention_undisturbed"] == pytest.approx(1 - abs(student_mean - whole) / abs(whole))
        assert entry["teacher_low"] < teacher < entry["teacher_high"]
    text = (student / "stress.md").read_text()
    assert all(f"| {name} " in text and f"| {name} " in out for name in NAMES)
    assert "No unseen map" in text and "no unseen map" in out
    assert err == ""


def test_the_figure_is_an_svg_with_a_panel_for_each_kind(student):
    pytest.importorskip("matplotlib")
    assert stress(student, "with", "batch_size_run=3") == 0
    picture = ET.parse(student / "stress.svg").getroot()
    assert picture.tag.endswith("svg")
    comments = (student / "stress.svg").read_text()
    assert "![return and retention" in (student / "stress.md").read_text()
    for title in ("Sensor dropout", "Sensor noise", "Delayed observation", "A dead agent"):
        assert f"<!-- {title} -->" in comments
    assert "An unseen map" not in comments


def test_without_a_drawing_package_the_result_is_there_and_a_line_says_why_no_figure(student, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["stress", str(student), "--episodes", "2", *NOTHING]) == 0
    line = "no figure: matplotlib is not installed: pip install -e '.[report]' in kd-marl's checkout\n"
    assert capsys.readouterr().err == line
    assert not (student / "stress.svg").exists()
    assert "![" not in (student / "stress.md").read_text()


def test_a_second_call_at_the_same_time_is_kept_out(student, capsys):
    held = os.open(student, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert main(["stress", str(student), "--episodes", "2", *NOTHING]) == 2
    finally:
        os.close(held)
    assert f"error: another kd-marl stress is at {student}: give this command again" in capsys.readouterr().err
    assert not (student / "stress.json").exists()


def test_every_command_that_added_a_disturbance_is_named(student, capsys):
    lines = []
    for options in (NOTHING, [*NOTHING, "--delay", "1"], [*NOTHING, "--delay", "1"]):
        assert main(["stress", str(student), "--episodes", "2", *options]) == 0
        lines.append(content(student)["commands"])
    assert len(lines[0]) == 1 and lines[1] == lines[2] == [lines[0][0], lines[0][0].replace("--delay", "--delay 1")]
    page = (student / "stress.md").read_text()
    assert page.count("`kd-marl stress ") == 2


def test_an_interrupted_measurement_goes_on_where_it_stopped(student, capsys, monkeypatch):
    assert stress(student) == 0
    whole = content(student)
    (student / "stress.json").unlink()
    play, labels = measure.Match.play, []

    def interrupted(self, make, trouble, label, *args, **kwargs):
        labels.append(label)
        if label == stop:
            raise KeyboardInterrupt
        return play(self, make, trouble, label, *args, **kwargs)

    monkeypatch.setattr(measure.Match, "play", interrupted)
    stop = "student, noise 0"
    assert stress(student) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert [entry["name"] for entry in content(student)["rows"]] == NAMES[:3]
    labels.clear()
    stop = None
    assert stress(student) == 0
    assert content(student) == whole
    # The undisturbed teacher again, for the features' spread and the pairs; of the rest only what was missing.
    wanted = [f"{who}, {name}" for name in NAMES[3:] for who in ("teacher", "student")]
    assert labels == ["teacher, undisturbed", *wanted]
    labels.clear()
    assert stress(student) == 0
    assert labels == [] and content(student) == whole


def test_other_levels_are_added_and_other_settings_begin_anew(student, capsys):
    none = NOTHING[1:]
    assert main(["stress", str(student), "--episodes", "2", "--dropout", "0.5", *none]) == 0
    assert main(["stress", str(student), "--episodes", "2", "--dropout", "0.2", *none]) == 0
    assert [entry["name"] for entry in content(student)["rows"]] == ["none", "dropout 0.2", "dropout 0.5"]
    capsys.readouterr()
    assert main(["stress", str(student), "--episodes", "3", "--dropout", "0.2", *none]) == 0
    assert "measured with other episodes, batch: measuring anew" in capsys.readouterr().err
    assert [entry["name"] for entry in content(student)["rows"]] == ["none", "dropout 0.2"]


def test_a_remark_stays_with_the_rows_of_an_earlier_call(student):
    few = ["--episodes", "2", "--dropout", "--noise", "--maps"]
    assert main(["stress", str(student), *few, "--delay", "--dead", "speaker_0"]) == 0
    (remark,) = content(student)["notes"]
    assert remark.startswith("no action of speaker_0 does nothing")
    assert main(["stress", str(student), *few, "--delay", "1", "--dead"]) == 0
    assert [entry["name"] for entry in content(student)["rows"]] == ["none", "delay 1", "dead speaker_0"]
    assert content(student)["notes"] == [remark]
    assert "No action of speaker_0 does nothing" in (student / "stress.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--episodes", "0"], "at least 1"),
        (["--dropout", "2"], "--dropout 2 is no probability"),
        (["--dead", "9"], "--dead 9 is no agent"),
        (["--teacher", "nowhere"], "no teacher at nowhere"),
        (["with", "env_args.key=other"], "'with env_args.key' does not fit a trained student"),
        (["with", "batch_size_run=no"], "batch_size_run is 'no'"),
        (["with", "env_args.time_limits=3"], "did you mean 'env_args.time_limit'"),
    ],
)
def test_bad_input_is_one_line(student, words, message, capsys):
    assert main(["stress", str(student), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_what_is_no_student_and_what_is_no_result_is_one_line(student, tiny_student, tmp_path, capsys):
    for run in (tmp_path / "nothing", tiny_student.teacher):
        assert stress(run) == 2
    (student / "stress.json").write_text('{"format": "other"}')
    assert stress(student) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith("error: ") for line in lines)
    assert "move it away" in lines[2]


def test_another_teacher_is_refused_and_a_moved_one_is_found(student, tiny_student, tmp_path, monkeypatch):
    from kd_marl.runs.student_run import load_student

    run = load_student(student)
    moved = tmp_path / "other" / "models" / "moved"
    shutil.copytree(run.facts["teacher"]["path"], moved)
    assert measure.find_teacher(run, moved, []).folder == moved
    with pytest.raises(UserError, match=r"is another teacher: .* --teacher DIR"):
        measure.find_teacher(run, tiny_student.teacher, [])
    run.facts["teacher"]["path"] = str(tmp_path / "gone")
    assert measure.find_teacher(run, None, []).folder == ZOO / run.task
    monkeypatch.setattr(measure, "ZOO", tmp_path / "nothing-bundled")
    assert measure.find_teacher(run, None, [tmp_path / "other"]).folder == moved
    with pytest.raises(UserError, match=r"no longer in .*gone.*--teacher DIR"):
        measure.find_teacher(run, None, [tmp_path / "empty"])


def test_the_help_ends_with_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["stress", "--help"])
    assert capsys.readouterr().out.split("example:\n")[1].strip().startswith("kd-marl stress ")


def test_the_page_writes_shares_and_returns_in_their_units():
    facts = {"measures": "win rate"}
    assert page.score(facts, 0.8254) == "82.5 %"
    assert page.score({"measures": "return"}, -12.345) in ("-12.35", "-12.34")


def test_blocks_are_as_large_as_the_episodes_allow(learner, results):
    assert [match_of(learner, results, episodes, 4).batch for episodes in (6, 7, 8)] == [3, 1, 4]
    with pytest.raises(UserError, match="at least 1"):
        match_of(learner, results, 0)
