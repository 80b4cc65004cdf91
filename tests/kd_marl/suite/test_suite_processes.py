"""A suite's runs as processes: one owner each, stopped with their starter, here and on Ray."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from kd_core.errors import UserError
from kd_marl.cli import main
from kd_marl.processes import process
from kd_marl.suite import cluster, lock
from kd_marl.suite.attempt import attempt
from kd_marl.suite.attempts_log import Outcome
from kd_marl.suite.job import Job
from kd_marl.suite.local import LocalPool
from suite_jobs import job_of

# ---- one owner -------------------------------------------------------------------------------------------------------


def test_only_one_claims_a_run_and_it_is_free_afterwards(tmp_path):
    file = tmp_path / "suite" / "a.lock"
    with lock.locked(file) as first:
        assert first is not None
        with lock.locked(file) as second:
            assert second is None
        assert f"process {os.getpid()}" in lock.owner(file)
    assert lock.owner(file) is None
    with lock.locked(file) as third:
        assert third is not None


def test_a_folder_that_is_a_file_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "grid.yaml").write_text(
        "tasks: {spread: {env: mpe, key: pz-mpe-simple-spread-v3}}\nmethods: [kd_student]\nseeds: 1\n"
    )
    for action in ("run", "status"):
        assert main(["suite", action, str(tmp_path / "grid.yaml"), "--to", str(tmp_path / "file")]) == 2
        assert capsys.readouterr().err.startswith("error: cannot read ")


def test_a_run_works_where_its_suite_was_started_and_with_its_host(tmp_path, monkeypatch):
    code = "import os; print(os.getcwd(), os.environ.get('EPYMARL_HOME') or 'the bundled one')"
    monkeypatch.setenv("EPYMARL_HOME", "/of/this/machine")
    for checkout, expected in (("/of/the/suite", "/of/the/suite"), ("", "the bundled one")):
        with open(tmp_path / "log", "w") as log:
            variables = {"EPYMARL_HOME": checkout}
            assert process.start([sys.executable, "-c", code], log, (), tmp_path, variables).wait(60) == 0
        assert (tmp_path / "log").read_text().split("\n")[0] == f"{tmp_path.resolve()} {expected}"
    with pytest.raises(UserError, match=r"has no .*gone: start the suite in a folder that it has too"):
        attempt(job_of(tmp_path, "a", directory=tmp_path / "gone"))


def test_a_run_whose_workers_were_all_lost_is_broken_for_the_next_suite_too(tmp_path):
    lost = job_of(tmp_path, "a")
    lost.attempts_log.begin()
    cluster._note(lost, "Ray lost its worker")
    (noted,) = lost.attempts_log.attempts()
    assert (noted.outcome, noted.message) == (Outcome.FAILED, "Ray lost its worker")


HOLD = """
import sys, time
from pathlib import Path
from kd_marl.suite import lock
with lock.locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path, source_root):
    """Another process that holds a run's lock."""
    file = tmp_path / "a.lock"
    environment = {**os.environ, "PYTHONPATH": str(source_root)}
    running = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert running.stdout.readline() == "held\n"
    yield running, file
    running.kill()
    running.wait()
    running.stdout.close()


def test_a_claim_ends_with_its_holder_however_it_ends(holder):
    running, file = holder
    assert f"process {running.pid}" in lock.owner(file)
    running.kill()
    running.wait()
    assert lock.owner(file) is None


def test_a_claim_lasts_as_long_as_the_run_that_inherited_it(tmp_path):
    file = tmp_path / "a.lock"
    with open(file, "w") as mine, open(os.devnull, "w") as log:
        import fcntl

        fcntl.flock(mine, fcntl.LOCK_EX)
        run = process.start([sys.executable, "-c", "import time; time.sleep(600)"], log, [mine.fileno()])
    try:
        assert lock.owner(file) is not None, "ours is closed, the run's is not"
    finally:
        process.stop([run])
    assert lock.owner(file) is None


@pytest.mark.parametrize(("age", "free"), [(5, False), (lock.STALE_SECONDS + 30, True)])
def test_the_heartbeat_of_another_machine_counts_where_its_lock_does_not_reach(tmp_path, age, free):
    file = tmp_path / "a.lock"
    file.write_text('{"host": "another", "pid": 3}')
    os.utime(file, (time.time() - age,) * 2)
    assert (lock.owner(file) is None) == free
    with lock.locked(file) as ours:
        assert (ours is not None) == free


def test_a_folder_without_locks_is_refused_in_one_line(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    needed = r"cannot lock .* give --to a folder on a file system that has locks"
    with pytest.raises(UserError, match=needed), lock.locked(tmp_path / "a.lock"):
        pass


def test_those_who_only_look_do_not_take_each_other_for_an_owner(tmp_path):
    import fcntl

    file = tmp_path / "a.lock"
    with lock.locked(file):
        pass
    file.chmod(0o444)  # of somebody else's suite
    with open(file) as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert lock.owner(file) is None


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    job = job_of(tmp_path / "file" / "results", "a")
    with pytest.raises(UserError, match=r"cannot write .*a\.lock \(.*\): give --to a folder that you can write to"):
        attempt(job)


# ---- processes -------------------------------------------------------------------------------------------------------


def gone(pid, patience=20.0):
    """Whether a process ends within a while; one that nobody has waited for counts as ended."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("blocked", [set(), {signal.SIGINT, signal.SIGTERM}])
def test_a_stopped_run_is_interrupted_like_by_ctrl_c_and_its_children_end_with_it(tmp_path, blocked):
    noted, child = tmp_path / "noted", tmp_path / "child"
    code = f"""
import pathlib, subprocess, sys, time
deaf = "import signal, time; signal.signal(2, signal.SIG_IGN); time.sleep(600)"
other = subprocess.Popen([sys.executable, "-c", deaf])
pathlib.Path({str(child)!r}).write_text(str(other.pid))
try:
    time.sleep(600)
except KeyboardInterrupt:
    pathlib.Path({str(noted)!r}).write_text("interrupted")
"""
    # Ray's workers have them blocked.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        with open(tmp_path / "log", "wb") as log:
            run = process.start([sys.executable, "-c", code], log)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    while not (child.is_file() and child.read_text()):
        time.sleep(0.05)
    time.sleep(0.3)
    process.stop([run])
    assert noted.read_text() == "interrupted"
    assert gone(int(child.read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal to a parent's children is Linux's")
def test_a_run_does_not_outlive_the_process_that_started_it(tmp_path, source_root):
    code = """
import sys, time
from kd_marl.processes import process
with open(sys.argv[1], "wb") as log:
    run = process.start([sys.executable, "-c", "import time; time.sleep(600)"], log)
print(run.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source_root)},
    )
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(pid)


def slow_job(folder, label, monkeypatch):
    """A job whose process sleeps; stands in for src/main.py."""
    command = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(600)"]
    monkeypatch.setattr(Job, "command", command)
    return job_of(folder, label)


def begun(job):
    return job.log.is_file() and "begun\n" in job.log.read_text()


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_closing_the_pool_interrupts_what_runs_and_notes_it(tmp_path, monkeypatch):
    job, pool = slow_job(tmp_path, "a", monkeypatch), LocalPool(1)
    pool.submit(job, False)
    assert not pool.room(1) and [running.label for running in pool.running()] == ["a"]
    wait_for(lambda: begun(job))
    pool.close()
    (noted,) = job.attempts_log.attempts()
    assert noted.outcome == "stopped" and lock.owner(job.lock) is None


def test_a_killed_process_is_told_apart_from_one_that_failed(tmp_path, monkeypatch):
    job, pool = slow_job(tmp_path, "a", monkeypatch), LocalPool(1)
    real, pids = process.start, []
    monkeypatch.setattr(process, "start", lambda *words: pids.append(real(*words)) or pids[-1])
    pool.submit(job, False)
    wait_for(lambda: begun(job))
    os.kill(pids[0].pid, signal.SIGKILL)
    ((ended, report),) = pool.ended(60)
    assert ended is job and report.outcome is Outcome.KILLED and "SIGKILL" in report.message
    pool.close()


def test_a_large_job_runs_alone_rather_than_never():
    pool = LocalPool(2)
    assert pool.room(8)
    pool._running = {object(): SimpleNamespace(cpus=1)}
    assert pool.room(1) and not pool.room(2)


def test_ray_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"needs ray, which is not installed: pip install -e '\.\[suite\]'"):
        cluster.RayPool("local", 1)


@pytest.fixture
def ray(monkeypatch):
    """A stand-in for Ray: a cluster of two processors; every task's options are in its list."""
    options = []

    class Task:
        def options(self, **given):
            options.append(given)
            return SimpleNamespace(remote=lambda *_, **__: object())

    double = SimpleNamespace(
        init=lambda **_: None, cluster_resources=lambda: {"CPU": 2.0}, remote=lambda _: Task(), tasks=options
    )
    double.get_runtime_context = lambda: SimpleNamespace(gcs_address=double.head)
    double.head, double.shutdown = "", lambda: None
    double.wait = lambda references, timeout, **_: ([], references)
    monkeypatch.setitem(sys.modules, "ray", double)
    return double


@pytest.mark.parametrize(("address", "cpus"), [("local", 2), ("auto", 8)])
def test_a_large_job_starts_on_a_local_cluster_and_waits_for_a_machine_on_another(tmp_path, ray, address, cpus):
    cluster.RayPool(address, None).submit(job_of(tmp_path, "a", cpus=8, retries=1), False)
    assert ray.tasks == [{"num_cpus": cpus, "max_retries": 1, "name": "a"}]


def test_a_ray_client_s_address_is_refused_in_one_line(ray):
    with pytest.raises(UserError, match=r"--ray ray://head:10001 is Ray Client: start the suite on a machine of the"):
        cluster.RayPool("ray://head:10001", None)


@pytest.fixture
def listening():
    """A port of this machine that something listens at, until it is closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def address_of(server):
    return f"127.0.0.1:{server.getsockname()[1]}"


def test_an_address_where_no_cluster_listens_is_one_line_before_ray_tries_it(ray, listening):
    ray.init = lambda **_: pytest.fail("Ray would try for minutes")
    address = address_of(listening)
    listening.close()
    with pytest.raises(UserError, match=rf"no Ray cluster listens at {address} \(.*\): see `ray status`, or start one"):
        cluster.RayPool(address, None)


def test_a_cluster_that_goes_away_gives_its_runs_back_in_one_line(tmp_path, ray, listening, monkeypatch):
    monkeypatch.setattr(cluster, "_LOOK_SECONDS", 0.01)
    ray.head = address_of(listening)
    pool = cluster.RayPool("auto", None)
    pool.submit(job_of(tmp_path, "a", cpus=1, retries=1), False)
    looks = 20
    for _ in range(looks):
        time.sleep(0.02)
        assert pool.ended(0.0) == []
    listening.close()
    ray.cancel = lambda _: pytest.fail("nobody is there to be told")
    with pytest.raises(UserError, match=f"the Ray cluster at {ray.head} went away: .* goes on with the other 1 runs"):
        for _ in range(looks):
            time.sleep(0.02)
            pool.ended(0.0)
    pool.close()
