"""The Markdown page of a stress test: a table, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kd_marl.runs.stress_file import made_by
from kd_marl.stress.plan import RADIO_KINDS

# How to read the rows of `RADIO_KINDS`.
_ON_RADIO = (
    " Message loss: each message is lost with that probability on each of its links. Message delay: steps by which "
    "messages come later than in training. Jam: that agent neither sends nor hears. The teacher has no radio: it plays "
    "undisturbed."
)
_RETENTION = {
    "return": "1 - |S-T|/|T| of the mean returns, in which a student better than its teacher has less than 100 %",
    "win rate": "S/T of the win rates",
}


def page(facts: Mapping[str, Any], figure: str | None) -> str:
    """Return the page.

    Args:
        facts: the content of ``stress.json``.
        figure: name of the figure's file, or None if there is none.
    """
    preset = f", {facts['masks_preset']}" if facts["masks_preset"] else ""
    lines = [
        f"# {facts['task']}: what disturbances leave of teacher and student",
        "",
        f"Written by {made_by(facts)}.",
        "",
        f"Limits {facts['limits']}{preset}; seed {facts['seed']}; {facts['episodes']} greedy episodes of each policy "
        f"under each disturbance. Random play has a {facts['measures']} of {score(facts, facts['random_mean'])}.",
        "",
        *([f"![{facts['measures']} and retention under each disturbance]({figure})", ""] if figure else []),
        *table(facts),
        "",
        f"In brackets the 95 % interval over the episodes. Retention is {_RETENTION[facts['measures']]}: of the "
        "undisturbed teacher, and of the teacher that meets the same disturbance in the same episodes. Dropout: each "
        "feature group of each agent reads zero with that probability at every step. Noise: Gaussian, in standard "
        "deviations of each feature over undisturbed play. Delay: steps by which observations are late. Dead: that "
        "agent does nothing. Map: another map of the same sizes, never seen in training."
        + (_ON_RADIO if any(row["kind"] in RADIO_KINDS for row in facts["rows"]) else ""),
        *(f"\n{note[0].upper()}{note[1:]}." for note in facts["notes"]),
    ]
    return "\n".join(lines) + "\n"


def table(facts: Mapping[str, Any]) -> list[str]:
    """Return the rows of the Markdown table, the columns aligned for a terminal too."""
    measures = facts["measures"]
    cells = [
        [
            "disturbance",
            f"teacher's {measures}",
            f"student's {measures}",
            "teacher's retention",
            "student's retention of the undisturbed teacher",
            "of the equally disturbed teacher",
        ]
    ]
    for row in facts["rows"]:
        cells.append(
            [
                row["name"],
                *(_score(facts, row, who) for who in ("teacher", "student")),
                *(_retention(row, f"retention_{what}") for what in ("teacher", "undisturbed", "disturbed")),
            ]
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in cells]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def score(facts: Mapping[str, Any], value: float) -> str:
    """Return a win rate in per cent, or a return."""
    return f"{100 * value:.1f} %" if facts["measures"] == "win rate" else f"{value:.2f}"


def _score(facts: Mapping[str, Any], row: Mapping[str, Any], who: str) -> str:
    low, high = row[f"{who}_low"], row[f"{who}_high"]
    return score(facts, row[f"{who}_mean"]) + (f" ({_span(facts, low, high)})" if low is not None else "")


def _span(facts: Mapping[str, Any], low: float, high: float) -> str:
    if facts["measures"] == "win rate":
        return f"{100 * low:.1f} to {100 * high:.1f}"
    return f"{low:.2f} to {high:.2f}"


def _retention(row: Mapping[str, Any], key: str) -> str:
    if row[key] is None:
        return "-"
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    return f"{100 * row[key]:.1f} %" + (f" ({100 * low:.1f} to {100 * high:.1f})" if low is not None else "")
