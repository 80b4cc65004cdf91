"""What a run leaves running, and how it ends when a worker dies."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

import main_server
from stage_fixtures import words

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")


def group(leader: int) -> set[int]:
    """The processes of a run that still run: children stay in the process group that the run leads."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name = (entry / "comm").read_text().strip()
            state, _, own = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        # Sacred's `tee` ends by itself, with the output it copies.
        if int(own) == leader and state != "Z" and name != "tee":
            found.add(int(entry.name))
    return found


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


ENDLESS = ["t_max=100000000", "buffer_episodes=100000000", "save_model_interval=100000000", "test_interval=100000000"]


def start_and_wait_for_workers(mains, line, env, more_than=1):
    parent = mains.start(*line, env=env)
    # The run itself, and the workers that play.
    wait_until(lambda: len(group(parent)) > more_than and "Beginning training" in (mains.folder / "err").read_text())
    return parent


def endless(stage, results, teacher, buffer):
    if stage == "mappo":
        return words("mappo", results, "limits=lh", "batch_size_run=4", *ENDLESS[:1], *ENDLESS[2:])
    sources = [f"teacher={teacher}", f"expert_buffer={results / 'buffer' if stage == 'kd_export' else buffer}"]
    if stage == "kd_student":
        return words(stage, results, *sources, ENDLESS[0], *ENDLESS[2:])
    return words(stage, results, *sources, *ENDLESS[:2])


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda sent: sent.name)
@pytest.mark.parametrize("stage", ["kd_export", "kd_student", "mappo"])
def test_no_worker_outlives_a_run(mains, tiny_teacher, tiny_buffer, tmp_path, stage, sent):
    parent = start_and_wait_for_workers(mains, endless(stage, tmp_path, tiny_teacher, tiny_buffer), {})
    os.kill(parent, sent)
    ended = mains.wait()
    assert ended.status != 0
    wait_until(lambda: not group(parent))


@pytest.mark.parametrize("stage", ["kd_student", "mappo"])
def test_a_worker_that_dies_ends_the_run(mains, tiny_teacher, tiny_buffer, tmp_path, stage):
    parent = start_and_wait_for_workers(mains, endless(stage, tmp_path, tiny_teacher, tiny_buffer), {})
    os.kill(max(group(parent) - {parent}), signal.SIGKILL)
    ended = mains.wait()
    assert ended.status == 1
    assert "Traceback" not in ended.err
    assert re.search(r"^error: (the worker of environment|environment worker).*$", ended.err, re.MULTILINE)
    wait_until(lambda: not group(parent))


def test_nothing_runs_after_a_run_that_ended_well(mains, tiny_teacher, tiny_buffer, tmp_path):
    line = words("kd_student", tmp_path, f"teacher={tiny_teacher}", f"expert_buffer={tiny_buffer}", "eval_episodes=2")
    parent = mains.start(*line)
    mains.wait().check()
    assert not group(parent)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM], ids=lambda sent: sent.name)
def test_no_worker_of_a_checkout_outlives_a_run(mains, checkout, tmp_path, sent):
    line = words("mappo", tmp_path, "limits=lh", "runner=parallel", "batch_size_run=2", "use_cuda=False", ENDLESS[0])
    parent = start_and_wait_for_workers(mains, line, checkout, more_than=2)
    os.kill(parent, sent)
    mains.wait()
    wait_until(lambda: not group(parent))


def test_a_worker_of_a_checkout_that_dies_ends_the_run(mains, checkout, tmp_path):
    line = words("mappo", tmp_path, "limits=lh", "runner=parallel", "batch_size_run=2", "use_cuda=False", ENDLESS[0])
    parent = start_and_wait_for_workers(mains, line, checkout, more_than=2)
    os.kill(max(group(parent) - {parent}), signal.SIGKILL)
    ended = mains.wait()
    assert ended.status == 1
    assert "environment worker" in ended.err
    wait_until(lambda: not group(parent))


@pytest.mark.parametrize("given", [True, False], ids=["named", "the working folder's"])
def test_everything_a_run_writes_goes_into_one_results_folder_wherever_it_is_started(mains, root, tmp_path, given):
    before = set((root / "results").rglob("*"))
    line = words("iql", Path("own"), "t_max=1", "save_model=True", "batch_size=2", "use_cuda=False")
    if not given:
        line = [word for word in line if not word.startswith("local_results_path=")]
    mains.run(*line, before=f"import os; os.chdir({str(tmp_path)!r})").check()
    (results,) = tmp_path.iterdir()
    assert results.name == ("own" if given else "results")
    assert {folder.name for folder in results.iterdir()} >= {"models", "sacred"}
    assert set((root / "results").rglob("*")) == before


def test_a_run_that_takes_too_long_is_ended_and_the_tests_after_it_have_runs_of_their_own(mains, monkeypatch):
    monkeypatch.setattr(main_server, "PATIENCE_S", 1.0)
    with pytest.raises(AssertionError, match=r"not at its end after 1\.0 s"):
        mains.run(before="import time; time.sleep(600)")
    # Nor does one that a failed test has never waited for stand in the way.
    left = mains.start(before="import time; time.sleep(600)")
    monkeypatch.undo()
    assert "usage" in mains.run("--help").check().out
    assert not group(left)
