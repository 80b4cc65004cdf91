"""A learner's crew is as large as asked, or as the cores that other programs leave free."""

import pytest

from kd_core import threads
from kd_core.threads import Crew, Usage


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    monkeypatch.setattr(threads, "_given", None)
    monkeypatch.setattr(threads, "cores", lambda: {0, 1, 2, 3})


def crew(idle: float, own: float, asked: int = 0, seconds: float = 2.0) -> Crew:
    """A crew of four cores after a look at which these many seconds were idle or its own."""
    before = Usage(10.0, 5.0, 1.0)
    times = iter((before, before, Usage(10.0 + seconds, 5.0 + idle, 1.0 + own)))
    made = Crew(asked, lambda: next(times))
    with made.at_work():
        pass
    return made


@pytest.mark.parametrize(
    ("idle", "own", "size"),
    [(0.0, 8.0, 4), (6.0, 2.0, 4), (0.0, 4.0, 2), (0.0, 0.5, 1), (2.0, 2.0, 2), (0.3, 7.0, 4), (9.0, 9.0, 4)],
    ids=[
        "all ours",
        "one thread alone",
        "half of them",
        "none left",
        "two others",
        "ticks",
        "odd",
    ],
)
def test_it_takes_the_cores_that_others_leave(idle, own, size):
    assert crew(idle, own).size == size


def test_it_begins_with_one_thread_and_a_short_look_changes_nothing():
    assert crew(idle=0.6, own=0.2, seconds=0.2).size == 1


def test_a_number_that_was_asked_for_stays(monkeypatch):
    assert crew(idle=0.0, own=0.5, asked=3).size == 3
    monkeypatch.setattr(threads, "_given", "2")
    assert crew(idle=0.0, own=0.5).size == 2


def test_without_the_systems_times_every_core_is_taken(monkeypatch, tmp_path):
    monkeypatch.setattr(threads, "_STAT", tmp_path / "nowhere")
    made = Crew(0)
    with made.at_work():
        pass
    assert made.size == 4


@pytest.mark.skipif(not threads._STAT.exists(), reason="the system does not tell how long its cores were idle")
def test_the_systems_times_go_forward():
    before, after = threads.usage(), threads.usage()
    assert before is not None and after is not None
    assert after.clock >= before.clock and after.idle >= before.idle >= 0 and after.own >= before.own > 0
