"""Progress on stderr, and where it goes without a terminal."""

from __future__ import annotations

import pytest

from kd_core import progress


@pytest.fixture
def unwatched(monkeypatch):
    monkeypatch.setenv(progress.VARIABLE, "0")


def draw(total, steps):
    bar = progress.bar("student", total, "step")
    for count in steps:
        bar.update(count)
    bar.close()


def test_where_the_log_is_a_file_a_line_now_and_then_says_how_much_is_done(unwatched, monkeypatch, capsys):
    monkeypatch.setenv(progress.LOG_FILE, "run.log")
    draw(2000, [500, 1500])
    assert capsys.readouterr().err == "student: 2,000 of 2,000 steps\n"
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.0)
    draw(2000, [500, 1500])
    assert capsys.readouterr().err == "student: 500 of 2,000 steps\nstudent: 2,000 of 2,000 steps\n"


def test_without_a_terminal_and_with_the_log_on_the_console_there_is_no_progress(unwatched, monkeypatch, capsys):
    monkeypatch.delenv(progress.LOG_FILE, raising=False)
    draw(2000, [500, 1500])
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar(monkeypatch, capsys):
    monkeypatch.setenv(progress.VARIABLE, "1")
    monkeypatch.setenv(progress.LOG_FILE, "run.log")
    draw(2000, [2000])
    assert "student: 100%" in capsys.readouterr().err
