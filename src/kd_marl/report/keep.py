"""The records that a page is made from, copied to a place where they last: from there the page can be made again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_core import files
from kd_core.errors import UserError
from kd_marl.runs.finished import ACTIONS_FILE, STRESS_FILE, Run

# What the page reads of Sacred's own account. The rest names the machine and its user, and would be given away with it.
_ACCOUNT: Mapping[str, Sequence[str]] = {
    "experiment": ("dependencies", "repositories"),
    "host": ("cpu", "os", "python_version"),
}
_TIMES = ("status", "start_time", "stop_time")


def keep(runs: Iterable[Run], results: Sequence[Path], to: Path) -> int:
    """Write the records of runs to ``to/<name of the results folder>/<the run's place in it>``.

    Files that are there already are written again; runs that are there and not among ``runs`` stay.

    Args:
        runs: what the page is made from.
        results: the results folders that they were found in.
        to: folder for the records.

    Returns:
        How many runs were written.

    Raises:
        UserError: two results folders have the same name, or a file cannot be read or written.
    """
    names = [folder.resolve().name for folder in results]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two results folders are called {name}, so their records would mix: rename one of them")
    count = 0
    for run in runs:
        source, name = next(
            (folder.resolve(), name)
            for folder, name in zip(results, names, strict=True)
            if run.folder.resolve().is_relative_to(folder.resolve())
        )
        place = to / name / run.folder.resolve().relative_to(source)
        if place.resolve() != run.folder.resolve():
            _write(run, place)
        count += 1
    return count


def _write(run: Run, place: Path) -> None:
    try:
        os.makedirs(place, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {place}: {error.strerror or error}") from error
    # Without the time that Sacred notes for every value: nothing reads it.
    metrics = {name: {"steps": list(steps), "values": list(values)} for name, (steps, values) in run.metrics.items()}
    for name, content in (("config", run.config), ("metrics", metrics), ("run", account(run.record))):
        files.write_bytes(place / f"{name}.json", (json.dumps(content, separators=(",", ":")) + "\n").encode())
    for name in (ACTIONS_FILE, STRESS_FILE):
        if (run.folder / name).is_file():
            files.write_bytes(place / name, (run.folder / name).read_bytes())
    # Last: a run counts once this is there.
    files.write_json(place / "summary.json", run.summary)


def account(record: Mapping[str, Any]) -> dict[str, Any]:
    """What of ``run.json`` says when, from which source and on what kind of machine a run was made."""
    kept: dict[str, Any] = {name: record[name] for name in _TIMES if name in record}
    for part, names in _ACCOUNT.items():
        kept[part] = {name: record[part][name] for name in names if name in record.get(part, {})}
    # The first repository is the source tree; where it lies is the user's own business.
    repositories = kept["experiment"].get("repositories") or []
    kept["experiment"]["repositories"] = [
        {name: repository[name] for name in ("commit", "dirty")} for repository in repositories[:1]
    ]
    return kept
