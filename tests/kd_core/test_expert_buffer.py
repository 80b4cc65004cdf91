"""The expert buffer: what is written is read back, and neither crashes nor other writers lose anything finished."""

from __future__ import annotations

import errno
import os
import resource
import signal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kd_core import files
from kd_core.artifacts import expert_buffer, shard
from kd_core.artifacts.expert_buffer import ExpertBuffer, ExpertBufferWriter, check_buffer
from kd_core.errors import UserError
from tagged_episodes import AGENTS, LIMIT, OBS, assert_holds, episodes, facts, write


def snapshot(folder):
    return {path.name: path.read_bytes() for path in folder.glob("shard-*")}


def test_what_was_written_is_read_back_with_the_documented_types(tmp_path):
    write(tmp_path, 10)
    expected = episodes(0, 10)
    read = ExpertBuffer.open(tmp_path).gather(range(10))
    assert set(read) == set(shard.KEYS)
    for key, value in read.items():
        assert value.dtype == shard.dtypes({"embedding_dtype": "float16"})[key]
        torch.testing.assert_close(value, expected[key].to(value.dtype), rtol=0, atol=0)


def test_shards_yields_every_episode_once_in_order_and_the_last_shard_may_be_partial(tmp_path):
    write(tmp_path, 10)
    blocks = list(ExpertBuffer.open(tmp_path).shards(("state", "length")))
    assert [len(block["length"]) for block in blocks] == [4, 4, 2]
    assert torch.cat([block["state"] for block in blocks])[:, 0, 0].tolist() == [100.0 * i for i in range(10)]


@pytest.mark.parametrize("count", [1, 4, 6, 10, 99])
def test_the_first_episodes_are_the_buffer_as_it_was_when_it_held_no_more(tmp_path, count):
    write(tmp_path / "grown", 10)
    first = ExpertBuffer.open(tmp_path / "grown").first(count)
    then = ExpertBuffer.open(write(tmp_path / "then", min(count, 10)))
    assert (first.episodes, first.steps) == (then.episodes, then.steps)
    assert torch.equal(first.lengths, then.lengths)
    for ours, theirs in zip(first.shards(("state", "length")), then.shards(("state", "length")), strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    with pytest.raises(IndexError):
        first.gather([first.episodes])


@pytest.mark.parametrize("rewards", [1, AGENTS])
def test_totals_are_sums_over_episodes(tmp_path, rewards):
    with ExpertBufferWriter(tmp_path, facts(reward_size=rewards), shard_episodes=4) as writer:
        writer.append(episodes(0, 10, rewards))
    buffer = ExpertBuffer.open(tmp_path)
    lengths = [i % LIMIT + 1 for i in range(10)]
    assert buffer.lengths.tolist() == lengths
    assert buffer.steps == sum(lengths)
    # Each step of episode i pays i to each receiver.
    assert buffer.facts["return_mean"] == pytest.approx(np.mean([i * n * rewards for i, n in enumerate(lengths)]))


@pytest.fixture(scope="module")
def ten_episodes(tmp_path_factory):
    return ExpertBuffer.open(write(tmp_path_factory.mktemp("buffer"), 10))


@given(indices=st.lists(st.integers(0, 9), max_size=20))
def test_gather_returns_any_episodes_in_the_order_asked_for(ten_episodes, indices):
    batch = ten_episodes.gather(indices, ("obs", "length"))
    assert batch["obs"].shape == (len(indices), LIMIT + 1, AGENTS, OBS)
    assert batch["obs"][:, 2, 1, 4].tolist() == [100 * i + 2 for i in indices]
    assert batch["length"].tolist() == [i % LIMIT + 1 for i in indices]


@pytest.mark.parametrize("index", [-1, 10])
def test_gather_refuses_an_episode_that_is_not_there(ten_episodes, index):
    with pytest.raises(IndexError, match=r"0\.\.9"):
        ten_episodes.gather([index])


def test_maps_are_dropped_when_they_exceed_the_bound(tmp_path, monkeypatch):
    buffer = ExpertBuffer.open(write(tmp_path, 40))
    monkeypatch.setattr(expert_buffer, "_MAPPED_BYTES", 2 * buffer.facts["shards"][0]["bytes"])
    batch = buffer.gather(range(39, -1, -1), ("state",))
    assert batch["state"][:, 0, 0].tolist() == [100.0 * i for i in range(39, -1, -1)]
    assert len(buffer._maps) == 2


def test_a_copy_of_the_batch_is_stored(tmp_path):
    batch = {key: value.clone() for key, value in episodes(0, 3).items()}
    with ExpertBufferWriter(tmp_path, facts()) as writer:
        writer.append(batch)
        for value in batch.values():
            value.zero_()
    assert_holds(tmp_path, 3)


def test_resuming_goes_on_without_touching_finished_shards(tmp_path):
    write(tmp_path, 6)
    before = snapshot(tmp_path)
    write(tmp_path, 11, resume=True, seed=2)
    assert {name: data for name, data in snapshot(tmp_path).items() if name in before} == before
    assert_holds(tmp_path, 11)


def test_an_error_while_collecting_keeps_the_finished_shards_only(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        ExpertBufferWriter(tmp_path, facts(), shard_episodes=4) as writer,
    ):
        writer.append(episodes(0, 6))
        assert (writer.episodes, writer.stored_episodes) == (6, 4)
        raise KeyboardInterrupt
    assert_holds(tmp_path, 4)


# A new buffer of two shards is five files renamed into place: facts, shard, facts, shard, facts.
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("rename", range(1, 6))
def test_a_kill_at_any_rename_loses_and_doubles_nothing(tmp_path, rename, moment):
    child = os.fork()
    if child == 0:
        count, replace = 0, os.replace

        def replace_and_die(source, destination):
            nonlocal count
            count += 1
            if (count, moment) == (rename, "before"):
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, destination)
            if count == rename:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = replace_and_die
        write(tmp_path, 8)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    finished = snapshot(tmp_path)
    if (tmp_path / "buffer.json").exists():
        assert check_buffer(tmp_path) is None

    write(tmp_path, 8, resume=True)

    assert finished.items() <= snapshot(tmp_path).items()
    assert_holds(tmp_path, 8)
    assert not list(tmp_path.glob(f".*{files.TEMPORARY_SUFFIX}"))


def test_a_full_disk_is_one_line_and_the_finished_shards_stay_valid(tmp_path, monkeypatch):
    writer = ExpertBufferWriter(tmp_path, facts(), shard_episodes=4)
    writer.append(episodes(0, 4))

    def no_space(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", no_space)
        with pytest.raises(
            UserError, match=r"disk full while writing .*shard-00001\.safetensors.*finished .* are valid"
        ):
            writer.append(episodes(4, 4))
    assert_holds(tmp_path, 4)
    assert not list(tmp_path.glob(f".*{files.TEMPORARY_SUFFIX}"))
    # With space again the same writer goes on.
    writer.close()
    assert_holds(tmp_path, 8)


def test_a_write_that_fails_half_way_leaves_no_file(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write .*big: File too large"):
            files.write_bytes(tmp_path / "big", bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_second_writer_is_refused_while_the_first_lives(tmp_path):
    with ExpertBufferWriter(tmp_path, facts()):
        child = os.fork()
        if child == 0:
            try:
                ExpertBufferWriter(tmp_path, facts(), resume=True)
            except UserError as error:
                os._exit(7 if "another process is writing" in str(error) else 8)
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_an_existing_buffer_is_not_overwritten(tmp_path):
    write(tmp_path, 4)
    with pytest.raises(UserError, match="already holds 4 episodes: continue it with resume=True"):
        ExpertBufferWriter(tmp_path, facts())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "other"}, "its task is toy, this run's is other"),
        ({"n_actions": 4}, "its n_actions is 3, this run's is 4"),
        ({"embedding_dtype": "float32"}, "its embedding_dtype is float16"),
        ({"teacher": {"path": "zoo/toy", "sha256": {"agent.th": "bb"}}}, "another teacher wrote it"),
    ],
)
def test_a_buffer_of_other_data_is_not_continued(tmp_path, changes, message):
    write(tmp_path, 4)
    with pytest.raises(UserError, match=message):
        ExpertBufferWriter(tmp_path, facts(**changes), resume=True)


def test_shards_without_facts_are_not_overwritten(tmp_path):
    write(tmp_path, 4)
    (tmp_path / "buffer.json").unlink()
    with pytest.raises(UserError, match=r"no buffer\.json: give an empty or new folder"):
        ExpertBufferWriter(tmp_path, facts())


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write the expert buffer to"):
        ExpertBufferWriter(tmp_path / "file" / "buffer", facts())


def test_episodes_of_the_wrong_keys_or_shape_are_refused(tmp_path):
    with ExpertBufferWriter(tmp_path, facts()) as writer:
        batch = episodes(0, 2)
        with pytest.raises(ValueError, match=r"obs has shape \(2, 4, 2, 5\).*\(2, 5, 2, 5\)"):
            writer.append({**batch, "obs": batch["obs"][:, 1:]})
        del batch["obs"]
        with pytest.raises(ValueError, match="needs the tensors"):
            writer.append(batch)
