"""Evidence files: the finished runs of a suite in one small file, from which every page can be made again.

``<suite>.json.xz`` is JSON, compressed by xz. Its content is the definition ``evidence`` of ``run.schema.json``, and is
held to it whenever it is read:

- ``format`` is ``kd-marl/evidence``, ``version`` is 1.
- ``runs`` has an entry for each run, in the order of ``place``, its Sacred folder within the results folder.
- ``config``, ``account``, ``summary`` and ``stress`` (null without one) are the run's JSON files. Names and paths of
  the machine are left out.
- ``metrics``: logged name -> ``steps`` and ``values``, each base64 of little-endian float64.
- ``actions``: policy -> ``dtype``, ``shape`` ``(steps, agents, actions)`` and ``data``, base64 of little-endian
  integers.

Keys have the order in which the run wrote them: blocks of features are in the order of the observation. The same runs
give the same bytes. A file is written whole or not at all.
"""

from __future__ import annotations

import base64
import json
import lzma
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from kd_core import files
from kd_core.errors import UserError
from kd_marl.runs import finished, validity
from kd_marl.runs.finished import ACTIONS_FILE, METRICS_FILE, STRESS_FILE, Run

SUFFIX = ".json.xz"
FORMAT, VERSION = "kd-marl/evidence", 1


def is_evidence(path: Path) -> bool:
    """Tell an evidence file from a results folder, by its name."""
    return path.name.endswith(SUFFIX) and not path.is_dir()


def suite_name(source: Path) -> str:
    """Name the suite of a results folder or an evidence file: the name of either."""
    return source.resolve().name.removesuffix(SUFFIX)


def read(file: Path) -> list[Run]:
    """Read the runs of an evidence file.

    Raises:
        UserError: it is missing, damaged, of another version, or holds what is no such run.
    """
    try:
        facts = json.loads(lzma.decompress(file.read_bytes()))
    except (OSError, lzma.LZMAError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read the evidence in {file}: {reason}") from error
    if isinstance(facts, dict) and facts.get("format") == FORMAT and facts.get("version") != VERSION:
        raise UserError(f"{file} has version {facts.get('version')!r}, this kd-marl reads version {VERSION}")
    validity.check_part("evidence", facts, file)
    runs = []
    for entry in facts["runs"]:
        try:
            metrics = {
                name: (_floats(curve["steps"]), _floats(curve["values"])) for name, curve in entry["metrics"].items()
            }
            counts = {policy: _integers(**array) for policy, array in entry["actions"].items()}
        except ValueError as error:
            raise UserError(f"{file} is damaged at {entry['place']}: {error}") from error
        parts = {name: entry[name] for name in ("place", "config", "summary", "account", "stress")}
        run = Run(source=file, metrics=metrics, counts=counts, **parts)
        finished.check_shapes(run)
        runs.append(run)
    if len({run.place for run in runs}) < len(runs):
        raise UserError(f"{file} is damaged: two of its runs have one place")
    return runs


def content(runs: Iterable[Run]) -> bytes:
    """Write runs as an evidence file's bytes.

    Raises:
        UserError: a run holds a number that JSON has not.
    """
    entries = []
    for run in sorted(runs, key=lambda run: run.place):
        parts = {"config": run.config, "account": run.account, "summary": run.summary, "stress": run.stress}
        metrics = {
            name: {"steps": _base64(steps, "<f8"), "values": _base64(values, "<f8")}
            for name, (steps, values) in run.metrics.items()
        }
        actions = {policy: _typed(counts) for policy, counts in run.counts.items()}
        entries.append({"place": run.place, **parts, "metrics": metrics, "actions": actions})
    facts = {"format": FORMAT, "version": VERSION, "runs": entries}
    try:
        text = json.dumps(facts, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise UserError("a run's configuration or result holds a number that is not finite") from error
    return lzma.compress(text.encode(), format=lzma.FORMAT_XZ, check=lzma.CHECK_SHA256, preset=6)


def keep(runs: Iterable[Run], to: Path) -> list[Path]:
    """Add runs to the evidence files of a folder, one file for each results folder that they were found in.

    A run that is there already is written again; runs that are there and not among ``runs`` stay.

    Returns:
        The files.

    Raises:
        UserError: a file holds another run at the place of one of ``runs``, or cannot be read or written.
    """
    wanted: dict[Path, dict[str, Run]] = {}
    for run in runs:
        file = to / f"{suite_name(run.source)}{SUFFIX}"
        if file not in wanted:
            wanted[file] = {old.place: old for old in read(file)} if file.exists() else {}
        there = wanted[file].get(run.place)
        if there is not None and (there.started, there.commit) != (run.started, run.commit):
            raise UserError(
                f"{file} holds another run as {run.place}, started {there.started}, than {run.source}: "
                "give the results folder another name, or begin a new evidence file"
            )
        wanted[file][run.place] = run
    packed = {file: content(kept.values()) for file, kept in wanted.items()}
    _make(to)
    for file, data in packed.items():
        if not (file.exists() and file.read_bytes() == data):
            files.write_bytes(file, data)
    return list(packed)


def unpack(runs: Iterable[Run], to: Path) -> int:
    """Write the runs of evidence files back as results folders, ``to/<suite>/<place>``; folders that exist stay.

    Returns:
        How many runs were written.
    """
    count = 0
    for run in runs:
        folder = to / suite_name(run.source) / run.place
        if not is_evidence(run.source) or folder.exists():
            continue
        _make(folder)
        curves = {name: {"steps": list(steps), "values": list(values)} for name, (steps, values) in run.metrics.items()}
        files.write_json(folder / METRICS_FILE, curves)
        if run.counts:
            files.write_bytes(folder / ACTIONS_FILE, safetensors.numpy.save(dict(run.counts)))
        if run.stress is not None:
            files.write_json(folder / STRESS_FILE, run.stress)
        # Last: a run counts once its summary is there.
        for name, facts in (("config", run.config), ("run", run.account), ("summary", run.summary)):
            files.write_json(folder / f"{name}.json", facts)
        count += 1
    return count


def _make(folder: Path) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror or error}") from error


def _base64(array: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype).tobytes()).decode()


def _typed(counts: np.ndarray) -> Mapping[str, Any]:
    kind = np.dtype("int32" if counts.dtype.itemsize <= 4 else "int64")
    return {"dtype": kind.name, "shape": list(counts.shape), "data": _base64(counts, kind.newbyteorder("<").str)}


def _floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f8").astype(float)


def _integers(dtype: str, shape: list[int], data: str) -> np.ndarray:
    kind = np.dtype(dtype)
    return np.frombuffer(base64.b64decode(data, validate=True), kind.newbyteorder("<")).reshape(shape).astype(kind)
