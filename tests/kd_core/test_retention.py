"""Retention by hand and at its limits."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_core.metrics.retention import retention, retention_normalised, retention_signed

returns = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))


def test_win_rates_are_divided():
    assert retention(0.72, 0.9, win_rate=True) == pytest.approx(0.8)
    assert retention(0.95, 0.9, win_rate=True) > 1


def test_returns_lose_by_their_relative_distance():
    assert retention(-110.0, -100.0, win_rate=False) == pytest.approx(0.9)
    assert retention(45.0, 50.0, win_rate=False) == pytest.approx(0.9)


def test_the_literal_formula_counts_a_better_student_as_a_worse_one():
    assert retention(-90.0, -100.0, win_rate=False) == pytest.approx(retention(-110.0, -100.0, win_rate=False))


def test_the_signed_twin_counts_a_better_student_as_a_better_one():
    assert retention_signed(-90.0, -100.0) == pytest.approx(1.1)
    assert retention_signed(55.0, 50.0) == pytest.approx(1.1)


@given(returns, returns, st.floats(0, 1), st.floats(0.01, 1))
def test_the_signed_twin_is_the_paper_s_for_win_rates_and_for_students_no_better(student, teacher, won, won_by_teacher):
    assert retention_signed(won, won_by_teacher) == pytest.approx(retention(won, won_by_teacher, win_rate=True))
    if student <= teacher != 0:
        assert retention_signed(student, teacher) == pytest.approx(retention(student, teacher, win_rate=False))


def test_a_student_as_good_as_its_teacher_retains_all():
    assert retention(-18.5, -18.5, win_rate=False) == 1
    assert retention(0.4, 0.4, win_rate=True) == 1
    assert retention_normalised(-18.5, -18.5, -40.0) == 1


def test_normalised_retention_is_the_share_of_the_gain_over_random():
    assert retention_normalised(student=-25.0, teacher=-20.0, random=-40.0) == pytest.approx(0.75)
    assert retention_normalised(student=-40.0, teacher=-20.0, random=-40.0) == 0
    assert retention_normalised(student=-50.0, teacher=-20.0, random=-40.0) < 0


@given(returns, returns, returns, st.floats(-100, 100), st.floats(0.1, 10))
def test_normalised_retention_does_not_depend_on_zero_or_unit(student, teacher, random, shift, scale):
    expected = retention_normalised(student, teacher, random)
    if expected is None or abs(teacher - random) < 0.1:
        return
    moved = retention_normalised(*(scale * x + shift for x in (student, teacher, random)))
    assert moved == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("win_rate", [True, False])
def test_a_teacher_at_zero_has_no_retention(win_rate):
    assert retention(0.5, 0.0, win_rate) is None
    assert retention_signed(0.5, 0.0) is None


def test_a_teacher_no_better_than_random_has_no_normalised_retention():
    assert retention_normalised(-10.0, -20.0, -20.0) is None
    # It would be 112.9 % for a student worse than its teacher, and -300 % for the best possible one.
    assert retention_normalised(-358.0, -319.0, -17.0) is None
    assert retention_normalised(5.0, 0.0, 1.25) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_have_no_retention(bad):
    assert retention(bad, -1.0, win_rate=False) is None
    assert retention_signed(bad, -1.0) is None
    assert retention(-1.0, bad, win_rate=False) is None
    assert retention_normalised(-1.0, -2.0, bad) is None
