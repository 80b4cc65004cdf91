"""The evidence page: estimates, comparisons and targets of the particle environments, and the figures' scales."""

from __future__ import annotations

import math
import statistics
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import mpe_baselines
import mpe_page
import results_evidence
import results_figure
import results_page

from kd_marl.errors import UserError
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


SPACE = "{http://www.w3.org/2000/svg}"


def vertical_scale(tree):
    """Number -> where the vertical axis has it, from the labels."""
    texts = [text for text in tree.iter(f"{SPACE}text") if text.get("text-anchor") == "end" and text.text]
    return {float(text.text): float(text.get("y")) - 4 for text in texts}


def test_the_panels_place_their_points_on_the_scale():
    points = [
        results_figure.Point("fo", 0.9, 0.85, 0.95, None),
        results_figure.Point("lh-paper", None, None, None, 0.8),
    ]
    words = results_figure.Words("a title", "an axis", "the paper")
    panel = results_figure.Panel("task <1>", 0.97, points)
    tree = ElementTree.fromstring(results_figure.panels([panel], words, shows=(90.0, 100.0)))
    scale = vertical_scale(tree)
    low, high = min(scale), max(scale)
    assert low <= 80 and high >= 100

    def place(value):
        return scale[low] + (value - low) / (high - low) * (scale[high] - scale[low])

    # The legend's circle is drawn about the origin.
    (circle,) = [c for c in tree.iter(f"{SPACE}circle") if float(c.get("cy")) > 60]
    assert float(circle.get("cy")) == pytest.approx(place(90), abs=0.2)
    dashed = [p.get("d") for p in tree.findall(f"{SPACE}path") if p.get("stroke-dasharray")]
    assert [float(d.split("h")[0].split()[1]) for d in dashed] == [pytest.approx(place(97), abs=0.2)]
    (whisker,) = [p.get("d") for p in tree.findall(f"{SPACE}path") if "V" in p.get("d")]
    top, bottom = (float(number) for number in whisker.split("M")[1].split(" ")[1].split("V"))
    assert (top, bottom) == (pytest.approx(place(95), abs=0.2), pytest.approx(place(85), abs=0.2))
    assert [text.text for text in tree.iter(f"{SPACE}text")].count("?") == 1


def test_the_curves_place_their_points_on_both_scales():
    lines = [results_figure.Curve("3m", [(0, 0.0), (1_500_000, 0.5), (3_000_000, 0.75)], kept=1_500_000)]
    tree = ElementTree.fromstring(results_figure.curves(lines, "a title"))
    up = vertical_scale(tree)
    across = {
        float(text.text): float(text.get("x"))
        for text in tree.iter(f"{SPACE}text")
        if text.get("text-anchor") == "middle" and text.text.replace(".", "").isdigit()
    }
    wide, high = (across[3] - across[0]) / 3, (up[100] - up[0]) / 100
    (line,) = tree.findall(f"{SPACE}polyline")
    drawn = [tuple(float(number) for number in point.split(",")) for point in line.get("points").split()]
    wanted = [(across[0] + wide * x, up[0] + high * y) for x, y in [(0, 0), (1.5, 50), (3, 75)]]
    assert drawn == [pytest.approx(point, abs=0.2) for point in wanted]
    (ring,) = tree.findall(f"{SPACE}circle")
    assert (float(ring.get("cx")), float(ring.get("cy"))) == drawn[1]


@pytest.mark.parametrize(("low", "high"), [(90, 100), (-431.5, 100), (0.1, 0.2), (99.9, 100)])
def test_ticks_are_round_and_cover_the_range(low, high):
    marks = results_figure.ticks(low, high)
    assert marks[0] <= low + 1e-6 and marks[-1] >= high - 1e-6
    assert 4 <= len(marks) <= 9
    step = marks[1] - marks[0]
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)


def test_without_any_run_there_is_no_page(grid, tmp_path):
    with pytest.raises(UserError, match="no finished run that counts: kd-marl suite run"):
        results_page.write([grid], tmp_path / "docs")
    assert not (tmp_path / "docs").exists()
