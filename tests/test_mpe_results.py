"""The evidence page: what counts as done, what is run again, and the numbers on the page."""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import mpe_evidence
import mpe_figure
import mpe_page
import mpe_results
from mpe_grid import BASELINE, EXPORT, STUDENT, Cell, Grid

from kd_marl import stages
from kd_marl.errors import UserError

LISTENER, SPREAD = "pz-mpe-simple-speaker-listener-v4", "pz-mpe-simple-spread-v3"
SIZES = {LISTENER: (2, 11), SPREAD: (3, 18)}
BASELINE_WORDS = ("hidden_dim=32", "final_evaluation=True", "use_cuda=False")
SHA = "ab" * 32
# Student's t at 0.975 with two degrees of freedom, from a printed table.
T2 = 4.302653

FAKE = """
import json, os, pathlib, sys
words = sys.argv[1:]
key = " ".join(words)
plan = json.load(open(os.environ["FAKE_PLAN"]))
with open(os.environ["FAKE_PLAN"] + ".calls", "a") as calls:
    calls.write(key + "\\n")
if plan[key].get("fails"):
    sys.exit("error: the fake refuses")
for name, content in plan[key]["files"].items():
    path = pathlib.Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
"""


@pytest.fixture
def grid(tmp_path, monkeypatch):
    for task, (n_agents, obs_size) in SIZES.items():
        facts = {"sha256": {"agent.th": SHA}, "n_agents": n_agents, "obs_size": obs_size}
        (tmp_path / "zoo" / task).mkdir(parents=True)
        (tmp_path / "zoo" / task / "teacher.json").write_text(json.dumps(facts))

    def stored(folder):
        file = folder / "buffer.json"
        return json.loads(file.read_text())["episodes"] if file.is_file() else 0

    monkeypatch.setattr(stages, "stored_episodes", stored)
    return Grid(tuple(SIZES), ("fo", "lha-paper"), (1, 2), tmp_path / "results", tmp_path / "zoo")


def summary(cell, teacher=-20.0, student=-25.0, sampled=-24.0, random=-60.0, retention=0.75):
    score = {"return_std": 1.0, "win_rate": None}
    common = {"task": cell.task, "seed": cell.seed, "episodes": 200}
    ours = {"return_mean": student, **score, "sampled": {"return_mean": sampled, **score}}
    if cell.algorithm == BASELINE:
        return {**common, "algorithm": BASELINE, "policy": ours}
    return {
        **common,
        "teacher": {"return_mean": teacher, **score},
        "student": ours,
        "random": {"return_mean": random, **score},
        "retention": retention,
        "retention_normalised": 0.875,
        "flops_ratio": 40.25,
        "agreement": 0.5,
        "widths": [32, 16],
        "teacher_artifact": {"path": "zoo", "sha256": {"agent.th": SHA}},
    }


def put_buffer(grid, task):
    grid.buffer(task).mkdir(parents=True, exist_ok=True)
    (grid.buffer(task) / "buffer.json").write_text(json.dumps({"episodes": 4000, "steps": 100_000}))


def files(grid, cell, number, **numbers):
    folder = grid.results / "sacred" / cell.algorithm / cell.task / str(number)
    return {
        str(folder / "config.json"): {**grid.config(grid.words(cell)), "seed": cell.seed},
        str(folder / "run.json"): {"experiment": {"repositories": [{"commit": "0123456789", "dirty": False}]}},
        str(folder / "summary.json"): summary(cell, **numbers),
    }


def put(grid, cell, number, **numbers):
    for name, content in files(grid, cell, number, **numbers).items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(json.dumps(content))


def row_of(page, task, setting, column):
    """The cells of the first table row of a setting after a task's heading and a table head with that column."""
    section = page.split(f"## {task}\n", 1)[1]
    table = section[section.index(f"| {column} |") :]
    line = next(line for line in table.splitlines() if line.startswith(f"| {setting} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def fake(grid, tmp_path, monkeypatch):
    """Runs the grid with a program that only writes a run's files; returns status and the command lines given to it."""
    script, plan_file = tmp_path / "fake.py", tmp_path / "plan.json"
    script.write_text(FAKE)
    monkeypatch.setenv("FAKE_PLAN", str(plan_file))

    def run(fails=(), **numbers):
        plan, number = {}, len(list(grid.results.glob("sacred/*/*/*"))) + 1
        for task in grid.tasks:
            buffer = {str(grid.buffer(task) / "buffer.json"): {"episodes": 4000, "steps": 100_000}}
            plan[" ".join(grid.export_words(task))] = {"files": buffer, "fails": f"{EXPORT}-{task}" in fails}
        student_steps = grid.config(grid.words(Cell(STUDENT, SPREAD, "fo", 1)))["t_max"]
        with monkeypatch.context() as planning:
            # A baseline's command line is known once the buffer is there.
            planning.setattr(Grid, "budget", lambda self, task: 100_000 + student_steps)
            for task in grid.tasks:
                for cell in grid.cells(task):
                    words, number = " ".join(grid.words(cell)), number + 1
                    plan[words] = {"files": files(grid, cell, number, **numbers), "fails": cell.label in fails}
        plan_file.write_text(json.dumps(plan))
        calls = Path(f"{plan_file}.calls")
        calls.write_text("")
        status = mpe_results.run(grid, 3, [sys.executable, str(script)])
        return status, calls.read_text().splitlines()

    return run


def test_every_run_is_made_once_after_one_export_for_each_task(grid, fake):
    status, calls = fake()
    assert status == 0
    algorithms = [call.split()[0].removeprefix("--config=") for call in calls]
    # Two tasks, each with 2 settings x 2 seeds of students and 2 sights x 2 seeds of baselines.
    assert algorithms[:2] == [EXPORT, EXPORT] and len(calls) == 2 + 8 + 8
    assert algorithms.count(STUDENT) == algorithms.count(BASELINE) == 8
    assert len(set(calls)) == len(calls)
    assert fake() == (0, [])


def test_command_lines_are_the_defaults_under_a_limit(grid):
    put_buffer(grid, SPREAD)
    student = grid.words(Cell(STUDENT, SPREAD, "lha-paper", 2))
    assert student == (
        *("--config=kd_student", "--env-config=mpe", "with", f"env_args.key={SPREAD}"),
        *(f"local_results_path={grid.results}", f"teacher={grid.zoo / SPREAD}"),
        *("limits=lha", "masks_preset=paper", "seed=2"),
    )
    baseline = grid.words(Cell(BASELINE, SPREAD, "lh-random", 1))
    student_steps = grid.config(student)["t_max"]
    assert baseline[-4:] == (*BASELINE_WORDS, f"t_max={100_000 + student_steps}")
    assert "limits=lh" in baseline and "masks_preset=random" in baseline
    assert not any(word.startswith("masks_preset") for word in grid.words(Cell(STUDENT, SPREAD, "fo", 1)))


def test_a_run_that_was_cut_short_is_repeated_alone(grid, fake):
    fake()
    victim = next(grid.results.glob(f"sacred/{STUDENT}/{SPREAD}/*/summary.json"))
    victim.unlink()
    status, calls = fake()
    assert status == 0 and len(calls) == 1 and SPREAD in calls[0]


def test_a_run_of_other_settings_is_not_counted_and_the_reason_is_said(grid, fake, capsys):
    fake()
    folder = next(grid.results.glob(f"sacred/{STUDENT}/{SPREAD}/*"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "lr": 0.5, "log_interval": 7}))
    status, calls = fake()
    assert status == 0 and len(calls) == 1
    said = capsys.readouterr().out
    assert f"{folder} is not counted: lr was 0.5 and is {config['lr']} now\n" in said


def test_a_student_of_another_teacher_is_not_counted(grid):
    put_buffer(grid, SPREAD)
    cell = Cell(STUDENT, SPREAD, "fo", 1)
    put(grid, cell, 1)
    assert grid.done(cell)
    facts = grid.teacher(SPREAD)
    facts["sha256"]["agent.th"] = "cd" * 32
    (grid.zoo / SPREAD / "teacher.json").write_text(json.dumps(facts))
    found, reasons = grid.find(cell)
    assert found is None and reasons[0].endswith("it had another teacher")


def test_the_newest_of_two_runs_counts(grid):
    cell = Cell(STUDENT, SPREAD, "fo", 1)
    put(grid, cell, 9, student=-1.0)
    put(grid, cell, 10, student=-2.0)
    assert grid.find(cell)[0].summary["student"]["return_mean"] == -2.0


def test_a_failed_run_is_reported_and_the_others_go_on(grid, fake, capsys):
    failing = Cell(STUDENT, SPREAD, "fo", 1)
    status, calls = fake(fails=[failing.label])
    assert status == 1 and len(calls) == 18
    said = capsys.readouterr()
    assert f"failed: {failing.label}: error: the fake refuses" in said.err
    assert "error: 1 failed, 0 were not tried" in said.out
    status, calls = fake()
    assert status == 0 and len(calls) == 1


def test_without_its_buffer_a_task_is_not_tried(grid, fake, capsys):
    status, calls = fake(fails=[f"{EXPORT}-{SPREAD}"])
    assert status == 1
    assert sum(SPREAD in call for call in calls) == 1 and sum(LISTENER in call for call in calls) == 9
    assert "error: 1 failed, 8 were not tried for want of a buffer" in capsys.readouterr().out


def test_a_stop_ends_every_run_with_its_workers(grid, tmp_path):
    pids = tmp_path / "pids"
    script = tmp_path / "sleeper.py"
    script.write_text(
        "import os, subprocess, time\n"
        "worker = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(pids)!r}, 'a').write(f'{{os.getpid()}} {{worker.pid}} ')\n"
        "time.sleep(600)\n"
    )
    jobs = [mpe_results.Job(name, (), lambda: False) for name in ("one", "two", "three")]

    class StopWhenStarted:
        def set_postfix_str(self, text, refresh):
            until = time.monotonic() + 20
            while time.monotonic() < until and (not pids.exists() or len(pids.read_text().split()) < 4):
                time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mpe_results.execute(jobs, 2, [sys.executable, str(script)], grid.results, StopWhenStarted())
    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == 4
    until = time.monotonic() + 10
    while time.monotonic() < until and any(alive(pid) for pid in started):
        time.sleep(0.05)
    assert not any(alive(pid) for pid in started)


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_estimate_is_students_interval():
    values = [1.0, 2.0, 6.0]
    found = mpe_evidence.estimate(values)
    assert found.mean == 3.0
    assert found.half == pytest.approx(T2 * statistics.stdev(values) / math.sqrt(3), rel=1e-6)
    assert found.text() == f"3.00 ± {T2 * math.sqrt(7.0 / 3):.2f}"
    assert mpe_evidence.estimate([5.0]).text(digits=1) == "5.0"
    assert mpe_evidence.estimate([]) is None and mpe_evidence.estimate([1.0, None]) is None


def test_the_page_holds_the_runs_numbers(grid):
    grid.seeds = (1, 2, 3)
    put_buffer(grid, LISTENER)
    for number, (seed, value, kept) in enumerate([(1, -20.0, 0.96), (2, -21.0, 0.97), (3, -25.0, 0.98)]):
        put(grid, Cell(STUDENT, LISTENER, "fo", seed), number, student=value, sampled=value - 1, retention=kept)
        put(grid, Cell(BASELINE, LISTENER, "fo", seed), number, student=value - 40, sampled=value - 30)
    put(grid, Cell(STUDENT, LISTENER, "lha-paper", 2), 7, student=-50.0, sampled=-49.0, retention=-1.5)
    put(grid, Cell(BASELINE, LISTENER, "lh-paper", 1), 8, student=-30.0, sampled=-29.0)
    page = mpe_page.page(mpe_evidence.Evidence.collect(grid))

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
    assert page.count("- kd_student on") == 2 + 6
    # Who sees what, and what that hides.
    assert "agent 1 (listener_0): V.x, V.y, M0.0, M0.1, M0.2; 5 of 11 features" in page
    assert "The listener sees neither the landmarks nor its own position" in page
    assert "0123456" in page and "`python benchmarks/mpe_results.py table`" in page


@pytest.mark.parametrize(
    ("ours", "theirs", "answer"),
    [
        ([-10.0, -10.1, -10.2], [-11.0, -11.1, -11.2], "yes"),
        ([-11.0, -11.1, -11.2], [-10.0, -10.1, -10.2], "no"),
        ([-11.0, -13.0, -12.0], [-10.0, -12.0, -11.0], "undecided"),
    ],
)
def test_the_comparison_with_mappo_takes_each_at_its_better_way_of_acting(grid, ours, theirs, answer):
    grid.tasks, grid.seeds, grid.settings = (LISTENER,), (1, 2, 3), ("lha-paper",)
    put_buffer(grid, LISTENER)
    for seed in grid.seeds:
        put(grid, Cell(STUDENT, LISTENER, "lha-paper", seed), seed, student=ours[seed - 1], sampled=-99.0)
        put(grid, Cell(BASELINE, LISTENER, "lh-paper", seed), seed, student=-99.0, sampled=theirs[seed - 1])
    evidence = mpe_evidence.Evidence.collect(grid)
    found, sentence = mpe_evidence.against_baseline(evidence, LISTENER, "lha-paper")
    assert found == answer
    assert ("the intervals do not overlap" in sentence) == (answer != "undecided")


def test_a_low_retention_misses_the_target(grid):
    grid.tasks = (LISTENER,)
    put_buffer(grid, LISTENER)
    for seed in grid.seeds:
        put(grid, Cell(STUDENT, LISTENER, "fo", seed), seed, retention=0.9)
    assert "**no** (90.0 ± 0.0 % at 40.2" in mpe_page.targets(mpe_evidence.Evidence.collect(grid))[0]


def test_the_figure_places_its_points_on_the_scale():
    rows = [mpe_figure.Point("fo", 0.9, 0.05, None), mpe_figure.Point("lh-paper", None, None, 0.8)]
    tree = ElementTree.fromstring(mpe_figure.figure({"task <1>": rows}))
    space = "{http://www.w3.org/2000/svg}"
    scale = {
        float(text.text): float(text.get("y")) - 4
        for text in tree.iter(f"{space}text")
        if text.get("text-anchor") == "end"
    }
    low, high = min(scale), max(scale)
    assert low <= 80 and high >= 100
    wanted = scale[low] + (90 - low) / (high - low) * (scale[high] - scale[low])
    # One circle is the legend's.
    (circle,) = [c for c in tree.iter(f"{space}circle") if float(c.get("cy")) > 60]
    assert float(circle.get("cy")) == pytest.approx(wanted, abs=0.2)
    assert [text.text for text in tree.iter(f"{space}text")].count("?") == 1


@pytest.mark.parametrize(("low", "high"), [(90, 100), (-431.5, 100), (0.1, 0.2), (99.9, 100)])
def test_ticks_are_round_and_cover_the_range(low, high):
    marks = mpe_figure.ticks(low, high)
    assert marks[0] <= low + 1e-6 and marks[-1] >= high - 1e-6
    assert 4 <= len(marks) <= 9
    step = marks[1] - marks[0]
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)


def test_without_any_run_there_is_no_page(grid, tmp_path):
    with pytest.raises(UserError, match=r"no finished run in .*: python benchmarks/mpe_results.py run makes them"):
        mpe_page.write(grid, tmp_path / "docs")
    assert not (tmp_path / "docs").exists()


def test_an_unknown_setting_is_refused_in_one_line(capsys):
    assert mpe_results.main(["table", "--settings", "lh_paper"]) == 2
    assert capsys.readouterr().err == "error: unknown setting 'lh_paper'; did you mean 'lh-paper' or 'lha-paper'?\n"


class TinyGrid(Grid):
    """The grid's runs, small: an export of 20 episodes, students of 500 steps."""

    def words(self, cell):
        blocks = ("batch_size_run=4", "batch_size=4", "buffer_size=4", "eval_episodes=4")
        small = ("buffer_episodes=20", "minibatch_episodes=4", "t_max=500") if cell.algorithm == STUDENT else ()
        return (*super().words(cell), *blocks, *small)

    def export_words(self, task):
        return (*super().export_words(task), "buffer_episodes=20")


@pytest.mark.slow
def test_real_runs_are_recognised_and_tabulated(root, tmp_path):
    grid = TinyGrid((LISTENER,), ("lh-paper",), (1,), tmp_path / "results")
    program = [sys.executable, str(root / "src" / "main.py")]
    status = mpe_results.run(grid, 1, program)
    assert status == 0, "".join(log.read_text()[-2000:] for log in (grid.results / "logs").glob("*.log"))
    # Nothing is left to do, so a program that always fails is not even started.
    assert mpe_results.run(grid, 1, ["false"]) == 0
    mpe_page.write(grid, tmp_path / "docs")
    page = (tmp_path / "docs" / "results.md").read_text()
    assert "1 of 1" in row_of(page, "simple_speaker_listener", "lh-paper", "setting")
    assert "trained for 1,000 environment steps" in page and "## Missing" not in page
    assert "<svg" in (tmp_path / "docs" / "results.svg").read_text()
