"""The state of a suite's runs follows from what is on disk, and when it ends from how long others took."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_marl.suite.attempts_log import Attempt, AttemptsLog, Outcome, State, kills, spent, state_of
from kd_marl.suite.estimate import Durations, Load, seconds_left

OUTCOMES = [None, Outcome.FINISHED, Outcome.FAILED, Outcome.KILLED, Outcome.STOPPED]


def tried(*outcomes):
    return [Attempt(float(k), outcome=outcome) for k, outcome in enumerate(outcomes)]


STATES = [
    ([], State.MISSING),
    ([Outcome.FAILED], State.BROKEN),
    ([Outcome.KILLED], State.INTERRUPTED),
    ([Outcome.KILLED] * 2, State.INTERRUPTED),
    ([Outcome.KILLED] * 3, State.BROKEN),
    ([Outcome.KILLED, Outcome.KILLED, Outcome.STOPPED, Outcome.KILLED], State.INTERRUPTED),
    ([Outcome.STOPPED], State.INTERRUPTED),
    ([Outcome.FAILED, Outcome.STOPPED], State.INTERRUPTED),
    ([None], State.INTERRUPTED),
    ([Outcome.FINISHED], State.MISSING),
]


@pytest.mark.parametrize(("outcomes", "state"), STATES)
def test_the_state_without_a_result_follows_from_the_attempts(outcomes, state):
    assert state_of(False, False, tried(*outcomes), retries=2) is state


@given(st.lists(st.sampled_from(OUTCOMES), max_size=6), st.booleans(), st.integers(0, 3))
def test_a_result_is_finished_and_a_holder_is_running_whatever_was_tried(outcomes, held, retries):
    attempts = tried(*outcomes)
    assert state_of(True, held, attempts, retries) is State.FINISHED
    assert state_of(False, True, attempts, retries) is State.RUNNING
    state = state_of(False, False, attempts, retries)
    assert (state is State.MISSING) == (not outcomes or outcomes[-1] is Outcome.FINISHED)
    streak = sum(1 for _ in itertools.takewhile(lambda o: o is Outcome.KILLED, reversed(outcomes)))
    assert kills(attempts) == streak
    broken = bool(outcomes) and (outcomes[-1] is Outcome.FAILED or streak > retries)
    assert (state is State.BROKEN) == broken


def test_the_time_of_a_run_is_known_if_every_attempt_s_end_was_noted():
    noted = [Attempt(10.0, ended=40.0), Attempt(100.0, ended=105.0)]
    assert spent(noted) == 35.0
    assert spent([*noted, Attempt(200.0)]) is None


def test_what_was_killed_before_a_fresh_try_no_longer_counts():
    attempts = [*tried(*[Outcome.KILLED] * 3), Attempt(9.0, outcome=Outcome.KILLED, afresh=True)]
    assert state_of(False, False, attempts, retries=2) is State.INTERRUPTED


def test_attempts_are_kept_and_a_damaged_file_is_as_none(tmp_path):
    attempts_log = AttemptsLog(tmp_path / "runs" / "a.json", "a")
    attempts_log.begin()
    assert [attempt.outcome for attempt in attempts_log.attempts()] == [None]
    attempts_log.end(Outcome.FAILED, "why")
    attempts_log.begin(afresh=True)
    first, second = attempts_log.attempts()
    assert (first.outcome, first.message, second.afresh) == ("failed", "why", True)
    for damage in ("", "{", "[]", '{"attempts": [{"x": 1}]}', '{"attempts": 3}'):
        (tmp_path / "runs" / "a.json").write_text(damage)
        assert attempts_log.attempts() == []


def by_the_clock(running, waiting, slots):
    """Second after second, in whole seconds."""
    left, queue, now = [load for load in running if load.seconds], list(waiting), 0
    while left or queue:
        while queue and (not left or sum(load.cpus for load in left) + queue[0].cpus <= slots):
            left.append(queue.pop(0))
        now += 1
        left = [Load(load.seconds - 1, load.cpus) for load in left if load.seconds > 1]
    return now


@given(st.data())
def test_the_end_is_when_the_clock_says(data):
    slots = data.draw(st.integers(1, 4))
    cpus = st.integers(1, 3)
    running = data.draw(st.lists(st.builds(Load, st.integers(0, 9), cpus), max_size=slots))
    waiting = data.draw(st.lists(st.builds(Load, st.integers(1, 9), cpus), max_size=8))
    assert seconds_left(running, waiting, slots) == by_the_clock(running, waiting, slots)


def test_a_kind_that_is_not_known_is_judged_by_its_method_alone():
    durations = Durations()
    assert durations.of("3m/qmix") is None
    for kind, seconds in (("3m/vdn", 10.0), ("3m/vdn", 30.0), ("8m/qmix", 100.0), ("3m/qmix", 0.0)):
        durations.add(kind, seconds)
    assert durations.of("3m/vdn") == 20.0
    assert durations.of("3m/qmix") == 100.0
    assert durations.of("3m/iql") is None
