"""Kill -9 at any moment: the same command with ``resume=True`` goes on, and nothing is lost or written twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from kd_core.artifacts.expert_buffer import ExpertBuffer, check_buffer
from kd_marl.runs.student_run import load_student
from stage_fixtures import words

# Ends the process at the count-th time that ``os.<call>`` is given a path which contains ``part``; before the call, or
# after it. What is renamed is given by its old name, the temporary one.
DIE_AT = """
import os, signal
call, counted = os.{call}, 0
def die(target, *rest):
    global counted
    path = os.readlink(f"/proc/self/fd/{{target}}") if isinstance(target, int) else str(target)
    counted += {part!r} in path
    hit = {part!r} in path and counted == {count}
    if hit and {before}:
        os.kill(os.getpid(), signal.SIGKILL)
    result = call(target, *rest)
    if hit:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
os.{call} = die
"""


def die_at(call: str, part: str, count: int = 1, before: bool = True) -> str:
    return DIE_AT.format(call=call, part=part, count=count, before=before)


def kill(process: int) -> None:
    """Kill -9, unless it has just ended by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def hashes(buffer: Path) -> dict[str, tuple[int, bytes]]:
    """Every shard that buffer.json names: when it was written and what is in it."""
    file = buffer / "buffer.json"
    named = [entry["file"] for entry in json.loads(file.read_text())["shards"]] if file.is_file() else []
    return {name: ((buffer / name).stat().st_mtime_ns, (buffer / name).read_bytes()) for name in named}


def assert_whole(buffer: Path, episodes: int) -> None:
    assert check_buffer(buffer) is None
    opened = ExpertBuffer.open(buffer)
    assert opened.episodes == episodes
    assert not list(buffer.glob(".*.kd-tmp"))
    data = opened.gather(range(episodes), ("obs", "actions"))
    starts = data["obs"][:, 0].flatten(1)
    assert len(torch.unique(starts, dim=0)) == episodes, "an episode was played twice"


@pytest.fixture
def export(mains, tiny_teacher, tmp_path):
    """Runs the same export, with resume=True from the second time on; checks that finished shards stay as they are."""
    buffer = tmp_path / "buffer"
    command = words("kd_export", tmp_path, f"teacher={tiny_teacher}", f"expert_buffer={buffer}", "seed=1")

    def run(*updates, before="", kill_after=None):
        finished = hashes(buffer)
        resume = ["resume=True"] if (buffer / "buffer.json").is_file() else []
        process = mains.start(*command, *updates, *resume, before=before)
        if kill_after is not None:
            time.sleep(kill_after)
            kill(process)
        ended = mains.wait()
        assert hashes(buffer).items() >= finished.items()
        if finished:
            assert check_buffer(buffer) is None
        return ended

    run.buffer = buffer
    return run


def test_an_export_that_is_killed_at_random_moments_ends_up_whole(export):
    moments = random.Random(7)
    sizes = ["buffer_episodes=240", "shard_episodes=16"]
    kills = 0
    while kills < 6 and export(*sizes, kill_after=moments.uniform(0.4, 1.6)).status == -signal.SIGKILL:
        kills += 1
    assert kills
    export(*sizes).check()
    assert_whole(export.buffer, 240)


@pytest.mark.parametrize(
    ("moment", "stored"),
    [
        (die_at("fsync", "shard-00001"), 8),
        (die_at("replace", "shard-00001"), 8),
        (die_at("replace", "shard-00001", before=False), 8),
        (die_at("replace", "buffer.json", count=3), 8),
        (die_at("replace", "buffer.json", count=3, before=False), 16),
        (die_at("replace", "buffer.json", count=4, before=False), 24),
    ],
    ids=["shard written", "shard synced", "shard renamed", "facts synced", "facts renamed", "all done"],
)
def test_an_export_that_is_killed_while_it_writes_ends_up_whole(export, moment, stored):
    assert export(before=moment).status == -signal.SIGKILL
    assert ExpertBuffer.open(export.buffer).episodes == stored
    export().check()
    assert_whole(export.buffer, 24)


def test_shards_whose_writers_died_before_naming_them_are_adopted_and_not_played_again(export):
    for index in range(2):
        died = export(before=die_at("replace", f"shard-0000{index}", before=False))
        assert died.status == -signal.SIGKILL
    export().check()
    assert_whole(export.buffer, 24)


def test_a_whole_buffer_is_only_confirmed_and_can_grow(export):
    export().check()
    before = hashes(export.buffer)
    assert "24 episodes" in export().check().err
    assert hashes(export.buffer) == before
    for episodes in (26, 37):
        export(f"buffer_episodes={episodes}").check()
        assert_whole(export.buffer, episodes)
    assert hashes(export.buffer).items() >= before.items()


# --- the student ---------------------------------------------------------------------------------------------------


def stored_checkpoints(results: Path) -> list[dict]:
    """The facts of every whole checkpoint, oldest run first."""
    files = sorted(results.glob("models/kd_student*/*/checkpoint.json"), key=lambda file: file.stat().st_mtime_ns)
    return [{**json.loads(file.read_text()), "folder": file.parent} for file in files]


@pytest.fixture
def distil(mains, tiny_teacher, tiny_buffer, tmp_path):
    """Runs the same distillation, in another results folder if one is named."""

    def run(*updates, results=tmp_path, before="", kill_after_save=None):
        sources = [f"teacher={tiny_teacher}", f"expert_buffer={tiny_buffer}", "eval_episodes=4"]
        process = mains.start(*words("kd_student", results, *sources, *updates), before=before)
        if kill_after_save is not None:
            saved = len(stored_checkpoints(results))
            while len(stored_checkpoints(results)) == saved and Path(f"/proc/{process}").exists():
                time.sleep(0.01)
            time.sleep(kill_after_save)
            kill(process)
        return mains.wait()

    run.results = tmp_path
    return run


@pytest.mark.parametrize("mode", ["mixed", "expert"])
@pytest.mark.slow
def test_a_student_that_is_killed_at_random_moments_ends_as_an_uninterrupted_one(distil, tmp_path, mode):
    moments = random.Random(5)
    sizes = ["t_max=3000", f"distill_on={mode}", "seed=1"]
    distil(*sizes, results=tmp_path / "whole").check()
    expected = stored_checkpoints(tmp_path / "whole")[-1]
    assert expected["finished"]
    reached, kills = 0, 0
    while (
        kills < 3
        and distil(*sizes, "resume=True", kill_after_save=moments.uniform(0.0, 0.15)).status == -signal.SIGKILL
    ):
        kills += 1
        so_far = max(found["t_env"] for found in stored_checkpoints(tmp_path))
        assert so_far > reached, "a finished checkpoint was lost"
        reached = so_far
    assert kills
    ended = distil(*sizes, "resume=True").check()
    last = stored_checkpoints(tmp_path)[-1]
    assert (last["t_env"], last["updates"], last["finished"]) == (expected["t_env"], expected["updates"], True)
    assert 0.0 <= ended.summary["agreement"] <= 1.0


@pytest.mark.parametrize("file", ["agent.th", "training.th", "checkpoint.json"])
def test_a_checkpoint_that_was_cut_short_is_passed_over(distil, file):
    died = distil("seed=1", before=die_at("replace", file, count=3))
    assert died.status == -signal.SIGKILL
    assert [found["t_env"] for found in stored_checkpoints(distil.results)] == [100, 200]
    cut = next(distil.results.glob("models/kd_student*/300"))
    assert not (cut / "checkpoint.json").exists()
    resumed = distil("seed=1", "resume=True").check()
    assert f"resume=True: going on from {cut.parent / '200'}" in resumed.err
    last = stored_checkpoints(distil.results)[-1]
    assert (last["t_env"], last["updates"], last["finished"]) == (500, 10, True)


def test_a_finished_run_is_not_repeated(distil):
    distil("seed=1").check()
    before = [found["folder"] for found in stored_checkpoints(distil.results)]
    # How often it logs does not make it another run, nor where its results lie now.
    moved = distil.results / "moved"
    shutil.copytree(distil.results, moved)
    for place in (distil.results, moved):
        again = distil("seed=1", "resume=True", "log_interval=7", results=place).check()
        found = place / before[-1].relative_to(distil.results)
        assert f"resume=True: this run has finished already, its result is {found}" in again.err
    assert [found["folder"] for found in stored_checkpoints(distil.results)] == before


def test_a_finished_run_is_evaluated_again_over_another_number_of_episodes(distil):
    distil("seed=1").check()
    again = distil("seed=1", "resume=True", "eval_episodes=6").check()
    assert "only its evaluation is left" in again.err
    assert again.summary["episodes"] == 6
    assert "finished already" in distil("seed=1", "resume=True", "eval_episodes=6").check().err


def test_a_run_that_was_killed_before_its_result_was_written_is_evaluated(distil):
    died = distil("seed=1", before=die_at("replace", "summary.json"))
    assert died.status == -signal.SIGKILL
    assert not list(distil.results.glob("sacred/kd_student/*/*/summary.json"))
    ended = distil("seed=1", "resume=True").check()
    assert "only its evaluation is left" in ended.err
    assert ended.summary["episodes"] == 4
    assert "finished already" in distil("seed=1", "resume=True").check().err


def test_a_run_goes_on_from_its_own_checkpoints_only(distil):
    """Another seed, or another key that decides what is computed, is another run; a seed left out fits any."""
    distil("seed=1").check()
    for other in (["seed=2"], ["seed=1", "kl_coef=0.5"]):
        assert "nothing to go on from" in distil(*other, "resume=True").check().err
    found = distil("resume=True", "kl_coef=0.5").check()
    assert "finished already" in found.err


@pytest.mark.slow
def test_the_same_command_is_another_run_once_its_teacher_is_another(mains, tiny_teacher, tmp_path):
    teacher = tmp_path / "teacher"
    shutil.copytree(tiny_teacher, teacher)
    command = words("kd_student", tmp_path, f"teacher={teacher}", "eval_episodes=4", "seed=1")
    mains.run(*command).check()
    weights = torch.load(teacher / "agent.th", weights_only=True)
    torch.save({name: 2 * value for name, value in weights.items()}, teacher / "agent.th")
    facts = json.loads((teacher / "teacher.json").read_text())
    facts["sha256"]["agent.th"] = hashlib.sha256((teacher / "agent.th").read_bytes()).hexdigest()
    (teacher / "teacher.json").write_text(json.dumps(facts))

    assert "found no checkpoint of this configuration and teacher" in mains.run(*command, "evaluate=True").error
    again = mains.run(*command, "resume=True").check()
    assert "nothing to go on from" in again.err
    students = {found["teacher"]["sha256"]["agent.th"] for found in stored_checkpoints(tmp_path)}
    assert len(students) == 2 and facts["sha256"]["agent.th"] in students
    assert "finished already" in mains.run(*command, "resume=True").check().err
    # Each record goes with its own weights.
    records = [file.parent for file in tmp_path.glob("sacred/kd_student/*/*/summary.json")]
    assert len(records) == 2
    for record in records:
        had = json.loads((record / "summary.json").read_text())["teacher_artifact"]["sha256"]
        found = load_student(record)
        assert found.facts["teacher"]["sha256"] == had
        assert load_student(found.checkpoint).record == found.record


@pytest.mark.slow
def test_an_evaluation_is_of_the_seed_that_is_asked_for_or_says_whose_it_is(distil):
    for seed in (1, 2):
        distil(f"seed={seed}").check()
    assert distil("evaluate=True", "seed=1").check().summary["seed"] == 1
    newest = distil("evaluate=True").check()
    assert newest.summary["seed"] == 2
    folder = stored_checkpoints(distil.results)[-1]["folder"].parent
    assert distil("evaluate=True", f"checkpoint_path={folder}").check().summary["seed"] == 2
    refused = distil("evaluate=True", "seed=1", f"checkpoint_path={folder}").error
    assert "was trained with seed=2, not 1: leave seed out" in refused
    # The record of an evaluation without a seed has a random one in its configuration.
    record = Path(newest.out.rsplit("written to ")[-1].strip()).parent
    assert load_student(record).facts["seed"] == 2
    assert load_student(folder).summary["seed"] == 2


def test_the_same_command_twice_makes_two_students_each_with_its_own_result(distil):
    for _ in range(2):
        distil("seed=1").check()
    records = sorted(distil.results.glob("sacred/kd_student/*/[12]"))
    found = [load_student(record) for record in records]
    assert found[0].checkpoint != found[1].checkpoint
    assert [run.facts["record"] for run in found] == [str(record.relative_to(distil.results)) for record in records]
    assert [load_student(run.checkpoint).record for run in found] == [run.record for run in found]
    # A further evaluation does not take the place of the run that trained.
    folder = found[0].checkpoint.parent
    distil("seed=1", "evaluate=True", f"checkpoint_path={folder}").check()
    assert load_student(records[0]).checkpoint == found[0].checkpoint


def test_a_result_that_somebody_removed_is_made_again(distil):
    first = distil("seed=1").check()
    record = Path(first.out.rsplit("written to ")[-1].strip()).parent
    shutil.rmtree(record)
    again = distil("seed=1", "resume=True").check()
    assert "only its evaluation is left" in again.err and again.summary == {
        **first.summary,
        **{key: again.summary[key] for key in ("command", "decision_us_teacher", "decision_us_student")},
    }
    assert "finished already" in distil("seed=1", "resume=True").check().err


@pytest.mark.slow
def test_each_number_of_episodes_has_a_result_of_its_own(distil):
    distil("seed=1").check()
    more = distil("seed=1", "resume=True", "eval_episodes=6").check()
    assert "finished already" in distil("seed=1", "resume=True").check().err
    shutil.rmtree(Path(more.out.rsplit("written to ")[-1].strip()).parent)
    assert "only its evaluation is left" in distil("seed=1", "resume=True", "eval_episodes=6").check().err
    # What evaluate=True plays is another command's result.
    distil("seed=1", "evaluate=True", "eval_episodes=8").check()
    assert "only its evaluation is left" in distil("seed=1", "resume=True", "eval_episodes=8").check().err


@pytest.mark.parametrize("left", [3, 5])
def test_the_record_of_a_run_that_went_on_has_the_whole_curve(distil, left):
    """After a stop in the middle, and after one before the result was written."""
    first = distil("seed=1", "runner_log_interval=100", "test_interval=100").check()
    record = Path(first.out.rsplit("written to ")[-1].strip()).parent
    logged = json.loads((record / "metrics.json").read_text())["test_return_mean"]
    found = stored_checkpoints(distil.results)
    assert len(found) == 5 and len(logged["steps"]) > 3
    for gone in found[left:]:
        shutil.rmtree(gone["folder"])
    (record / "summary.json").unlink()
    again = distil("seed=1", "runner_log_interval=100", "test_interval=100", "resume=True").check()
    curve = json.loads((Path(again.out.rsplit("written to ")[-1].strip()).parent / "metrics.json").read_text())
    before = [step for step in logged["steps"] if step <= found[left - 1]["t_env"]]
    steps = curve["test_return_mean"]["steps"]
    assert before and steps[: len(before)] == before and steps == sorted(steps)
    assert curve["test_return_mean"]["values"][: len(before)] == logged["values"][: len(before)]
    # A checkpoint outlives its record.
    shutil.rmtree(record)
    assert (
        "finished already"
        in distil("seed=1", "runner_log_interval=100", "test_interval=100", "resume=True").check().err
    )


def test_weights_are_not_fed_other_features_after_a_mask_file_changed(distil, tmp_path):
    masks = tmp_path / "masks.yaml"
    masks.write_text("listener_0: [V]")
    distil("seed=1", f"masks={masks}").check()
    masks.write_text("listener_0: [L0]")
    for again in ("resume=True", "evaluate=True"):
        assert "was trained to see other features" in distil("seed=1", f"masks={masks}", again, "eval_episodes=6").error
    folder = stored_checkpoints(distil.results)[-1]["folder"].parent
    refused = distil("seed=1", "limits=lha", "evaluate=True", f"checkpoint_path={folder}").error
    assert "was trained to see other features than limits" in refused and "the file" not in refused


def test_a_folder_without_checkpoints_is_refused_before_anything_is_trained(distil, tmp_path):
    refused = distil("seed=1", f"checkpoint_path={tmp_path / 'typo'}").error
    assert "holds no saved steps" in refused and not stored_checkpoints(distil.results)


def test_playing_a_replay_leaves_no_checkpoint(distil):
    distil("seed=1").check()
    before = stored_checkpoints(distil.results)
    folder = before[0]["folder"].parent
    words = ["seed=1", f"checkpoint_path={folder}", f"load_step={before[0]['t_env']}", "save_replay=True"]
    played = distil(*words).check()
    assert stored_checkpoints(distil.results) == before
    assert (
        "save_replay=True writes nothing: tasks of Gymnasium and PettingZoo have no replays" in played.out + played.err
    )


def test_a_checkpoint_of_another_version_is_refused_in_one_line(distil):
    distil("seed=1").check()
    folder = stored_checkpoints(distil.results)[-1]["folder"]
    facts = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps({**facts, "version": 9}))
    assert "is kd-marl/checkpoint version 9, this kd-marl reads kd-marl/checkpoint version 1" in (
        distil("seed=1", "resume=True").error
    )
    shutil.rmtree(folder)
    assert "going on from" in distil("seed=1", "resume=True").check().err
