"""Made-up runs on disk, and a program that makes them, for the tests of the results page."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from results_families import MPE, SMAX
from results_grid import BASELINE, EXPORT, STUDENT, Cell, Grid

from kd_marl import stages

__all__ = ["BASELINE", "EXPORT", "LISTENER", "MPE", "SMAX", "SPREAD", "STUDENT", "T2", "Cell", "Grid"]

LISTENER, SPREAD = "pz-mpe-simple-speaker-listener-v4", "pz-mpe-simple-spread-v3"
SIZES = {LISTENER: (2, 11), SPREAD: (3, 18)}
SHA = "ab" * 32
# Student's t at 0.975 with two degrees of freedom, from a printed table.
T2 = 4.302653


def make_grid(folder, monkeypatch, family=MPE, tasks=tuple(SIZES), settings=("fo", "lha-paper"), seeds=(1, 2)):
    """A grid with a teacher for each task, whose buffers are the files of `put_buffer`."""
    grid = Grid(family, tasks, settings, only=seeds, results=folder / "results", zoo=folder / "zoo")
    for task in tasks:
        n_agents, obs_size = SIZES.get(task, (3, 75))
        put_teacher(grid, task, n_agents=n_agents, obs_size=obs_size)

    def stored(folder):
        file = folder / "buffer.json"
        return json.loads(file.read_text())["episodes"] if file.is_file() else 0

    monkeypatch.setattr(stages, "stored_episodes", stored)
    return grid


def put_teacher(grid, task, **facts):
    """Write a teacher's facts; without its weights, which nothing here reads."""
    (grid.zoo / task).mkdir(parents=True, exist_ok=True)
    (grid.zoo / task / "teacher.json").write_text(json.dumps({"sha256": {"agent.th": SHA}, **facts}))


def put_buffer(grid, task):
    grid.buffer(task).mkdir(parents=True, exist_ok=True)
    (grid.buffer(task) / "buffer.json").write_text(json.dumps({"episodes": 4000, "steps": 100_000}))


def summary(cell, teacher=-20.0, student=-25.0, sampled=-24.0, random=-60.0, retention=0.75, wins=None, **more):
    """What a run reports; `wins`: the win rates of teacher, student and random."""
    score = {"return_std": 1.0, "win_rate": None}
    won = dict(zip(("teacher", "student", "random"), wins or (None,) * 3, strict=True))
    common = {"task": cell.task, "seed": cell.seed, "episodes": 200, **more}
    ours = {"return_mean": student, **score, "sampled": {"return_mean": sampled, **score}}
    if cell.algorithm == BASELINE:
        return {**common, "algorithm": BASELINE, "policy": ours}
    return {
        "retention_normalised": 0.875,
        "flops_ratio": 40.25,
        "agreement": 0.5,
        "widths": [32, 16],
        **common,
        "teacher": {"return_mean": teacher, **score, "win_rate": won["teacher"]},
        "student": {**ours, "win_rate": won["student"]},
        "random": {"return_mean": random, **score, "win_rate": won["random"]},
        "retention": retention,
        "teacher_artifact": {"path": "zoo", "sha256": {"agent.th": SHA}},
    }


def files(grid, cell, number, **numbers):
    """File name -> content of a finished run."""
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


def squeezed(page):
    """A page without the blanks that align its tables."""
    return re.sub(r" +", " ", page)


def row_of(page, heading, first, head):
    """The cells of the first row that begins with `first`, after a heading and a table head that begins with `head`."""
    section = squeezed(page).split(f"# {heading}\n", 1)[1]
    lines = section[section.index(f"| {head}") :].splitlines()
    line = next(line for line in lines if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]
