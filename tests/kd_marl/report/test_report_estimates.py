"""The report's statistics, against every resample there is and against plain arithmetic."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_marl.report.concentration import added, concentration, shares
from kd_marl.report.estimates import Estimate, estimate, iqm, mean, stratified


def plain_iqm(values):
    """Without a library: sort, cut a quarter off at either end, average."""
    values, cut = sorted(values), len(values) // 4
    kept = values[cut : len(values) - cut]
    return sum(kept) / len(kept)


def exact_interval(strata):
    """The 2.5th and 97.5th percentiles over all resamples, each equally likely."""
    each = [list(itertools.product(stratum, repeat=len(stratum))) for stratum in strata]
    found = sorted(plain_iqm([value for part in parts for value in part]) for parts in itertools.product(*each))
    return found[int(0.025 * (len(found) - 1))], found[int(np.ceil(0.975 * (len(found) - 1)))]


@pytest.mark.parametrize("count", range(1, 13))
def test_the_interquartile_mean_cuts_a_quarter_rounded_down(count):
    values = np.random.default_rng(count).normal(size=count)
    assert iqm(values) == pytest.approx(plain_iqm(values), rel=1e-12)


@pytest.mark.parametrize(
    "strata",
    [
        [[0.1, 0.5, 0.6, 0.9, 1.7]],
        [[1.0, 2.0, 6.0, 6.5]],
        [[0.8, 0.9], [0.2, 0.3, 0.7]],
        [[0.81, 0.85, 0.93], [0.5, 0.9]],
    ],
)
def test_the_interval_is_that_of_all_resamples(strata):
    found = stratified(strata)
    low, high = exact_interval(strata)
    spread = max(max(stratum) for stratum in strata) - min(min(stratum) for stratum in strata)
    assert found.centre == pytest.approx(plain_iqm([value for stratum in strata for value in stratum]))
    # 10,000 draws: the percentiles may fall on a neighbouring value of the resampled means.
    assert found.low == pytest.approx(low, abs=0.05 * spread)
    assert found.high == pytest.approx(high, abs=0.05 * spread)
    assert found.count == sum(map(len, strata))


def test_the_mean_has_an_interval_of_its_own():
    found = stratified([[0.0, 1.0, 5.0, 6.0]], mean)
    every = sorted(sum(values) / 4 for values in itertools.product((0.0, 1.0, 5.0, 6.0), repeat=4))
    assert found.centre == 3.0
    assert (found.low, found.high) == pytest.approx((every[6], every[249]), abs=0.26)


def test_strata_are_resampled_apart():
    # Two tasks far apart, each without any spread of its own: a bootstrap over all runs at once would mix them.
    found = stratified([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert (found.low, found.centre, found.high) == (0.5, 0.5, 0.5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=6), st.floats(0.5, 4), st.floats(-10, 10))
def test_the_interval_follows_shifts_and_scales_and_holds_the_mean_within_the_values(values, scale, shift):
    found = estimate(values)
    moved = estimate([scale * value + shift for value in values])
    assert (
        min(values) - 1e-9 <= found.low <= found.centre + 1e-9
        and found.centre - 1e-9 <= found.high <= max(values) + 1e-9
    )
    for name in ("centre", "low", "high"):
        assert getattr(moved, name) == pytest.approx(scale * getattr(found, name) + shift, abs=1e-6)


def test_what_cannot_be_estimated_is_not():
    assert estimate([]) is None
    assert estimate([0.5, None]) is None
    assert estimate([0.5, float("nan")]) is None
    assert estimate([0.5]) == Estimate(0.5, None, None, 1)
    assert stratified([[0.5], [0.6, 0.7]]).low is None
    assert estimate([0.25]).text(100, 1, " %") == "25.0 %"
    assert Estimate(0.5, 0.25, 0.75, 3).text(100, 1, " %") == "50.0 % [25.0, 75.0]"


def test_the_same_values_give_the_same_interval():
    assert estimate([1.0, 2.0, 4.0]) == estimate([1.0, 2.0, 4.0])


def test_concentration_in_bits():
    even = np.full((3, 2, 4), 5)
    measured = concentration(even)
    assert (measured.team_bits, measured.agent_bits, measured.effective_actions) == (2.0, 2.0, 4.0)
    always = np.zeros((3, 2, 4), int)
    always[..., 1] = 7
    assert (concentration(always).team_bits, concentration(always).agent_bits) == (0.0, 0.0)
    # Two agents that always do different things: each is certain, the team is not.
    split = np.zeros((1, 2, 4), int)
    split[0, 0, 0] = split[0, 1, 3] = 9
    assert (concentration(split).team_bits, concentration(split).agent_bits) == (1.0, 0.0)
    assert concentration(np.zeros((3, 2, 4))) is None


def test_agents_with_different_actions_are_different_teams():
    counts = np.zeros((1, 2, 2), int)
    counts[0, 0, 0] = counts[0, 1, 1] = 9
    assert concentration(counts, [["a", "b"], ["a", "b"]]).team_bits == 1.0
    assert concentration(counts, [["a", "b"], ["c", "d"]]).team_bits == 0.0


def test_steps_count_by_their_decisions():
    counts = np.zeros((2, 1, 2), int)
    counts[0, 0] = (1, 1)
    counts[1, 0] = (6, 0)
    assert concentration(counts).team_bits == pytest.approx((2 * 1.0 + 6 * 0.0) / 8)


def test_attacks_are_told_by_name_for_each_agent():
    counts = np.ones((1, 2, 3), int)
    names = [["stop", "target_0", "target_1"], ["stop", "north", "target_0"]]
    assert concentration(counts, names).attack_share == pytest.approx(3 / 6)
    assert concentration(counts, [["stop", "north", None]] * 2).attack_share is None


def test_shares_of_a_step_add_up_and_thin_steps_are_left_blank():
    counts = np.zeros((3, 2, 2), int)
    counts[0] = 100
    counts[1, 0] = (3, 1)
    found = shares(counts, least=0.005)
    np.testing.assert_allclose(found[:, :2].sum(axis=0), 1.0)
    np.testing.assert_allclose(found[:, 1], (0.75, 0.25))
    assert np.isnan(found[:, 2]).all() and np.isnan(shares(counts, least=0.02)[:, 1]).all()


def test_counts_of_different_lengths_are_added_step_by_step():
    one, two = np.ones((2, 1, 2), np.int32), np.full((3, 1, 2), 2, np.int32)
    total = added([one, two])
    np.testing.assert_array_equal(total[:, 0, 0], (3, 3, 2))
