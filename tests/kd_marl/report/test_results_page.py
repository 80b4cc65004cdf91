"""The evidence page: estimates, comparisons and targets of the particle environments, and the figures' scales."""

from __future__ import annotations

import math
import statistics

import pytest

pytest.importorskip("matplotlib", reason="the figures need the extra report")

import mpe_baselines
import mpe_page
import results_evidence
import results_figure
import results_page
from matplotlib.figure import Figure

from kd_core.errors import UserError
from result_runs import (
    BASELINE,
    LISTENER,
    STUDENT,
    T2,
    make_grid,
    put,
    put_buffer,
    row_of,
    squeezed,
)


@pytest.fixture
def grid(tmp_path, monkeypatch):
    return make_grid(tmp_path, monkeypatch)


def test_estimate_is_students_interval():
    values = [1.0, 2.0, 6.0]
    found = results_evidence.estimate(values)
    assert found.mean == 3.0
    assert found.half == pytest.approx(T2 * statistics.stdev(values) / math.sqrt(3), rel=1e-6)
    assert found.text() == f"3.00 ± {T2 * math.sqrt(7.0 / 3):.2f}"
    assert results_evidence.estimate([5.0]).text(digits=1) == "5.0"
    assert results_evidence.estimate([]) is None and results_evidence.estimate([1.0, None]) is None


def test_the_page_holds_the_runs_numbers(tmp_path, monkeypatch):
    grid = make_grid(tmp_path, monkeypatch, seeds=(1, 2, 3))
    put_buffer(grid, LISTENER)
    for number, (seed, value, kept) in enumerate([(1, -20.0, 0.96), (2, -21.0, 0.97), (3, -25.0, 0.98)]):
        put(grid, STUDENT, LISTENER, "fo", seed, number, student=value, sampled=value - 1, retention=kept)
        put(grid, BASELINE, LISTENER, "fo", seed, number, student=value - 40, sampled=value - 30)
    put(grid, STUDENT, LISTENER, "lha-paper", 2, 7, student=-50.0, sampled=-49.0, retention=-1.5)
    put(grid, BASELINE, LISTENER, "lh-paper", 1, 8, student=-30.0, sampled=-29.0)
    page = squeezed(results_page.page([results_evidence.Evidence.collect(grid)]))

    name = "simple_speaker_listener"
    half = T2 * statistics.stdev([-20.0, -21.0, -25.0]) / math.sqrt(3)
    row = row_of(page, name, "fo", "setting")
    assert row[1:4] == ["-20.00 ± 0.00", f"-22.00 ± {half:.2f}", "-60.00 ± 0.00"]
    assert row[4] == f"97.0 ± {100 * T2 * 0.01 / math.sqrt(3):.1f} %"
    assert row[5:] == ["87.5 ± 0.0 %", "40.2 ± 0.0", "50.0 ± 0.0 %", "32, 16", "3 of 3", "-46.0 ± 2.0 (MAPPO)"]
    assert row_of(page, name, "lha-paper", "setting")[2] == "-50.00"
    # 1 - |-50 + 46| / 46
    assert row_of(page, name, "lha-paper", "setting")[-1] == "-50.0 ± 2.4 (91.3 %)"
    assert "| -46.0 ± 2.0 | -48.0 ± 2.2 | 95.7 % | -50.0 ± 2.4 | 91.3 % | 26.7 |" in page
    assert row_of(page, name, "fo", "setting | student, greedy")[1:3] == [row[2], f"-23.00 ± {half:.2f}"]
    assert row_of(page, name, "fo", "setting | student, greedy")[3:] == [
        f"-62.00 ± {half:.2f}",
        f"-52.00 ± {half:.2f}",
        "3 of 3",
    ]
    assert "- simple_speaker_listener, fo: at least 95 % retention at 28.6 times fewer FLOPs: **yes**" in page
    assert "fo: not worse than MAPPO under the same limit: **yes**" in page
    assert "lha-paper: not worse than MAPPO under the same limit: **undecided**" in page
    assert "simple_spread, fo: at least 95 % retention at 28.6 times fewer FLOPs: **not measured**" in page
    # The missing ones are named.
    assert f"- kd_student on {LISTENER}, lha-paper, seed 1\n" in page
    assert f"- mappo on {LISTENER}, lh-paper, seed 3\n" in page
    assert page.count("- kd_student on") == 2 + 3 + 9
    # Who sees what, and what that hides.
    assert "agent 1 (listener_0): V.x, V.y, M0.0, M0.1, M0.2; 5 of 11 features" in page
    assert "The listener sees neither the landmarks nor its own position" in page
    assert "0123456" in page and "`python benchmarks/results.py`" in page


@pytest.mark.parametrize(
    ("ours", "theirs", "answer"),
    [
        ([-10.0, -10.1, -10.2], [-11.0, -11.1, -11.2], "yes"),
        ([-11.0, -11.1, -11.2], [-10.0, -10.1, -10.2], "no"),
        ([-11.0, -13.0, -12.0], [-10.0, -12.0, -11.0], "undecided"),
        ([-10.0, -12.0, -11.0], [-11.0, -13.0, -12.0], "undecided"),
    ],
)
def test_the_comparison_with_mappo_takes_each_at_its_better_way_of_acting(tmp_path, monkeypatch, ours, theirs, answer):
    grid = make_grid(tmp_path, monkeypatch, tasks=(LISTENER,), settings=("lh-paper", "lha-paper"), seeds=(1, 2, 3))
    put_buffer(grid, LISTENER)
    for seed in (1, 2, 3):
        put(grid, STUDENT, LISTENER, "lha-paper", seed, seed, student=ours[seed - 1], sampled=-99.0)
        put(grid, BASELINE, LISTENER, "lh-paper", seed, seed, student=-99.0, sampled=theirs[seed - 1])
    evidence = results_evidence.Evidence.collect(grid)
    found, sentence = mpe_baselines.against_baseline(evidence, LISTENER, "lha-paper")
    assert found == answer
    assert ("the intervals do not overlap" in sentence) == (answer != "undecided")


def test_a_low_retention_misses_the_target(grid):
    for seed in (1, 2):
        put(grid, STUDENT, LISTENER, "fo", seed, seed, retention=0.9)
    assert "**no** (90.0 ± 0.0 % at 40.2" in mpe_page.targets(results_evidence.Evidence.collect(grid))[0]


@pytest.fixture
def axes():
    return Figure().subplots()


def test_the_panels_place_their_points_on_the_scale(axes):
    points = [
        results_figure.Point("fo", 0.9, 0.85, 0.95, None),
        results_figure.Point("lh-paper", None, None, None, 0.8),
    ]
    results_figure.draw_panel(axes, results_figure.Panel("a task", 0.97, points), shows=(90.0, 100.0))
    low, high = axes.get_ylim()
    assert low < 80 and high > 100
    teacher, ours, paper = (line.get_xydata().tolist() for line in axes.lines)
    assert [y for _, y in teacher] == [97, 97] and ours == [[0, 90]]
    ((_, y),) = paper
    assert y == 80
    (whisker,) = axes.collections[0].get_segments()
    assert whisker.tolist() == [[0, 85], [0, 95]]
    assert [text.get_text() for text in axes.texts] == ["?"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["fo", "lh\npaper"]


def test_the_curves_are_in_millions_of_steps_and_per_cent(axes):
    lines = [results_figure.Curve("3m", [(0, 0.0), (1_500_000, 0.5), (3_000_000, 0.75)], kept=1_500_000)]
    results_figure.draw_curves(axes, lines)
    curve, ring = (line.get_xydata().tolist() for line in axes.lines)
    assert curve == [[0, 0], [1.5, 50], [3, 75]] and ring == [[1.5, 50]]


def test_without_any_run_there_is_no_page(grid, tmp_path):
    with pytest.raises(UserError, match="no finished run that counts: kd-marl suite run"):
        results_page.write([grid], tmp_path / "docs")
    assert not (tmp_path / "docs").exists()


def test_a_listener_that_stands_still_returns_what_the_page_says():
    """-2 agents x 25 steps x 4/3, the mean squared distance of two points that are uniform in [-1, 1]^2."""
    pytest.importorskip("mpe2")
    from mpe2 import simple_speaker_listener_v4

    task = simple_speaker_listener_v4.parallel_env(max_cycles=25)
    returns = []
    for seed in range(400):
        task.reset(seed=seed)
        total = 0.0
        while task.agents:
            total += sum(task.step(dict.fromkeys(task.agents, 0))[1].values())
        returns.append(total)
    error = statistics.stdev(returns) / math.sqrt(len(returns))
    assert abs(statistics.fmean(returns) + 2 * 25 * 4 / 3) < 3 * error < 10
