"""``kd_export``: what a student's run tells it, and what it refuses, without harm to the buffers that are there."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from kd_core.stages import _stage_words
from stage_fixtures import words


def test_another_stage_is_told_of_rewards_and_not_of_a_runner_that_its_blocks_do_not_fit():
    own = "runner=episode batch_size_run=1 lr=0.1 reward_scalarisation=mean env_args.key=x"
    line = f"python src/main.py --config=kd_student --env-config=mpe with {own}"
    told = _stage_words("kd_export", SimpleNamespace(command=line, seed=3))
    assert told[3:] == ["reward_scalarisation=mean", "env_args.key=x", "seed=3"]


def test_an_export_does_not_write_over_a_buffer(mains, tiny_results, tiny_buffer):
    before = (tiny_buffer / "buffer.json").read_bytes()
    error = mains.run(*words("kd_export", tiny_results, "seed=2")).error
    assert "already holds 24 episodes: continue it with resume=True or give another folder" in error
    assert (tiny_buffer / "buffer.json").read_bytes() == before


def test_a_continued_export_plays_episodes_of_its_own_however_many_at_once(results, tmp_path):
    # Inside: `tiny_stages` registers a toy task with this process's host.
    from kd_learners.exporter import BufferExporter
    from tiny_stages import described, stage_args

    def environments(shards, blocks):
        """Seeds of the environments of an export that finds so many shards."""
        folder = tmp_path / f"{shards}-{blocks}"
        folder.mkdir()
        for number in range(shards):
            (folder / f"shard-{number:05d}.safetensors").touch()
        sizes = dict.fromkeys(("batch_size_run", "batch_size", "buffer_size"), blocks)
        given = {"teacher": str(results / "teacher"), "expert_buffer": str(folder), "resume": True, **sizes}
        args = stage_args("kd_export", tmp_path, **given)
        BufferExporter.prepare(args, described(args))
        first = args.env_args["seed"]
        return range(first, first + blocks)

    played = [environments(shards, blocks) for shards, blocks in ((0, 100), (1, 20), (2, 512), (3, 4))]
    assert played[0][0] == 1
    seeds = [seed for some in played for seed in some]
    assert len(seeds) == len(set(seeds))


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ("batch_size_run=10", "kd_buffer_export takes the episodes just played: set batch_size, buffer_size and"),
        ("embedding_dtype=bfloat16", "embedding_dtype is 'bfloat16': choose one of float16, float32"),
        ("shard_episodes=0", "shard_episodes is 0: expected a whole number of at least 1"),
        ("limits=lh mask_at=environment", "kd_export stores everything, .*: set mask_at=controller"),
    ],
)
def test_a_wrong_key_of_the_export_leaves_no_buffer(mains, tiny_teacher, tmp_path, update, message):
    run = mains.run(*words("kd_export", tmp_path, f"teacher={tiny_teacher}", *update.split()))
    assert re.match(message, run.error)
    # A value of the wrong type is found even before there is a run.
    assert {path.name for path in tmp_path.iterdir()} <= {"sacred"}
