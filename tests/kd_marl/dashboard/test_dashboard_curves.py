"""Curves of chosen runs: groups over seeds, their mean and interval, and the names of lines."""

import numpy as np
import pytest

from kd_marl.dashboard.curves import MOST_POINTS, Chosen, grouped, groups, labels, mean_curve, single
from kd_marl.dashboard.rows import Row

# Student's t at 97.5 % for two and three values, from a table.
T1, T2 = 12.7062, 4.3027


def run(number, seed, curve=None, started=None, **settings):
    config = {"name": "kd_student", "env_args": {"map_name": "3m", "seed": seed}, "seed": seed, "lr": 0.01, **settings}
    row = Row(f"r{number}", method="kd_student", task="3m", limits="lh", seed=seed, started=started or number)
    return Chosen(row, config, {} if curve is None else {"loss": curve})


def test_runs_that_differ_in_nothing_but_their_seed_are_a_group():
    runs = [run(1, 1), run(2, 2), run(3, 1, lr=0.02), run(4, 3, label="another", local_results_path="elsewhere")]
    assert [[one.row.key for one in members] for members in groups(runs)] == [["r1", "r2", "r4"], ["r3"]]


def test_mean_and_interval_of_three_seeds_by_hand():
    curves = [([0, 100], [1.0, 10.0]), ([0, 100], [2.0, 10.0]), ([0, 100], [6.0, 10.0])]
    (line,) = grouped([run(i, i, curve) for i, curve in enumerate(curves)], "loss")
    assert line["steps"] == [0, 100]
    assert line["seeds"] == 3
    assert line["values"] == [3.0, 10.0]
    # Of 1, 2 and 6: the sample's standard deviation is the root of 7.
    half = T2 * 7**0.5 / 3**0.5
    assert line["low"] == pytest.approx([3 - half, 10], rel=1e-4)
    assert line["high"] == pytest.approx([3 + half, 10], rel=1e-4)


def test_one_seed_has_no_interval():
    (line,) = grouped([run(1, 1, ([0, 5], [1.0, 2.0]))], "loss")
    assert (line["values"], line["low"], line["high"]) == ([1.0, 2.0], [None, None], [None, None])


def test_seeds_that_log_at_other_steps_are_taken_between_their_points():
    steps, mean, low, high = mean_curve(
        [(np.array([0.0, 10, 20]), np.array([0.0, 10, 20])), (np.array([0.0, 8, 16, 24]), np.array([0.0, 16, 32, 48]))]
    )
    assert steps.tolist() == [0, 8, 16, 24]
    # At 24 the first has its last value: it ends within half a step.
    assert mean.tolist() == [0, 12, 24, 34]
    # Two values x and 2x: half their distance is the standard error.
    assert (high - low)[1] == pytest.approx(2 * T1 * 4, rel=1e-4)


def test_a_seed_that_has_not_got_so_far_does_not_count_there():
    longer, shorter = ([0, 10, 20, 30], [1.0, 1, 1, 1]), ([0, 10, 18], [3.0, 3, 3])
    (line,) = grouped([run(1, 1, longer), run(2, 2, shorter)], "loss")
    assert line["steps"] == [0, 10, 20, 30]
    # Its last point is within half a step of 20, and so counts there.
    assert line["values"] == [2, 2, 2, 1]
    assert [value is None for value in line["high"]] == [False, False, False, True]


def test_a_run_that_was_gone_on_with_counts_once():
    first, second = run(1, 1, ([0, 10, 20], [0.0, 1.0, 9.0])), run(2, 1, ([20, 30], [2.0, 3.0]))
    (line,) = grouped([second, first], "loss")
    assert (line["seeds"], line["steps"], line["values"]) == (1, [0, 10, 20, 30], [0, 1, 2, 3])


def test_gaps_are_left_out_of_means_and_stay_in_single_curves():
    gappy = run(1, 1, ([0, 10, 20], [0.0, None, 4.0]))
    (line,) = grouped([gappy, run(2, 2, ([0, 10, 20], [0.0, 4.0, 8.0]))], "loss")
    assert (line["steps"], line["values"]) == ([0, 10, 20], [0, 3, 6])
    assert single([gappy], "loss")[0]["values"] == [0.0, None, 4.0]


def test_a_run_that_has_not_logged_the_metric_has_no_line():
    assert single([run(1, 1)], "loss") == []
    assert grouped([run(1, 1)], "loss") == []


def test_long_curves_are_thinned_to_what_a_screen_shows():
    steps = list(range(100_000))
    (line,) = single([run(1, 1, (steps, [float(step) for step in steps]))], "loss")
    assert len(line["steps"]) == MOST_POINTS
    assert (line["steps"][0], line["steps"][-1]) == (0, 99_999)
    assert line["steps"] == line["values"]
    (line,) = grouped([run(1, 1, (steps, [1.0] * len(steps))), run(2, 2, (steps, [3.0] * len(steps)))], "loss")
    assert len(line["steps"]) == MOST_POINTS
    assert set(line["values"]) == {2.0}


def test_groups_of_one_name_are_told_apart_by_the_settings_that_differ():
    members = groups([run(1, 1), run(2, 1, lr=0.02), run(3, 1, lr=0.02, kl_coef=0.5)])
    assert labels(members)[:2] == ["kd_student, 3m, lh, lr=0.01", "kd_student, 3m, lh, lr=0.02"]
    assert labels(members)[2] == "kd_student, 3m, lh, kl_coef=0.5, lr=0.02"
    assert labels(members[:1]) == ["kd_student, 3m, lh"]


def test_a_damaged_configuration_is_a_group_of_its_own():
    odd = Chosen(Row("odd", method="kd_student", task="3m", limits="lh"), {}, {"loss": ([0], [1.0])})
    assert [len(members) for members in groups([odd, run(1, 1), run(2, 2)])] == [1, 2]
    assert labels(groups([odd, run(1, 1)]))[0] == "kd_student, 3m, lh, odd"
