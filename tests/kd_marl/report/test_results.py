"""The page of results and the README's block: means over seeds, targets, MAPPO beside students, and the teachers."""

from __future__ import annotations

import json
import math
import re
import statistics
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

pytest.importorskip("matplotlib", reason="the figures need the extra report")

import matplotlib

from kd_core import stages
from kd_core.artifacts.teacher import REQUIRED_FACTS
from kd_marl.report import command, figure_costs, figure_curves, results, scores
from kd_marl.report.estimates import Mean, mean_of
from kd_marl.report.groups import Cell
from kd_marl.runs import paper, reachable
from report_runs import SHA, SPREAD, grouped, put

LISTENER = "pz-mpe-simple-speaker-listener-v4"
# Student's t at 0.975 with two degrees of freedom, from a printed table.
T2 = 4.302653
TEST = {"episodes": 500, "greedy": {"win_rate": 0.85}, "sampled": {"win_rate": 0.92}}
TEACHER = {
    "steps": 4_000_123,
    "best_test_step": 2_000_000,
    "command": "python src/main.py --config=kd_teacher",
    "train_seconds": 3000.0,
    "tests": [[1_000_000, 1.1, 0.4], [2_000_000, 1.9, 0.9], [4_000_000, 1.8, 0.8]],
    "test": TEST,
}


def put_all(folder, task, limits, values, **given):
    """Runs with these scores, one a seed."""
    numbers = len(list(folder.rglob("summary.json")))
    for seed, score in enumerate(values, 1):
        put(folder, numbers + seed, task=task, limits=limits, seed=seed, score=score, **given)


def put_teacher(folder, like, **facts):
    """Write the facts of a task's bundled teacher but for its tests, or others; nothing here reads its weights."""
    bundled = json.loads((stages.ZOO / like / "teacher.json").read_text())
    needed = {key: value for key, value in bundled.items() if key in {*REQUIRED_FACTS, "format", "version"}}
    folder.mkdir(parents=True, exist_ok=True)
    facts = {**needed, "test": {}, "sha256": {"agent.th": SHA}, **facts}
    (folder / "teacher.json").write_text(json.dumps(facts))


def squeezed(page):
    """A page without the blanks that align its tables."""
    return re.sub(r" +", " ", page)


def row_of(page, head, *first):
    """The cells of the first row that begins so, of the first table whose head begins so."""
    lines = squeezed(page)[squeezed(page).index(f"| {head}") :].splitlines()
    line = next(line for line in lines if line.startswith(f"| {' | '.join(first)} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def texts(svg):
    """The words of a drawing."""
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def numbers(svg):
    """The numbers of a drawing that are not whole: its places and widths."""
    return [float(number) for number in re.findall(r"-?\d+\.\d+", svg)]


def test_a_mean_has_students_interval():
    values = [1.0, 2.0, 6.0]
    found = mean_of(values)
    assert found.centre == 3.0
    assert found.half == pytest.approx(T2 * statistics.stdev(values) / math.sqrt(3), rel=1e-6)
    assert found.text() == f"3.00 ± {T2 * math.sqrt(7.0 / 3):.2f}"
    assert mean_of([5.0]).text(digits=1) == "5.0" and mean_of([5.0]).ends is None
    assert mean_of([]) is None and mean_of([1.0, None]) is None


def test_the_page_holds_the_runs_numbers(tmp_path):
    wins, returns = [0.80, 0.82, 0.90], [-20.0, -21.0, -25.0]
    put_all(tmp_path, "3m", "lh", wins, teacher=0.9)
    put_all(tmp_path, LISTENER, "fo", returns, env="gymma", teacher=-20.0)
    put_all(tmp_path, LISTENER, "lha", [-50.0], env="gymma", teacher=-20.0)
    page, pictures = results.page(grouped(tmp_path))
    half = T2 * statistics.stdev(wins) / math.sqrt(3)
    assert row_of(page, "task | limits | teacher", "3m", "lh") == [
        *("3m", "lh", "90.0 ± 0.0 %", f"84.0 ± {100 * half:.1f} %"),
        *(f"{100 * 0.84 / 0.9:.1f} ± {100 * half / 0.9:.1f} %", "96.6 %", "-", "50.0 ± 0.0"),
    ]
    # 93.3 % reaches 92 %, which three such seeds do not settle.
    assert row_of(page, "task | limits | random", "3m", "lh")[2:] == [
        *(
            "0.0 ± 0.0 %",
            f"84.0 ± {100 * half:.1f} %",
            f"93.3 ± {100 * half / 0.9:.1f} %",
            "85.0 ± 0.0 %",
            "32",
            "3 x 200",
        ),
        *("92 %: met, but within the interval", "met"),
    ]
    particles = page.split("## Particle environments (MPE)")[1]
    half = T2 * statistics.stdev(returns) / math.sqrt(3)
    found = row_of(particles, "task | limits | teacher", "simple_speaker_listener", "fo")
    assert found[2:4] == ["-20.00 ± 0.00", f"-22.00 ± {half:.2f}"] and found[-3:] == ["-", "-", "50.0 ± 0.0"]
    assert row_of(particles, "task | limits | teacher", "simple_speaker_listener", "lha paper")[2:] == [
        *("-20.00", "-50.00", "-50.0 %", "91.3 %", "-", "50.0"),
    ]
    below = row_of(particles, "task | limits | random", "simple_speaker_listener", "fo")
    assert below[8] == "95 %: not met, but within the interval"
    assert "| simple_speaker_listener | -46.0 ± 2.0 | -82.0 ± 3.2 |" in squeezed(particles)
    assert "0123456 (4 runs)" in particles and results.COMMAND in page
    assert [picture.name for picture in pictures] == ["retention"]
    assert page.count("<details") == page.count("</details>")


@pytest.mark.parametrize(
    ("ours", "theirs", "answer"),
    [
        ([-10.0, -10.1, -10.2], [-11.0, -11.1, -11.2], "yes"),
        ([-11.0, -11.1, -11.2], [-10.0, -10.1, -10.2], "no"),
        ([-11.0, -13.0, -12.0], [-10.0, -12.0, -11.0], "undecided"),
        ([-10.0, -12.0, -11.0], [-11.0, -13.0, -12.0], "undecided"),
        ([-10.0, -10.1, -10.2], [-11.0], "undecided"),
        ([-10.0, -10.1, -10.2], [], "not measured"),
    ],
)
def test_the_comparison_with_mappo_takes_each_at_its_better_way_of_acting(tmp_path, ours, theirs, answer):
    def acting(greedy, sampled):
        return {"return_mean": greedy, "win_rate": None, "sampled": {"return_mean": sampled, "win_rate": None}}

    for seed, score in enumerate(ours, 1):
        put(
            tmp_path,
            seed,
            task=LISTENER,
            env="gymma",
            limits="lha",
            seed=seed,
            summary={"student": acting(score, -99.0)},
        )
    for seed, score in enumerate(theirs, 1):
        given = {"task": LISTENER, "env": "gymma", "seed": seed, "summary": {"policy": acting(-99.0, score)}}
        put(tmp_path, seed, "mappo", **given)
    found = grouped(tmp_path)
    assert results.against_baseline(found, Cell(("gymma", LISTENER), "kd_student", "lha", "paper")) == answer
    page, _ = results.page(found)
    assert ("### Against MAPPO" in page) == bool(theirs)
    if len(theirs) == 3:
        assert row_of(page, "task | limits | student, greedy", "simple_speaker_listener", "lha paper")[-2:] == [
            *("3 x 1,000", answer),
        ]


@pytest.mark.parametrize(
    ("centre", "half", "answer"),
    [
        (0.98, 0.005, "met"),
        (0.98, 0.02, "met, but within the interval"),
        (0.96, 0.005, "not met"),
        (0.96, 0.02, "not met, but within the interval"),
        (0.98, None, "met"),
        (0.97, 0.0, "met"),
    ],
)
def test_a_target_inside_the_interval_is_said_to_be(centre, half, answer):
    assert results.verdict(Mean(centre, half), 0.97) == answer


def test_retention_on_average_is_the_mean_over_the_maps_of_each_seed(tmp_path):
    put_all(tmp_path, "3m", "lh", [0.81, 0.81, 0.90], teacher=0.9)
    put_all(tmp_path, "8m", "lh", [0.90, 0.81, 0.81], teacher=0.9)
    found = grouped(tmp_path)
    # Seed by seed: 0.95, 0.9 and 0.95.
    value = results.mean_retention(found, found.tasks, "lh")
    assert value.centre == pytest.approx(2.8 / 3)
    assert value.half == pytest.approx(T2 * statistics.stdev([0.95, 0.9, 0.95]) / math.sqrt(3))
    assert results.mean_retention(found, found.tasks, "lha") is None
    assert "mean of the maps, lh: at least 95 % of the teacher's win rate: **not met, but" in results.page(found)[0]


@pytest.mark.parametrize(
    ("greedy", "seconds", "answer"),
    [
        (0.9, 7200, "met"),
        (0.898, 7200, "not met"),
        (0.9 - 1e-12, 60, "met"),
        (0.95, 7201, "not met"),
        (0.95, None, "met in wins"),
    ],
)
def test_a_teacher_is_held_to_its_wins_and_its_hours(greedy, seconds, answer):
    test = {"episodes": 500, "greedy": {"win_rate": greedy}, "sampled": {"win_rate": 0.5}}
    assert results.teacher_verdict("8m", {"test": test, "train_seconds": seconds}) == answer
    assert results.teacher_verdict("8m", {"test": {}}) == "not measured"


def test_the_teachers_table_counts_battles_and_names_the_bundled_others(tmp_path, monkeypatch):
    zoo = tmp_path / "zoo"
    monkeypatch.setattr(scores, "ZOO", zoo)
    put_teacher(zoo / "3m", "3m", **TEACHER, begun_with={"sha256": {}, "command": "python first"})
    put_teacher(zoo / "3m_strong", "3m", **{**TEACHER, "command": "python stronger"})
    put_teacher(zoo / "8m_strong", "8m", **TEACHER)
    artifact = {"path": str(zoo / "3m"), "sha256": {"agent.th": SHA}}
    put_all(tmp_path / "results", "3m", "lh", [0.8, 0.8, 0.8], teacher=0.85, summary={"teacher_artifact": artifact})
    found = grouped(tmp_path / "results")
    page, pictures = results.page(found)
    row = row_of(page, "teacher | greedy", "3m")
    # Wilson's interval by hand: 460 of 500 battles.
    z, n, p = 1.959964, 500, 0.92
    middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (100 * (middle + sign * spread) / (1 + z * z / n) for sign in (-1, 1))
    assert row[2] == f"92.0 % ({low:.1f} to {high:.1f})"
    # Its students met it at 85 %.
    assert row[3:] == ["500", "4,000,123", "2,000,000", "50", "90 %: met in its own test alone"]
    assert row_of(page, "teacher | greedy", "3m_strong")[-1] == "90 %: met" and "8m_strong" not in page
    both = "`python first`, then `python src/main.py --config=kd_teacher`"
    assert f"- 3m: `kd-marl teachers train 3m` runs {both}\n" in page and "- 3m_strong: `python stronger`\n" in page
    assert {"3m", "3m_strong", "win rate, per cent"} <= {*texts(pictures[1].svg)}
    assert figure_curves.teacher_curves(grouped(put(tmp_path / "none", 1).parent)) is None


def test_chance_is_computed_from_the_battles_and_the_seeds(tmp_path):
    put_all(tmp_path, "3m", "fo", [0.9, 0.9, 0.9], summary={"episodes": 500})
    page = results.page(grouped(tmp_path))[0].replace("\n", " ")
    single = 1.96 * 100 * math.sqrt(0.9 * 0.1 / 500)
    ratio = 1.96 * 100 * math.sqrt(2 * 0.1 / 0.9 / 500 / 3)
    assert f"counted over 500 battles is uncertain by itself: a policy that wins 90 % shows that ± {single:.1f}" in page
    assert f"shows 100 ± {ratio:.1f} % of it" in page


@pytest.mark.parametrize(
    ("task", "lh", "lha"), [("3m", 96.6, 92.1), ("8m", 99.0, 98.1), ("5m_vs_6m", 94.8, 90.8), ("3s5z", 88.2, 85.2)]
)
def test_the_papers_students_retain_what_its_table_says(task, lh, lha):
    found = [paper.retention_of(task, "kd_student", limits) for limits in ("fo", "lh", "lha")]
    assert found[0] is None and [round(100 * value, 1) for value in found[1:]] == [lh, lha]


def test_a_retention_below_the_panel_is_an_arrow_with_its_number(tmp_path):
    put_all(tmp_path, LISTENER, "lh", [-60.0], env="gymma", teacher=-20.0)
    put_all(tmp_path, LISTENER, "fo", [-19.0], env="gymma", teacher=-20.0)
    put_all(tmp_path, "3m", "lh", [0.81], teacher=0.9)
    words = texts(figure_costs.retention_overview(grouped(tmp_path)).svg)
    assert "-100 %" in words and {"StarCraft maps (SMAX)", "Particle environments (MPE)", "3m", "the paper"} <= {*words}
    assert figure_costs.retention_overview(grouped(put(tmp_path / "x", 1, "mappo").parent)) is None


def test_the_readme_has_its_block_between_the_markers_and_nothing_else_changes(tmp_path, monkeypatch):
    put_all(tmp_path / "results", "8m", "lh", [0.81, 0.81], teacher=0.9)
    run = grouped(tmp_path / "results").main[Cell(("smax", "8m"), "kd_student", "lh", "paper")].runs[0]
    known = replace(
        reachable.read()[0],
        **{"setting": reachable.setting_of(run.config), "task": "8m", "limits": "lh", "masks_preset": "paper"},
        **{"measure": "win_rate", "message_bits": 0, "value": 0.9},
    )
    monkeypatch.setattr(reachable, "read", lambda: [known])
    put_all(tmp_path / "results", SPREAD, "lh", [-50.0, -50.0], env="gymma", teacher=-40.0, preset="random")
    found = grouped(tmp_path / "results")
    readme = f"# x\n\n{results.README_BEGIN}\nold\n{results.README_END}\n\nrest\n"
    (tmp_path / "README.md").write_text(readme)
    command._site(tmp_path, found)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith(f"# x\n\n{results.README_BEGIN}\n![Retention") and text.endswith("\n\nrest\n")
    assert "](docs/figures/retention.svg)" in text and "old" not in text
    assert row_of(text, "task", "8m", "lh")[2:] == [
        "90.0 ± 0.0 %",
        "81.0 ± 0.0 %",
        "90.0 ± 0.0 %",
        "99.0 %",
        "90.0 ± 0.0 %",
        "50.0 ± 0.0",
    ]
    assert row_of(text, "task", "simple_spread", "lh random")[4:6] == ["75.0 ± 0.0 %", "94.6 %"]
    # Not run here.
    assert row_of(text, "task", "3s5z", "lh")[2:] == ["-", "-", "-", "88.2 %", "-", "-"]
    assert (tmp_path / "docs" / "figures" / "retention.svg").is_file()
    assert (tmp_path / "docs" / "results.md").read_text() == results.page(found)[0]
    assert results.update_readme("no markers", found, "docs/figures") is None
    assert results.update_readme(text, found, "docs/figures") == text


# ------------------------------------------------------------------------------------------------- the project's pages
@pytest.fixture(scope="module")
def evidence(root):
    return grouped(*sorted((root / "evidence").glob("*.json.xz")))


def test_the_page_of_results_is_what_the_evidence_says(root, evidence):
    page, pictures = results.page(evidence)
    assert (root / "docs" / "results.md").read_text(encoding="utf-8") == page
    for picture in pictures:
        drawn = (root / "docs" / "figures" / f"{picture.name}.svg").read_text(encoding="utf-8")
        if matplotlib.__version_info__ >= (3, 11):
            assert drawn == picture.svg
        else:  # Matplotlib 3.10, the last for Python 3.10, measures text otherwise: places move by a point or two.
            assert texts(drawn) == texts(picture.svg)
            assert numbers(drawn) == pytest.approx(numbers(picture.svg), abs=3)


def test_the_readme_is_what_the_evidence_says(root, evidence):
    readme = (root / "README.md").read_text(encoding="utf-8")
    if (new := results.update_readme(readme, evidence, "docs/figures")) is None:
        pytest.skip(f"README.md has no {results.README_BEGIN}")
    assert new == readme


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
