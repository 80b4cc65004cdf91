"""A teacher trained again from its history: the commands in its ``teacher.json``, one after the other.

A teacher that began with another (``begin_with``) has that one's command in its history too. The same commands make the
same kind of teacher, not the same weights: on another processor rounding differs, and a training is chaotic.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_core.artifacts.teacher import read_facts, teacher_folders
from kd_core.config import parse_command
from kd_core.errors import UserError
from kd_core.places import PROGRAMS
from kd_core.stages import run_main

# What a command says of the place where that training was made.
_PLACES = frozenset({"local_results_path", "begin_with", "resume"})


def commands(facts: Mapping[str, Any]) -> list[list[str]]:
    """Return the words behind ``python src/main.py`` of every training that made a teacher, in their order.

    Args:
        facts: those of ``teacher.json`` (docs/reference/formats/teacher.md).

    Raises:
        UserError: a training was not made by ``src/main.py``, or was a stock algorithm's.
    """
    if "algorithm" in facts:
        raise UserError(
            f"{facts['algorithm']} trained this teacher, not kd_teacher: run `{facts['command']}`, then make a teacher "
            "of its checkpoint with `kd-marl teachers pack`"
        )
    words = shlex.split(facts["command"] or "")
    if tuple(words[:2]) not in PROGRAMS:
        raise UserError(f"the teacher's history has no command of src/main.py to repeat, but {facts['command']!r}")
    first = facts["begun_with"]
    return [*(commands(first) if first else []), words[2:]]


def train(facts: Mapping[str, Any], results: Path, updates: Sequence[str] = ()) -> Path:
    """Make every training of a teacher's history that ``results`` does not have yet; one that was cut short goes on.

    Args:
        facts: those of ``teacher.json``.
        results: what the runs are given as ``local_results_path``.
        updates: further ``key=value`` words, for every training; they win over the history's.

    Returns:
        The folder of the last training's teacher.

    Raises:
        UserError: the history cannot be repeated, or a training failed; it has said why.
    """
    trainings, folder = commands(facts), None
    for number, words in enumerate(trainings, start=1):
        begun: list[str] = [] if folder is None else [f"begin_with={folder}"]
        words = merged(words, [*updates, *begun, f"local_results_path={results}"])
        line = parse_command(words).line
        print(f"training {number} of {len(trainings)}: {line}", flush=True)
        folder = _made_by(line, results)
        if folder is None:
            if run_main([*words, "resume=True"]):
                raise UserError(f"training {number} of {len(trainings)} failed: its message is above")
            folder = _made_by(line, results)
            assert folder is not None, "a run that ends well leaves its teacher"
        print(f"its teacher: {folder}", flush=True)
    assert folder is not None, "a history has a training at least"
    return folder


def merged(words: Sequence[str], updates: Sequence[str]) -> list[str]:
    """Return a command line with updates, each key once; what says where the former run was is left out."""
    changed = {word.partition("=")[0] for word in updates} | _PLACES
    start = words.index("with") + 1 if "with" in words else len(words)
    kept = [word for word in words[start:] if word.partition("=")[0] not in changed]
    return [*(word for word in words[:start] if word != "with"), "with", *kept, *updates]


def _made_by(line: str, results: Path) -> Path | None:
    """Return the finished teacher of a command line in a results folder, the newest if there are several."""
    for folder in teacher_folders([results / "models"]):
        try:
            facts = read_facts(folder)
        except UserError as error:
            print(f"passing over: {error}", file=sys.stderr)
            continue
        # Its last test is written after its last weights.
        if facts["finished"] and facts["test"] and facts["command"] in (line, f"{line} resume=True"):
            return folder
    return None
