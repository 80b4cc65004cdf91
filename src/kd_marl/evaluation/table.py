"""The table at the end of a run: teacher, student and random side by side, from the run's ``summary.json``."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TypedDict

from rich import box
from rich.console import Console
from rich.table import Table

ABSENT = "-"
TEXT_WIDTH = 100


class _Score(TypedDict):
    return_mean: float
    return_std: float
    win_rate: float | None


class PolicyResult(_Score, total=False):
    """What a policy scored over the episodes: acting greedily, and under ``sampled`` when it draws its actions."""

    sampled: _Score


class _Scores(TypedDict):
    teacher: PolicyResult
    student: PolicyResult
    random: PolicyResult
    retention: float | None
    retention_normalised: float | None


class _Compared(_Scores, total=False):
    share_of_reachable: float | None


class _Summary(_Compared):
    task: str
    limits: str
    seed: int
    episodes: int
    params_teacher: int
    params_student: float
    flops_per_decision_teacher: float
    flops_per_decision_student: float
    flops_ratio: float
    flops_per_episode_teacher: float
    flops_per_episode_student: float
    agreement: float


class Summary(_Summary, total=False):
    """The content of ``summary.json`` (docs/reference/formats/run.md); parameters are one agent's, a mean."""

    decision_us_teacher: float
    decision_us_student: float
    reachable: float | None
    tasks: dict[str, _Compared]
    message_bits: int
    bits_per_step: float
    bits_per_second: float | None


def result_table(summary: Summary) -> Table:
    """Build the table for a terminal.

    Args:
        summary: the content of a run's ``summary.json``; what it lacks or has as null is shown as ``-``.

    Returns:
        A rich table with the columns teacher, student and random, and the rows of `result_rows`.
    """
    episodes = "1 episode" if summary["episodes"] == 1 else f"{summary['episodes']} episodes"
    title = f"{summary['task']}   limits {summary['limits']}   seed {summary['seed']}   {episodes} each"
    table = Table(
        title=title, caption=_caption(summary), box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left"
    )
    table.add_column("", no_wrap=True)
    for column in ("teacher", "student", "random"):
        table.add_column(column, justify="right", no_wrap=True)
    for label, cells in result_rows(summary):
        table.add_row(label, *cells)
    return table


def result_rows(summary: Summary) -> list[tuple[str, tuple[str, str, str]]]:
    """List what a run has measured: a label, and the cells of teacher, student and random.

    A row that no policy has (win rates where nothing is won, sampled returns that were not measured) is left out.

    Args:
        summary: as for `result_table`.
    """
    tasks = summary.get("tasks") or {}
    # Of several tasks each one's rows, then their means.
    scored: list[tuple[str, _Compared]] = [*((f"{name}: ", task) for name, task in tasks.items())]
    scored.append(("mean of tasks: " if tasks else "", summary))
    rows = [
        *(row for prefix, found in scored for row in _score_rows(prefix, found)),
        ("parameters of an agent", _pair(summary["params_teacher"], summary["params_student"])),
        (
            "FLOPs per decision",
            _pair(summary["flops_per_decision_teacher"], summary["flops_per_decision_student"]),
        ),
        ("FLOPs per episode", _pair(summary["flops_per_episode_teacher"], summary["flops_per_episode_student"])),
        ("FLOPs, times fewer", (ABSENT, f"{summary['flops_ratio']:.1f}x", ABSENT)),
        ("bits an agent sends, per step", _sent(summary.get("bits_per_step"))),
        ("bits an agent sends, per second", _sent(summary.get("bits_per_second"))),
        ("microseconds, joint decision", _pair(summary.get("decision_us_teacher"), summary.get("decision_us_student"))),
    ]
    return [(label, cells) for label, cells in rows if any(cell != ABSENT for cell in cells)]


def _score_rows(prefix: str, scored: _Compared) -> list[tuple[str, tuple[str, str, str]]]:
    policies = (scored["teacher"], scored["student"], scored["random"])
    sampled = [policy.get("sampled") for policy in policies]
    rows = [
        ("return", _each(policies, _return)),
        ("return, actions sampled", _each(sampled, _return)),
        ("win rate", _each(policies, _win_rate)),
        ("win rate, actions sampled", _each(sampled, _win_rate)),
        ("retention", (ABSENT, _percent(scored["retention"]), ABSENT)),
        ("share of reachable", (ABSENT, _percent(scored.get("share_of_reachable")), ABSENT)),
        ("retention over random", (ABSENT, _percent(scored["retention_normalised"]), ABSENT)),
    ]
    return [(f"{prefix}{label}", cells) for label, cells in rows]


def result_text(summary: Summary) -> str:
    """Write the same table as plain text without colours, for logs and files.

    Args:
        summary: as for `result_table`.
    """
    console = Console(file=io.StringIO(), width=TEXT_WIDTH, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(result_table(summary))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _each(
    scores: tuple[PolicyResult, ...] | list[_Score | None], cell: Callable[[_Score], str]
) -> tuple[str, str, str]:
    teacher, student, random = (ABSENT if score is None else cell(score) for score in scores)
    return teacher, student, random


def _return(score: _Score) -> str:
    return f"{score['return_mean']:.2f} ± {score['return_std']:.2f}"


def _win_rate(score: _Score) -> str:
    return _percent(score["win_rate"])


def _percent(share: float | None) -> str:
    return ABSENT if share is None else f"{100 * share:.1f} %"


def _pair(teacher: float | None, student: float | None) -> tuple[str, str, str]:
    return _quantity(teacher), _quantity(student), ABSENT


def _sent(bits: float | None) -> tuple[str, str, str]:
    """Write what a talking student sends; nothing for a silent one."""
    return ABSENT, _quantity(bits) if bits else ABSENT, ABSENT


def _quantity(number: float | None) -> str:
    if number is None:
        return ABSENT
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.1f}"


def _caption(summary: Summary) -> str:
    lines = [
        "mean ± standard deviation over episodes; teacher and student act greedily",
        f"the student chooses the teacher's action in {_percent(summary['agreement'])} of decisions",
    ]
    teacher, student = summary["teacher"], summary["student"]
    if teacher["win_rate"] is None and student["return_mean"] > teacher["return_mean"]:
        lines.append("the student is better; the paper's retention counts that like being worse")
    if summary["retention_normalised"] is None:
        lines.append("no retention over random: the teacher is no better than random play")
    return "\n".join(lines)
