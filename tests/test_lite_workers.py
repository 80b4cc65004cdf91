"""The bundled runtime: workers that die, parents that die, and how many of them there may be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from epymarl_lite.runners import EpisodeRunner, ParallelRunner
from epymarl_lite.runners.env_group import env_factories
from epymarl_lite.runners.worker_pool import WorkerError, WorkerPool
from epymarl_lite.utils.logging import Logger, get_logger
from runtime_env import run_args

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

    with pytest.raises(WorkerError, match=message) as caught:
        collect()
    assert "\n" not in str(caught.value)
    assert not any(process.is_alive() for process in processes)


def test_a_worker_killed_between_steps_is_noticed():
    pool = WorkerPool(env_factories(run_args(batch_size_run=2)), 2)
    try:
        pool.reset()
        os.kill(pool.processes[0].pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="worker of environment 0 ended by signal 9"):
            pool.reset()
    finally:
        pool.close()
        pool.close()  # a second time does nothing


PARENT = """
import sys, time
sys.path[:0] = {paths!r}
from runtime_env import CountingEnv, run_args
from epymarl_lite.envs import REGISTRY
from epymarl_lite.runners.env_group import env_factories
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
    script.write_text(PARENT.format(paths=[str(source_root), str(Path(__file__).parent)], then=then))
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
