"""The 95 % intervals, against the textbook."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_core.metrics.intervals import mean_interval, share_interval


def test_a_mean_has_students_interval():
    # 0, 1, ..., 9: mean 4.5, sample standard deviation 3.0277, t(0.975, 9) = 2.262157.
    values = np.arange(10.0)
    half = 2.262157 * 3.0276504 / math.sqrt(10)
    assert mean_interval(4.5, float(values.std()), 10) == pytest.approx((4.5 - half, 4.5 + half), abs=1e-4)
    assert mean_interval(1.0, 0.0, 1) == (-math.inf, math.inf)


def test_a_proportion_has_wilsons_interval():
    assert share_interval(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert share_interval(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


@given(st.integers(1, 2000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_wilsons_ends_are_where_the_normal_test_just_rejects(trial):
    successes, count = trial
    share = successes / count
    for end in share_interval(share, count):
        assert 0 <= end <= 1
        if 0 < end < 1:
            assert abs(share - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / count), rel=1e-5)
