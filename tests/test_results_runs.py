"""The evidence runs: what counts as done, what is made again, and that nothing is left running."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import results
import results_page
from results_evidence import Evidence

from result_runs import (
    BASELINE,
    EXPORT,
    LISTENER,
    MPE,
    SMAX,
    SPREAD,
    STUDENT,
    Cell,
    Grid,
    files,
    make_grid,
    put,
    put_buffer,
    row_of,
)

BASELINE_WORDS = (
    *("hidden_dim=32", "runner=vector", "eval_episodes=1000"),
    *("final_evaluation=True", "use_cuda=False"),
)

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
    return make_grid(tmp_path, monkeypatch)


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
        status = results.run(grid, 3, [sys.executable, str(script)])
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
        *("limits=lha", "masks_preset=paper", "seed=2", "eval_episodes=1000"),
    )
    baseline = grid.words(Cell(BASELINE, SPREAD, "lh-random", 1))
    student_steps = grid.config(student)["t_max"]
    assert baseline[-1 - len(BASELINE_WORDS) :] == (*BASELINE_WORDS, f"t_max={100_000 + student_steps}")
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


def test_a_run_from_before_a_key_counts_if_that_key_is_as_it_was(grid):
    cell = Cell(STUDENT, SPREAD, "fo", 1)
    put(grid, cell, 1)
    file = next(grid.results.glob(f"sacred/{STUDENT}/{SPREAD}/1/config.json"))
    config = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in config.items() if key != "feature_coef"}))
    found, _ = grid.find(cell)
    assert found is not None and found.shares_episodes
    file.write_text(json.dumps({**config, "feature_coef": 0.5}))
    assert grid.find(cell)[0] is None


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
    jobs = [results.Job(name, (), lambda: False) for name in ("one", "two", "three")]

    class StopWhenStarted:
        def set_postfix_str(self, text, refresh):
            until = time.monotonic() + 20
            while time.monotonic() < until and (not pids.exists() or len(pids.read_text().split()) < 4):
                time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        results.execute(jobs, 2, [sys.executable, str(script)], grid.results, StopWhenStarted())
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


def test_smax_command_lines_and_no_baselines(tmp_path, monkeypatch):
    grid = make_grid(tmp_path, monkeypatch, SMAX, ("3m",), ("fo", "lha"))
    lines = [grid.words(cell) for cell in grid.cells("3m")]
    begin = ("--config=kd_student", "--env-config=smax", "with", "env_args.map_name=3m")
    begin += (f"local_results_path={grid.results}", f"teacher={grid.zoo / '3m'}")
    assert lines == [
        (*begin, "limits=fo", "hidden_dim=16", "seed=1", "eval_episodes=2000"),
        (*begin, "limits=fo", "hidden_dim=16", "seed=2", "eval_episodes=2000"),
        (*begin, "limits=lha", "seed=1", "eval_episodes=2000"),
        (*begin, "limits=lha", "seed=2", "eval_episodes=2000"),
    ]
    # The environment's YAML and the words are in the configuration that a run on disk is compared with.
    config = grid.config(lines[0])
    assert (config["env_args"]["episode_limit"], config["hidden_dim"], config["eval_episodes"]) == (100, 16, 2000)


def test_families_share_the_command_and_have_folders_of_their_own(tmp_path, capsys):
    words = ["run", "--dry-run", "--seeds", "1", "--results", str(tmp_path)]
    words += ["--tasks", SPREAD, "3m", "--settings", "fo", "lh-paper"]
    results.main(words)
    said = capsys.readouterr().out
    smax, mpe = said.index("smax: "), said.index("mpe: 1 exports and 4 runs to make")
    assert smax < mpe and f"{SPREAD}-lh-paper-mappo-seed1" in said
    results.main([*words, "--family", "mpe"])
    assert "smax" not in capsys.readouterr().out
    parsed = results._parser().parse_args(words)
    assert [(grid.results.name, grid.tasks, grid.settings) for grid in results._grids(parsed)] == [
        ("smax", ("3m",), ("fo",)),
        ("mpe", (SPREAD,), ("fo", "lh-paper")),
    ]


@pytest.mark.parametrize("words", [["--settings", "lh-paper"], ["--settings", "fo", "--seeds", "4"]], ids=" ".join)
def test_a_task_without_such_runs_in_its_family_is_refused(words, capsys):
    assert results.main(["run", "--tasks", "3m", *words]) == 2
    assert capsys.readouterr().err.startswith("error: no family has the tasks, settings and seeds that were named")


def test_a_row_has_the_seeds_of_its_family_or_those_that_were_named():
    named = results._grids(results._parser().parse_args(["table", "--family", "smax", "--seeds", "3", "4"]))[0]
    every = results._grids(results._parser().parse_args(["table", "--family", "smax"]))[0]
    found = [(cell.setting, cell.seed) for grid in (named, every) for cell in grid.cells("3m")]
    five = (1, 2, 3, 4, 5)
    assert found == [
        *[("fo", 3), ("lh", 3), ("lh", 4), ("lha", 3), ("lha", 4)],
        *[("fo", seed) for seed in five[:3]],
        *[(limits, seed) for limits in ("lh", "lha") for seed in five],
    ]
    assert Evidence(every, {}, [], []).seeds == "3 seeds (fo), 5 (lh, lha)"
    assert Evidence(replace(every, only=(1, 2)), {}, [], []).seeds == "2 seeds"


def test_an_unknown_setting_is_refused_in_one_line(capsys):
    assert results.main(["table", "--settings", "lh_paper"]) == 2
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
    grid = TinyGrid(MPE, (LISTENER,), ("lh-paper",), (1,), tmp_path / "results")
    program = [sys.executable, str(root / "src" / "main.py")]
    status = results.run(grid, 1, program)
    assert status == 0, "".join(log.read_text()[-2000:] for log in (grid.results / "logs").glob("*.log"))
    # Nothing is left to do, so a program that always fails is not even started.
    assert results.run(grid, 1, ["false"]) == 0
    results_page.write([grid], tmp_path / "docs")
    page = (tmp_path / "docs" / "results.md").read_text()
    assert "1 of 1" in row_of(page, "simple_speaker_listener", "lh-paper", "setting")
    assert "trained for 1,000 environment steps" in page and "**Missing.**" not in page
    assert "<svg" in (tmp_path / "docs" / "results-mpe.svg").read_text()
