"""The simulation of a cluster: what is counted, and that every made-up run is made."""

from __future__ import annotations

import cluster
import pytest

from kd_marl.suite.local import LocalPool


def test_a_worker_loses_what_lies_between_its_runs_and_the_first_round_does_not_count():
    # Two workers, three runs of 10 s each: the first round ends at 40 and 41, then one loses 1 s a run, the other 3 s.
    ends = [40.0, 51.0, 62.0, 41.0, 54.0, 67.0]
    assert cluster.lost(ends, workers=2, rounds=2, seconds=10.0) == pytest.approx(2.0)


def test_the_made_up_suite_goes_through_the_campaign():
    row = cluster.scale(2, 1, 0.1, LocalPool)
    assert (row["workers"], row["runs"]) == (2, 2)
    assert 0 < row["of_five_minutes"] < row["share"] < 1
