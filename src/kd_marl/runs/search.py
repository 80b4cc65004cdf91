"""Find finished runs in results folders and evidence files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kd_core.errors import UserError
from kd_marl.runs import evidence, finished
from kd_marl.runs.finished import Run
from kd_marl.runs.folders import NO_RUNS


@dataclass
class Found:
    """What a search brought up: runs with a result, and one line for each run without one that counts."""

    runs: list[Run]
    passed_over: list[str]


def find(sources: Iterable[Path]) -> Found:
    """Find every run of some results folders and evidence files; of copies of one run the first counts.

    Raises:
        UserError: a folder does not exist, a file is no evidence, or there is no run in any of them.
    """
    found, seen = Found([], []), set[Path]()
    sources = list(sources)
    for source in sources:
        if evidence.is_evidence(source):
            found.runs += evidence.read(source)
            continue
        for folder in _folders(source, seen):
            try:
                run = finished.read(source, folder)
            except UserError as error:
                text = str(error)
                found.passed_over.append(text if str(folder) in text else f"{folder}: {text}")
                continue
            if isinstance(run, Run):
                found.runs.append(run)
            elif run:
                found.passed_over.append(f"{folder}: {run}")
    if not (seen or found.runs):
        raise _no_run(sources)
    unique: dict[tuple[object, ...], Run] = {}
    for run in found.runs:
        unique.setdefault(_which(run), run)
    found.runs = list(unique.values())
    return found


def run_folders(sources: Iterable[Path]) -> list[Path]:
    """List the Sacred folders of all runs in some results folders, finished or not, each once.

    Raises:
        UserError: a folder does not exist, or there is no run in any of them.
    """
    seen: set[Path] = set()
    sources = list(sources)
    found = [folder for source in sources for folder in _folders(source, seen)]
    if not found:
        raise _no_run(sources)
    return found


def _no_run(sources: list[Path]) -> UserError:
    named = ", ".join(map(str, sources))
    return UserError(f"no run in {named}: expected Sacred folders such as results/sacred/kd_student/3m/1")


def _which(run: Run) -> tuple[object, ...]:
    """Tell whether two runs are copies: same method, task, seed and moment of the start."""
    return (run.method, run.task, run.seed, run.started or run.folder, run.commit)


def _folders(source: Path, seen: set[Path]) -> Iterable[Path]:
    """Walk through the run folders of a results folder that are not among ``seen``, and add them to it."""
    if not source.is_dir():
        raise UserError(f"{source} is no folder: give a results folder, for example results")
    found = []
    for path, inside, names in os.walk(source):
        inside[:] = [name for name in inside if name not in NO_RUNS]
        if "config.json" in names and "run.json" in names:
            inside.clear()
            found.append(Path(path))
    for folder in sorted(found, key=_in_order):
        if folder.resolve() not in seen:
            seen.add(folder.resolve())
            yield folder


def _in_order(folder: Path) -> tuple[str, int, str]:
    return str(folder.parent), int(folder.name) if folder.name.isdigit() else 0, folder.name
