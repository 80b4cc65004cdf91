"""The expert buffer: meaningless contents and damage are found, and explained in one line."""

from __future__ import annotations

import json
import shutil

import pytest
import safetensors.torch

from kd_core import files
from kd_core.artifacts import shard
from kd_core.artifacts.expert_buffer import ExpertBuffer, ExpertBufferWriter, check_buffer
from kd_core.errors import UserError
from kd_marl.cli import main
from stage_fixtures import words
from tagged_episodes import assert_holds, episodes, facts, write

FAULTS = {
    "embedding holds a value that is not finite": lambda t: t["embedding"][1, 0, 0].fill_(float("nan")),
    "length 0 is outside 1..4": lambda t: t["length"][1].fill_(0),
    "length 5 is outside 1..4": lambda t: t["length"][1].fill_(5),
    "exactly one of terminated and truncated": lambda t: t["truncated"][1].copy_(t["terminated"][1]),
    "the end flags are inconsistent": lambda t: t["terminated"][1].fill_(0),
    "neither before": lambda t: t["terminated"][1, 0].fill_(1),
    "reward is not 0 after the end": lambda t: t["reward"][1, 3].fill_(1),
    "behaviour_log_prob is above 0": lambda t: t["behaviour_log_prob"][1, 1].fill_(0.1),
    "outside the actions of the task": lambda t: t["actions"][1, 1].fill_(3),
    "was not available": lambda t: t["avail_actions"][1, 0].fill_(0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_meaningless_contents_are_refused_on_writing_and_found_by_check(tmp_path, fault):
    batch = {key: value.clone() for key, value in episodes(0, 4).items()}
    FAULTS[fault](batch)
    with (
        ExpertBufferWriter(tmp_path / "new", facts()) as writer,
        pytest.raises(ValueError, match="episode 1.*" + fault),
    ):
        writer.append(batch)
    assert_holds(tmp_path / "new", 0)

    # The same contents in a buffer whose facts and hash agree with them.
    write(tmp_path / "forged", 4)
    types = shard.dtypes({"embedding_dtype": "float16"})
    data = safetensors.torch.save({key: value.to(types[key]).contiguous() for key, value in batch.items()})
    (tmp_path / "forged" / "shard-00000.safetensors").write_bytes(data)
    digest = files.file_sha256(tmp_path / "forged" / "shard-00000.safetensors")
    edit(tmp_path / "forged", lambda f: f["shards"][0].update(sha256=digest))
    assert fault in check_buffer(tmp_path / "forged")


def test_padding_may_hold_anything_that_is_finite(tmp_path):
    batch = {key: value.clone() for key, value in episodes(0, 1).items()}
    assert batch["length"].tolist() == [1]
    batch["actions"][0, 1:] = 99
    batch["behaviour_log_prob"][0, 1:] = 7.0
    batch["avail_actions"][0, 1:] = 0
    with ExpertBufferWriter(tmp_path, facts()) as writer:
        writer.append(batch)
    assert_holds(tmp_path, 1)


def edit(folder, change):
    found = json.loads((folder / "buffer.json").read_text())
    change(found)
    (folder / "buffer.json").write_text(json.dumps(found))


def truncate(folder):
    path = folder / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def truncate_and_agree(folder):
    truncate(folder)
    edit(folder, lambda f: f["shards"][1].update(bytes=(folder / "shard-00001.safetensors").stat().st_size))


def flip(folder):
    path = folder / "shard-00000.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "has no buffer.json": lambda folder: (folder / "buffer.json").unlink(),
    "no JSON at line 1": lambda folder: (folder / "buffer.json").write_text("{"),
    "expected a JSON object": lambda folder: (folder / "buffer.json").write_text("[]"),
    "has version 2, this kd-marl reads version 1": lambda folder: edit(folder, lambda f: f.update(version=2)),
    "no expert buffer: its format is": lambda folder: edit(folder, lambda f: f.update(format="other")),
    "it lacks teacher": lambda folder: edit(folder, lambda f: f.pop("teacher")),
    "obs_size has no valid value": lambda folder: edit(folder, lambda f: f.update(obs_size="5")),
    "a shard's entry needs": lambda folder: edit(folder, lambda f: f["shards"][0].pop("sha256")),
    "says 11 episodes, its shards add up to 10": lambda folder: edit(folder, lambda f: f.update(episodes=11)),
    "'obs' is F32": lambda folder: edit(folder, lambda f: f.update(obs_size=6)),
    "shard 0 is called '../x'": lambda folder: edit(folder, lambda f: f["shards"][0].update(file="../x")),
    "shard-00001.safetensors is truncated or altered": truncate,
    "truncated or damaged": truncate_and_agree,
    "shard-00001.safetensors is missing": lambda folder: (folder / "shard-00001.safetensors").unlink(),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_damage_is_found_on_opening_and_explained_in_one_line(tmp_path, message):
    DAMAGE[message](write(tmp_path, 10))
    with pytest.raises(UserError, match=message.replace("(", r"\(")) as caught:
        ExpertBuffer.open(tmp_path)
    assert "\n" not in str(caught.value)
    assert message in check_buffer(tmp_path)


HIDDEN_DAMAGE = {
    "its sha256 is not the one in buffer.json": flip,
    "has return_mean": lambda folder: edit(folder, lambda f: f["shards"][0].update(return_mean=9.0)),
    "shard-00009.safetensors is not listed": lambda folder: (folder / "shard-00009.safetensors").touch(),
}


@pytest.mark.parametrize("message", HIDDEN_DAMAGE)
def test_damage_that_needs_reading_is_found_by_check(tmp_path, message):
    HIDDEN_DAMAGE[message](write(tmp_path, 10))
    ExpertBuffer.open(tmp_path)
    with pytest.raises(UserError, match=f"is faulty: .*{message}"):
        ExpertBuffer.open(tmp_path, check=True)


def test_an_unlisted_shard_that_is_damaged_is_not_adopted(tmp_path):
    write(tmp_path, 4)
    (tmp_path / "shard-00001.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match=r"shard-00001\.safetensors is truncated or damaged"):
        ExpertBufferWriter(tmp_path, facts(), resume=True)


def test_command_info_shows_the_facts(tmp_path, capsys):
    assert main(["buffer", "info", str(write(tmp_path, 10))]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (lines["task"], lines["episodes"], lines["teacher"]) == ("toy", "10", "zoo/toy")


def test_command_check_exits_with_1_and_the_first_fault(tmp_path, capsys):
    write(tmp_path, 10)
    assert main(["buffer", "check", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "sound: 10 episodes, 23 steps, 3 shards\n"
    flip(tmp_path)
    assert main(["buffer", "check", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("faulty: shard-00000.safetensors was altered")


def test_a_buffer_of_an_environment_with_other_arguments_is_refused(mains, tiny_teacher, tiny_buffer, tmp_path):
    buffer = shutil.copytree(tiny_buffer, tmp_path / "buffer")
    facts_file = buffer / "buffer.json"
    recorded = json.loads(facts_file.read_text())["env_args"]
    assert "seed" not in recorded
    facts_file.write_text(json.dumps({**json.loads(facts_file.read_text()), "env_args": {**recorded, "time_limit": 7}}))
    student = words("kd_student", tmp_path, f"teacher={tiny_teacher}", f"expert_buffer={buffer}")
    assert (
        f"was exported with env_args.time_limit=7, this run has {recorded['time_limit']}: " in mains.run(*student).error
    )
    export = words("kd_export", tmp_path, f"teacher={tiny_teacher}", f"expert_buffer={buffer}", "resume=True")
    assert "cannot continue" in mains.run(*export).error
