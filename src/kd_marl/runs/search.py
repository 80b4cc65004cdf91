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
    found, seen = Found([], []), set()
    sources = list(sources)
    for source in sources:
        if evidence.is_evidence(source):
            found.runs += evidence.read(source)
            continue
        if not source.is_dir():
            raise UserError(f"{source} is no folder: give a results folder, for example results")
        for folder in sorted(_folders(source), key=_in_order):
            if folder.resolve() in seen:
                continue
            seen.add(folder.resolve())
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
        named = ", ".join(map(str, sources))
        raise UserError(f"no run in {named}: expected Sacred folders such as results/sacred/kd_student/3m/1")
    unique: dict[tuple[object, ...], Run] = {}
    for run in found.runs:
        unique.setdefault(_which(run), run)
    found.runs = list(unique.values())
    return found


def _which(run: Run) -> tuple[object, ...]:
    """Tell whether two runs are copies: same method, task, seed and moment of the start."""
    return (run.method, run.task, run.seed, run.started or run.folder, run.commit)


def _folders(results: Path) -> Iterable[Path]:
    for path, inside, names in os.walk(results):
        inside[:] = [name for name in inside if name not in NO_RUNS]
        if "config.json" in names and "run.json" in names:
            inside.clear()
            yield Path(path)


def _in_order(folder: Path) -> tuple[str, int, str]:
    return str(folder.parent), int(folder.name) if folder.name.isdigit() else 0, folder.name
