"""The bundled runtime: what workers bring, workers that die, parents that die, and how many of them there may be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from epymarl_lite.envs.env_group import EnvGroup, env_factories
from epymarl_lite.runners import EpisodeRunner, ParallelRunner
from epymarl_lite.runners.worker_pool import WorkerError, WorkerPool
from epymarl_lite.utils.errors import WorkerDiedError
from epymarl_lite.utils.logging import Logger, get_logger
from runtime_env import CountingEnv, run_args

pytestmark = pytest.mark.usefixtures("counting_env")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "init",
            "worker of environment 1 failed: ImportError: this environment needs a package",
        ),
        ("step", "worker of environment 1 failed: ZeroDivisionError: the physics broke"),
        ("die", "worker of environment 1 ended by signal 9"),
    ],
)
def test_a_failing_worker_ends_the_run_with_its_error(fault, message):
    env_args = {"seed": 0, "fault": fault, "fault_seed": 1}
    args = run_args(env_args=env_args, batch_size_run=3, runner_processes=3)
    processes = []

    def collect():
        pool = WorkerPool(env_factories(args), 3)
        processes.extend(pool.processes)
        try:
            pool.reset()
            pool.step([0, 1, 2], np.ones((3, 2), int))
        finally:
            pool.close()

    with pytest.raises((WorkerError, WorkerDiedError), match=message) as caught:
        collect()
    assert "\n" not in str(caught.value)
    assert not any(process.is_alive() for process in processes)


def test_a_worker_killed_between_steps_is_noticed():
    pool = WorkerPool(env_factories(run_args(batch_size_run=2)), 2)
    try:
        pool.reset()
        os.kill(pool.processes[0].pid, signal.SIGKILL)
        with pytest.raises(WorkerDiedError, match="worker of environment 0 ended by signal 9"):
            pool.reset()
    finally:
        pool.close()
        pool.close()  # a second time does nothing


PARENT = """
import sys, time
sys.path[:0] = {paths!r}
from runtime_env import CountingEnv, run_args
from epymarl_lite.envs import REGISTRY
from epymarl_lite.envs.env_group import env_factories
from epymarl_lite.runners.worker_pool import WorkerPool
if __name__ == "__main__":
    args = run_args(env="gymma", env_args=dict(key="pz-mpe-simple-spread-v3", time_limit=25), batch_size_run=3)
    pool, other = WorkerPool(env_factories(args), 3), WorkerPool(env_factories(args), 2)
    print(*[process.pid for process in pool.processes + other.processes], flush=True)
    {then}
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
@pytest.mark.parametrize("end", ["kill", "interrupt", "error"])
def test_workers_never_outlive_their_parent(end, source_root, tmp_path):
    then = "raise SystemExit('an error')" if end == "error" else "time.sleep(60)"
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(paths=[str(source_root), str(source_root.parent / "tests" / "helpers")], then=then))
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 5
    if end != "error":
        assert all(alive(pid) for pid in pids)
        parent.send_signal(signal.SIGKILL if end == "kill" else signal.SIGINT)
    parent.communicate(timeout=20)
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in pids if alive(pid)]


def test_wrong_numbers_of_environments_or_processes_are_refused():
    with pytest.raises(ValueError, match=r"plays one environment: set batch_size_run=1, not 2"):
        EpisodeRunner(run_args(batch_size_run=2), Logger(get_logger()))
    with pytest.raises(ValueError, match=r"runner_processes is 0 \(one per core\) or a number of processes, not -1"):
        ParallelRunner(run_args(runner_processes=-1), Logger(get_logger()))
    with pytest.raises(ValueError, match="unknown environment env='gyma': did you mean 'gymma'"):
        env_factories(run_args(env="gyma"))


LENGTHS = ((3, 2), (5, 4), (2, 6))


def test_what_a_pool_returned_stays_as_it_was_when_it_steps_on():
    """Its workers write into memory that both sides see."""
    pool = WorkerPool([partial(CountingEnv, seed=row, lengths=((4,),)) for row in range(3)], 2)
    try:
        first = pool.reset()
        kept = [view.copy() for view in first]
        second = pool.step([0, 1, 2], np.ones((3, 2), int))
        pool.step([0, 2], np.ones((2, 2), int))
        for view, before in zip(first, kept, strict=True):
            np.testing.assert_array_equal(view, before)
        assert second.views.obs[:, 0, 0].tolist() == [1, 1001, 2001]
        assert pool.step([0, 2], np.ones((2, 2), int)).views.obs[:, 0, 0].tolist() == [3, 2003]
    finally:
        pool.close()


@pytest.mark.parametrize("common_reward", [True, False])
def test_a_pool_brings_what_one_process_brings(common_reward):
    makers = [partial(CountingEnv, seed=row, lengths=LENGTHS, common_reward=common_reward) for row in range(3)]
    pool, group = WorkerPool(makers, 2), EnvGroup(makers)
    try:
        assert pool.call("get_env_info") == group.call("get_env_info")
        for _ in range(2):
            rows = [0, 1, 2]
            for ours, theirs in zip(pool.reset(), group.reset(), strict=True):
                np.testing.assert_array_equal(ours, theirs)
                assert ours.dtype == theirs.dtype
            while rows:
                actions = np.zeros((len(rows), 2), int)
                ours, theirs = pool.step(rows, actions), group.step(rows, actions)
                for mine, other in zip([*ours.views, *ours[1:4]], [*theirs.views, *theirs[1:4]], strict=True):
                    np.testing.assert_array_equal(mine, other)
                    assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
                assert ours.infos == theirs.infos
                rows = [row for row, ended in zip(rows, ours.terminated, strict=True) if not ended]
    finally:
        pool.close()
        group.close()
