"""Made-up runs on disk, for the tests of the results page."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import yaml
from results_families import MPE, SMAX
from results_grid import BASELINE, STUDENT, Grid
from sacred.arg_parser import get_config_updates

from kd_core import stages
from kd_core.artifacts.teacher import REQUIRED_FACTS
from kd_core.config import assemble, parse_command
from kd_core.host import get_host

__all__ = ["BASELINE", "LISTENER", "MPE", "SMAX", "SPREAD", "STUDENT", "T2", "Grid"]

LISTENER, SPREAD = "pz-mpe-simple-speaker-listener-v4", "pz-mpe-simple-spread-v3"
SHA = "ab" * 32
# Student's t at 0.975 with two degrees of freedom, from a printed table.
T2 = 4.302653


def make_grid(
    folder, monkeypatch, family=MPE, tasks=(LISTENER, SPREAD), settings=("fo", "lh-paper", "lha-paper"), seeds=(1, 2)
):
    """A grid of a part of a family's suite, with teachers of its own, whose buffers are the files of `put_buffer`."""
    suite = yaml.safe_load(family.suite.read_text())
    suite["limits"] = {name: suite["limits"][name] for name in settings}
    suite["seeds"] = list(seeds)
    suite["tasks"] = {task: {**suite["tasks"][task], "teacher": str(folder / "zoo" / task)} for task in tasks}
    # One method for all students, whatever their seeds.
    methods = {STUDENT: None}
    if BASELINE in suite["methods"]:
        baseline = suite["methods"][BASELINE]
        named = [limits for limits in baseline["limits"] if limits in settings]
        methods[BASELINE] = {**baseline, "limits": named, "seeds": list(seeds)}
    suite["methods"] = methods
    file = folder / f"{family.name}.yaml"
    file.write_text(yaml.safe_dump(suite))
    for task in tasks:
        put_teacher(folder / "zoo" / task)

    def stored(folder):
        file = folder / "buffer.json"
        return json.loads(file.read_text())["episodes"] if file.is_file() else 0

    monkeypatch.setattr(stages, "stored_episodes", stored)
    return Grid(replace(family, suite=file), folder / "results")


def put_teacher(folder, like="", **facts):
    """Write the facts of a task's bundled teacher but for its tests, or others; nothing here reads its weights."""
    bundled = json.loads((stages.ZOO / (like or folder.name) / "teacher.json").read_text())
    needed = {key: value for key, value in bundled.items() if key in {*REQUIRED_FACTS, "format", "version"}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "teacher.json").write_text(json.dumps({**needed, "test": {}, "sha256": {"agent.th": SHA}, **facts}))


def put_buffer(grid, task, steps=100_000):
    proof = grid.plan.job(f"{task}/buffer").proof
    proof.folder.mkdir(parents=True, exist_ok=True)
    (proof.folder / "buffer.json").write_text(
        json.dumps(
            {"episodes": proof.episodes, "steps": steps, "embedding_dtype": proof.environment["embedding_dtype"]}
        )
    )


def summary(algorithm, teacher=-20.0, student=-25.0, sampled=-24.0, random=-60.0, retention=0.75, wins=None, **more):
    """What a run reports; `wins`: the win rates of teacher, student and random."""
    score = {"return_std": 1.0, "win_rate": None}
    won = dict(zip(("teacher", "student", "random"), wins or (None,) * 3, strict=True))
    common = {"episodes": 200, **more}
    ours = {"return_mean": student, **score, "sampled": {"return_mean": sampled, **score}}
    if algorithm == BASELINE:
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


def config_of(words):
    """The whole configuration that a command line means."""
    host = get_host()
    updates, _ = get_config_updates(list(words[words.index("with") + 1 :]))
    return host.main.recursive_dict_update(assemble(host, parse_command(list(words))), updates)


def put(grid, algorithm, task, setting, seed, number, **numbers):
    """Write a finished run, and return its folder."""
    cell = next(cell for cell in grid.row(algorithm, task, setting) if cell.seed == seed)
    folder = grid.results / "sacred" / algorithm / task / str(number)
    contents = {
        "config": config_of(grid.plan.job(cell.label).words),
        "run": {"experiment": {"repositories": [{"commit": "0123456789", "dirty": False}]}},
        "summary": {**summary(algorithm, **numbers), "task": task, "seed": seed},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def squeezed(page):
    """A page without the blanks that align its tables."""
    return re.sub(r" +", " ", page)


def row_of(page, heading, first, head):
    """The cells of the first row that begins with `first`, after a heading and a table head that begins with `head`."""
    section = squeezed(page).split(f"# {heading}\n", 1)[1]
    lines = section[section.index(f"| {head}") :].splitlines()
    line = next(line for line in lines if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]
