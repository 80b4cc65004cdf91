"""A part of a suite: only the runs that are asked for, which are those that the whole suite would make."""

from __future__ import annotations

import pytest

from kd_core.errors import UserError
from kd_core.host import get_host
from kd_marl.cli import main
from kd_marl.suite import document

HOST = get_host()  # before anything of `envs`: on a checkout the host decides what that package is

from kd_marl.plugin import register  # noqa: E402
from kd_marl.suite.plan import Plan  # noqa: E402

register.register(HOST)

GRID = """
tasks:
  spread: {env: mpe, key: pz-mpe-simple-spread-v3}
  adversary: {env: mpe, key: pz-mpe-simple-adversary-v3}
methods:
  kd_student: {with: {t_max: 700, buffer_episodes: 40}}
  ctds: {with: {buffer_episodes: 60}}
  mappo: {steps_of: kd_student, limits: lh}
limits: [fo, lh]
seeds: [1, 2]
"""


@pytest.fixture
def grid(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    return path


@pytest.mark.parametrize(
    ("part", "count"),
    [
        ({}, 20),
        ({"tasks": ("spread",)}, 10),
        ({"methods": ("mappo", "ctds")}, 12),
        ({"limits": ("fo",)}, 8),
        ({"seeds": (2,)}, 10),
        ({"tasks": ("adversary",), "methods": ("mappo",), "limits": ("lh",), "seeds": (2,)}, 1),
    ],
)
def test_a_part_has_the_cells_of_the_whole_that_every_option_names(grid, part, count):
    whole = document.load(grid).cells()
    cells = document.load(grid, part=document.Part(**part)).cells()
    assert len(cells) == count
    singular = {"tasks": "task", "methods": "method", "limits": "limits", "seeds": "seed"}
    assert cells == [cell for cell in whole if all(getattr(cell, singular[axis]) in part[axis] for axis in part)]


def test_a_run_of_a_part_is_the_run_of_the_whole(grid, tmp_path):
    whole = Plan(HOST, document.load(grid), tmp_path)
    part = Plan(HOST, document.load(grid, part=document.Part(methods=("kd_student", "mappo"), seeds=(2,))), tmp_path)
    label = "adversary/kd_student/lh/seed2"
    assert part.job(label) == whole.job(label)
    assert set(part.nodes) < set(whole.nodes)
    # A buffer that the part needs is as long as its own students ask.
    assert "buffer_episodes=40" in part.job("spread/buffer").line
    assert "buffer_episodes=60" in whole.job("spread/buffer").line


def test_a_method_is_run_with_its_own_seeds_and_may_be_another_where_they_differ(grid, tmp_path):
    grid.write_text(
        GRID.replace(
            "  kd_student: {with: {t_max: 700, buffer_episodes: 40}}",
            "  first: {config: kd_student, seeds: 1}\n  kd_student: {seeds: [2]}",
        )
    )
    plan = Plan(HOST, document.load(grid, part=document.Part(tasks=("spread",), limits=("fo",))), tmp_path)
    made = {(node.method, node.cell.seed) for node in plan.nodes.values() if node.cell is not None}
    assert {("first", 1), ("kd_student", 2)} == {
        (method, seed) for method, seed in made if method in ("first", "kd_student")
    }
    assert {("ctds", 1), ("ctds", 2)} <= made


def test_two_cells_that_are_one_run_are_refused_in_a_part_without_the_first_seed_too(grid):
    grid.write_text(
        GRID.replace("  ctds: {with: {buffer_episodes: 60}}", "  twin: {config: kd_student, with: {t_max: 700}}")
    )
    suite = document.load(grid, ["buffer_episodes=40"], document.Part(seeds=(2,)))
    with pytest.raises(UserError, match="kd_student/fo/seed2 and spread/twin/fo/seed2 are the same run"):
        Plan(HOST, suite, grid.parent)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "spred"], "--tasks: there is no 'spred'; did you mean 'spread'?"),
        (["--methods", "ctds", "mapo"], "--methods: there is no 'mapo'; did you mean 'mappo'?"),
        (["--limits", "lha"], "--limits: there is no 'lha'"),
        (["--seeds", "1", "3"], "--seeds: there is no 3; the file's seeds are 1, 2"),
        (["--methods", "mappo", "--limits", "fo"], "no task, method, limits and seed go together"),
    ],
)
def test_a_part_that_is_not_there_is_one_line(grid, capsys, words, message):
    assert main(["suite", "list", str(grid), *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_status_counts_the_part_alone(grid, tmp_path, capsys):
    words = ["--tasks", "spread", "--methods", "ctds", "--to", str(tmp_path / "runs")]
    assert main(["suite", "status", str(grid), *words, "with", "t_max=700"]) == 0
    assert "5 missing" in capsys.readouterr().out  # its buffer, and two seeds under two limits
