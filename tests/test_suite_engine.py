"""A suite's runs: one owner each, never twice, retried as often as allowed, stopped with their starter."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_marl.errors import UserError
from kd_marl.suite import attempt as attempts
from kd_marl.suite import claim, cluster, process
from kd_marl.suite.attempt import attempt
from kd_marl.suite.campaign import Campaign, look
from kd_marl.suite.job import Job
from kd_marl.suite.ledger import Outcome, State
from kd_marl.suite.local import LocalPool
from kd_marl.suite.plan import Node
from kd_marl.suite.show import Show


@dataclass(frozen=True)
class Made:
    """A run that is made when a file is there."""

    file: Path

    def found(self):
        return self.file if self.file.is_file() else None


def job_of(folder, label, **changes):
    values = {"kind": label, "key": label, "words": (label,), "proof": Made(folder / f"{label}.made")}
    return Job(label=label, results=folder, **{**values, **changes})


class FakePlan:
    """Jobs by name; one is known once what it needs is made."""

    def __init__(self, folder, needs, **changes):
        self.nodes = {name: Node(name, "task", name, tuple(before)) for name, before in needs.items()}
        self.jobs = {name: job_of(folder, name, **changes) for name in needs}
        self.suite = SimpleNamespace(cpus=1)

    def job(self, label):
        made = all(self.jobs[need].proof.found() for need in self.nodes[label].needs)
        return self.jobs[label] if made else None


class Ended:
    """A process that has ended as its script says."""

    pid = 0

    def __init__(self, status):
        self.returncode = status

    def poll(self):
        return self.returncode


@pytest.fixture
def scripted(monkeypatch):
    """What becomes of a run's process is drawn from its script, then it finishes; every start is in the list."""
    started, scripts = [], {}

    def start(command, log, held):
        label = command[-1]
        started.append(label)
        script = scripts.get(label, [])
        event = script.pop(0) if script else "finish"
        if event == "finish":
            (Path(log.name).parents[1] / f"{label}.made").touch()
        log.write(b"error: that was it\n")
        return Ended({"finish": 0, "nothing": 0, "fail": 1, "kill": -9}[event])

    monkeypatch.setattr(
        attempts, "process", SimpleNamespace(start=start, stop=lambda _: 0, last_line=process.last_line)
    )
    return SimpleNamespace(started=started, scripts=scripts)


class Inline:
    """A pool that runs each job when it is asked what has ended."""

    slots = 2

    def __init__(self):
        self.queue, self.at_once = [], 0

    def room(self, cpus):
        return len(self.queue) < self.slots

    def submit(self, job, afresh):
        self.queue.append((job, afresh))
        self.at_once = max(self.at_once, len(self.queue))

    def running(self):
        return [job for job, _ in self.queue]

    def ended(self, timeout):
        queue, self.queue = self.queue, []
        return [(job, attempt(job, afresh=afresh, wait=0.0)) for job, afresh in queue]

    def close(self):
        pass


def campaign(plan, **options):
    return Campaign(plan, Inline(), Show(), **options)


NEEDS = {"teacher": [], "buffer": ["teacher"], "a": ["buffer"], "b": ["buffer"], "c": []}
EVENTS = st.lists(st.sampled_from(["finish", "nothing", "fail", "kill"]), max_size=5)


@settings(max_examples=20)  # each writes and syncs a few dozen files
@given(scripts=st.fixed_dictionaries({label: EVENTS for label in NEEDS}), retries=st.integers(0, 2))
def test_whatever_happens_each_run_is_made_once_after_what_it_needs_and_retried_as_often_as_it_may(
    tmp_path_factory, scripts, retries
):
    with pytest.MonkeyPatch.context() as patch:
        double = scripted.__wrapped__(patch)
        double.scripts.update({label: list(script) for label, script in scripts.items()})
        folder = tmp_path_factory.mktemp("suite")
        plan = FakePlan(folder, NEEDS, retries=retries)
        counts = campaign(plan).run()
        assert sum(counts.values()) == len(NEEDS)
        expected = {}
        for label, needs in NEEDS.items():
            # By hand: the first event that is no kill decides, if it comes before the kills are too many.
            events = [*scripts[label], "finish"]
            lived = next(k for k, event in enumerate(events) if event != "kill")
            tries = min(lived + 1, retries + 1)
            finishes = lived <= retries and events[lived] == "finish"
            able = all(expected[need] is State.FINISHED for need in needs)
            expected[label] = (State.FINISHED if finishes else State.BROKEN) if able else State.MISSING
            assert double.started.count(label) == (tries if able else 0)
        for label, needs in NEEDS.items():
            for need in needs if label in double.started else ():
                last_try = len(double.started) - 1 - double.started[::-1].index(need)
                assert last_try < double.started.index(label)
        before = list(double.started)
        again = campaign(plan)
        assert again.run() == counts and double.started == before, "broken runs are left alone, finished ones too"
        assert set(again.reasons) == {label for label, state in expected.items() if state is State.BROKEN}
        double.scripts.clear()
        assert campaign(plan, retry_broken=True).run() == {State.FINISHED: len(NEEDS)}
        retried = double.started[len(before) :]
        assert sorted(retried) == sorted(label for label, state in expected.items() if state is not State.FINISHED)


def test_a_run_that_somebody_else_makes_is_waited_for_and_not_made_again(tmp_path, scripted, monkeypatch):
    monkeypatch.setattr("kd_marl.suite.campaign._ELSEWHERE_SECONDS", 0.05)
    plan = FakePlan(tmp_path, {"a": [], "b": ["a"]})
    done, ready = threading.Event(), threading.Event()

    def other():
        with claim.claimed(plan.jobs["a"].lock) as ours:
            assert ours is not None
            ready.set()
            assert done.wait(30)
            plan.jobs["a"].proof.file.touch()

    holder = threading.Thread(target=other)
    holder.start()
    assert ready.wait(30)
    assert look(plan, "a").state is State.RUNNING and socket.gethostname() in look(plan, "a").note
    threading.Timer(0.3, done.set).start()
    assert campaign(plan).run() == {State.FINISHED: 2}
    holder.join()
    assert scripted.started == ["b"]


def test_a_run_that_was_made_while_it_waited_is_not_made_again(tmp_path, scripted):
    job = job_of(tmp_path, "a")
    job.proof.file.touch()
    assert attempt(job).outcome is Outcome.FINISHED
    assert scripted.started == [] and job.ledger.attempts() == []


def test_a_run_s_last_error_is_its_reason(tmp_path, scripted):
    scripted.scripts["a"] = ["fail"]
    report = attempt(job_of(tmp_path, "a"))
    assert report.outcome is Outcome.FAILED and report.message.startswith("error: that was it (all of it: ")


@pytest.mark.parametrize("watched", ["0", "1"])
def test_progress_shows_what_runs_what_is_left_and_when_it_ends(monkeypatch, capsys, watched):
    monkeypatch.setenv("KD_MARL_PROGRESS", watched)
    show = Show()
    show.begin(1, 4)
    show.tick(["a", "b"], 7200.0)
    show.closed("a", State.FINISHED, "")
    show.closed("c", State.BROKEN, "error: no room")
    show.tick(["b"], None)
    show.end()
    said = capsys.readouterr()
    text = said.err if watched == "1" else said.out
    assert "2 h 00 min to go, until " in text and "3/4" in text
    assert "broken c: error: no room" in text
    if watched == "0":
        assert "running a" in text and "finished a" in text and "1 of 4 runs are finished, 3 are left" in text
    else:
        assert "a, b" in text and said.out == ""


# ---- one owner -------------------------------------------------------------------------------------------------------


def test_only_one_claims_a_run_and_it_is_free_afterwards(tmp_path):
    file = tmp_path / "suite" / "a.lock"
    with claim.claimed(file) as first:
        assert first is not None
        with claim.claimed(file) as second:
            assert second is None
        assert f"process {os.getpid()}" in claim.owner(file)
    assert claim.owner(file) is None
    with claim.claimed(file) as third:
        assert third is not None


HOLD = """
import sys, time
from pathlib import Path
from kd_marl.suite import claim
with claim.claimed(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path, source_root):
    """Another process that holds a run's claim."""
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
    assert f"process {running.pid}" in claim.owner(file)
    running.kill()
    running.wait()
    assert claim.owner(file) is None


def test_a_claim_lasts_as_long_as_the_run_that_inherited_it(tmp_path):
    file = tmp_path / "a.lock"
    with open(file, "w") as mine, open(os.devnull, "w") as log:
        import fcntl

        fcntl.flock(mine, fcntl.LOCK_EX)
        run = process.start([sys.executable, "-c", "import time; time.sleep(600)"], log, [mine.fileno()])
    try:
        assert claim.owner(file) is not None, "ours is closed, the run's is not"
    finally:
        process.stop([run])
    assert claim.owner(file) is None


@pytest.mark.parametrize(("age", "free"), [(5, False), (claim.STALE_SECONDS + 30, True)])
def test_the_heartbeat_of_another_machine_counts_where_its_lock_does_not_reach(tmp_path, age, free):
    file = tmp_path / "a.lock"
    file.write_text('{"host": "another", "pid": 3}')
    os.utime(file, (time.time() - age,) * 2)
    assert (claim.owner(file) is None) == free
    with claim.claimed(file) as ours:
        assert (ours is not None) == free


def test_a_folder_without_locks_is_refused_in_one_line(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(claim.fcntl, "flock", refuse)
    needed = r"cannot lock .* give --to a folder on a file system that has locks"
    with pytest.raises(UserError, match=needed), claim.claimed(tmp_path / "a.lock"):
        pass


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


def test_a_stopped_run_is_interrupted_like_by_ctrl_c_and_its_children_end_with_it(tmp_path):
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
    with open(tmp_path / "log", "wb") as log:
        run = process.start([sys.executable, "-c", code], log)
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
from kd_marl.suite import process
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
    monkeypatch.setattr(attempts, "_command", lambda job: command)
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
    (noted,) = job.ledger.attempts()
    assert noted.outcome == "stopped" and claim.owner(job.lock) is None


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
    with pytest.raises(UserError, match=r"needs ray, which is not installed: pip install 'kd-marl\[suite\]'"):
        cluster.RayPool("local", 1)
