"""A suite's loop: each run once, after what it needs, retried as often as allowed, and told why it is broken."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_core.errors import UserError
from kd_marl.processes import process
from kd_marl.suite import attempt as attempts
from kd_marl.suite import lock
from kd_marl.suite.attempt import attempt
from kd_marl.suite.attempts_log import Outcome, State
from kd_marl.suite.campaign import Campaign, look
from kd_marl.suite.plan import Node
from kd_marl.suite.show import Show
from suite_jobs import job_of


class FakePlan:
    """Jobs by name; one is known once what it needs is made."""

    def __init__(self, folder, needs, **changes):
        self.nodes = {name: Node(name, "task", name, tuple(before)) for name, before in needs.items()}
        self.jobs = {name: job_of(folder, name, **changes) for name in needs}
        self.suite = SimpleNamespace(cpus_of=lambda _: 1)

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
    started, scripts, says = [], {}, {}

    def start(command, log, held, directory, variables):
        label = command[-1]
        started.append(label)
        script = scripts.get(label, [])
        event = script.pop(0) if script else "finish"
        if event == "finish":
            (Path(log.name).parents[1] / f"{label}.made").touch()
        log.write(says.get(label, b"error: that was it\n"))
        log.flush()
        return Ended({"finish": 0, "nothing": 0, "fail": 1, "kill": -9}[event])

    monkeypatch.setattr(
        attempts, "process", SimpleNamespace(start=start, stop=lambda _: 0, last_line=process.last_line)
    )
    return SimpleNamespace(started=started, scripts=scripts, says=says)


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


def test_a_run_that_somebody_else_makes_is_waited_for_and_not_made_again(tmp_path, scripted, monkeypatch, capsys):
    monkeypatch.setenv("KD_MARL_PROGRESS", "0")
    monkeypatch.setattr("kd_marl.suite.campaign._ELSEWHERE_SECONDS", 0.05)
    plan = FakePlan(tmp_path, {"a": [], "b": ["a"]})
    done, ready = threading.Event(), threading.Event()

    def other():
        with lock.locked(plan.jobs["a"].lock) as ours:
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
    waits = [line for line in capsys.readouterr().out.splitlines() if "waiting for a: " in line]
    assert len(waits) == 1 and socket.gethostname() in waits[0]


class Believed(Inline):
    """A pool whose jobs are said to be finished."""

    def ended(self, timeout):
        queue, self.queue = self.queue, []
        return [(job, attempts.Report(Outcome.FINISHED)) for job, _ in queue]


def test_what_is_finished_elsewhere_must_be_seen_here(tmp_path, monkeypatch):
    monkeypatch.setattr("kd_marl.suite.campaign._ARRIVAL_SECONDS", 0.5)
    plan = FakePlan(tmp_path, {"a": [], "b": ["a"]})
    for label in plan.nodes:
        threading.Timer(0.1, plan.jobs[label].proof.file.touch).start()
    assert Campaign(plan, Believed(), Show()).run() == {State.FINISHED: 2}
    for label in plan.nodes:
        plan.jobs[label].proof.file.unlink()
    with pytest.raises(UserError, match=r"a is finished, but its result is not in .*: give --to a folder that all"):
        Campaign(plan, Believed(), Show()).run()


@dataclass(frozen=True)
class Damaged:
    """A result that cannot be read."""

    def found(self):
        raise UserError("buffer.json is damaged")


def test_what_is_damaged_breaks_its_own_task_alone(tmp_path, scripted, capsys):
    plan = FakePlan(tmp_path, {"a": [], "b": ["a"], "c": []})
    plan.jobs["a"] = replace(plan.jobs["a"], proof=Damaged())
    plan.job = lambda label: None if label == "b" else plan.jobs[label]
    found = campaign(plan)
    assert found.run() == {State.BROKEN: 1, State.MISSING: 1, State.FINISHED: 1}
    assert found.reasons == {"a": "buffer.json is damaged"} and scripted.started == ["c"]


class Ticks(Show):
    """Keeps the estimates."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def tick(self, running, seconds):
        self.seconds.append(seconds)


class Slow(Inline):
    """A pool whose jobs have begun when it is asked first, and end the second time."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.asked, self.patch = False, monkeypatch

    def ended(self, timeout):
        if self.asked:
            return super().ended(timeout)
        self.asked = True
        for job, _ in self.queue:
            job.attempts_log.begin()
        return []


def note(job, *spans):
    """Attempts at a job of so many seconds, the last of which made it, if it is made."""
    for k, seconds in enumerate(spans, start=1):
        job.attempts_log.begin()
        job.attempts_log.end(Outcome.FINISHED if k == len(spans) and job.proof.found() else Outcome.STOPPED)
        *before, last = job.attempts_log.attempts()
        job.attempts_log._write([*before, replace(last, started=last.ended - seconds)])


@pytest.mark.parametrize(("goes_on", "expected"), [(True, 40.0), (False, 30.0)])
def test_the_estimate_knows_what_earlier_attempts_have_done(tmp_path, scripted, monkeypatch, goes_on, expected):
    plan = FakePlan(tmp_path, {"a": [], "b": []}, kind="3m/x", goes_on=goes_on)
    plan.jobs["a"].proof.file.touch()
    # All of it counts for a run that goes on, the last attempt for one that began again.
    note(plan.jobs["a"], 70.0, 30.0)
    note(plan.jobs["b"], 60.0)
    show = Ticks()
    assert Campaign(plan, Slow(monkeypatch), show).run() == {State.FINISHED: 2}
    assert show.seconds[0] == pytest.approx(expected, abs=2.0)


@pytest.mark.parametrize(("goes_on", "expected"), [(True, 40.0), (False, 30.0)])
def test_what_waits_takes_less_if_it_was_interrupted(tmp_path, scripted, goes_on, expected):
    plan = FakePlan(tmp_path, {"a": [], "b": []}, kind="3m/x", goes_on=goes_on)
    plan.nodes = {name: Node(name, "3m", "x") for name in plan.nodes}
    plan.jobs["a"].proof.file.touch()
    note(plan.jobs["a"], 70.0, 30.0)
    note(plan.jobs["b"], 60.0)
    show, pool = Ticks(), Inline()
    pool.room = lambda cpus: len(show.seconds) > 0
    assert Campaign(plan, pool, show).run() == {State.FINISHED: 2}
    assert show.seconds[0] == pytest.approx(expected, abs=2.0)


def test_a_run_that_was_made_while_it_waited_is_not_made_again(tmp_path, scripted):
    job = job_of(tmp_path, "a")
    job.proof.file.touch()
    assert attempt(job).outcome is Outcome.FINISHED
    assert scripted.started == [] and job.attempts_log.attempts() == []


def test_a_run_s_last_error_is_its_reason(tmp_path, scripted):
    scripted.scripts["a"] = ["fail"]
    report = attempt(job_of(tmp_path, "a"))
    assert report.outcome is Outcome.FAILED and report.message.startswith("error: that was it (all of it: ")


def test_what_an_earlier_attempt_said_is_not_the_reason_of_a_later_one(tmp_path, scripted):
    job = job_of(tmp_path, "a")
    job.log.parent.mkdir(parents=True)
    job.log.write_text("error: of long ago\n")
    scripted.scripts["a"], scripted.says["a"] = ["fail"], b"Traceback of today\n"
    assert attempt(job).message.startswith("Traceback of today (all of it: ")


def test_the_last_run_s_line_no_longer_says_when_all_ends(monkeypatch, capsys):
    monkeypatch.setenv("KD_MARL_PROGRESS", "0")
    show = Show()
    show.begin(0, 1)
    show.tick(["a"], 60.0)
    show.closed("a", State.FINISHED, "")
    running, finished = capsys.readouterr().out.splitlines()[1:]
    assert " to go" in running and " to go" not in finished


@pytest.mark.parametrize("watched", ["0", "1"])
def test_progress_shows_what_runs_what_is_left_and_when_it_ends(monkeypatch, capsys, watched):
    monkeypatch.setenv("KD_MARL_PROGRESS", watched)
    monkeypatch.setenv("COLUMNS", "80")
    show = Show()
    show.begin(1, 4)
    show.tick(["a", "b", f"{'x' * 60}/kd_student/lh/seed1"], 7200.0)
    show.closed("a", State.FINISHED, "")
    show.closed("c", State.BROKEN, "error: no room")
    show.tick(["b"], None)
    show.end()
    said = capsys.readouterr()
    text = said.err if watched == "1" else said.out
    assert "2 h 00 min to go, until " in text and "3/4" in text
    # tqdm's own guess counts what is left alone as made.
    assert "run/s" not in text and "<" not in text
    assert "broken c: error: no room" in text
    if watched == "0":
        assert "running a" in text and "finished a" in text and "1 of 4 runs are finished, 3 are left" in text
    else:
        assert "a, b" in text and said.out == ""
