"""Finished runs on disk, as Sacred and the final evaluation recorded them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from kd_core import files
from kd_core.errors import UserError
from kd_marl.report.methods import OTHER_STAGES
from kd_marl.runs import validity

# Folders below a results folder that hold no records, and much else.
_NO_RECORDS = frozenset({"_sources", "buffers", "models", "logs", "bundles"})
ACTIONS_FILE, STRESS_FILE = "actions.safetensors", "stress.json"
# An absolute path to a bundled teacher, and what of it is the same on every machine.
_BUNDLED = re.compile(r"/[^\s'\"=]*/(src/zoo/)")

Curve = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Run:
    """One run with a result.

    Attributes:
        folder: its Sacred folder.
        config: ``config.json``; here and in the summary without where its results and the checkout lie.
        summary: ``summary.json``.
        record: ``run.json``, Sacred's own account.
    """

    folder: Path
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    record: Mapping[str, Any]

    @property
    def method(self) -> str:
        """The name of its configuration, e.g. ``kd_student``."""
        return str(self.config["name"])

    @property
    def task(self) -> tuple[str, str]:
        """Environment and task: maps of the same name exist in several environments."""
        return str(self.config["env"]), str(self.summary["task"])

    @property
    def limits(self) -> str:
        """``fo``, ``lh`` or ``lha``."""
        return str(self.summary["limits"])

    @property
    def sight(self) -> str:
        """Which masks the limits mean: a preset's name, ``own`` for masks of the user's, empty under ``fo``."""
        if self.config.get("masks"):
            return "own"
        return str(self.summary.get("masks_preset") or "")

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.summary["seed"])

    @property
    def teacher(self) -> str:
        """Sha256 of the teacher's actor; empty for a run without a teacher."""
        return str(self.summary.get("teacher_artifact", {}).get("sha256", {}).get("agent.th", ""))

    @property
    def is_student(self) -> bool:
        """Whether it was distilled: its summary has teacher, student and random side by side."""
        return "student" in self.summary

    @property
    def policy(self) -> Mapping[str, Any]:
        """What its policy scored, acting greedily."""
        return self.summary["student" if self.is_student else "policy"]

    def cost(self, name: str) -> float | None:
        """``params``, ``flops_per_decision``, ``flops_per_episode`` or ``decision_us`` of its policy; None: unknown."""
        return self.summary.get(f"{name}_student" if self.is_student else name)

    @property
    def steps(self) -> float | None:
        """Environment steps of its training, a student's without its teacher's and its buffer's; None: unknown."""
        if not self.is_student:
            return self.summary.get("steps")
        return max((float(steps[-1]) for steps, _ in self.metrics.values() if len(steps)), default=None)

    @property
    def shares_episodes(self) -> bool:
        """Whether its evaluation has most episodes in common with those of other seeds, as in earlier versions."""
        return "length_mean" not in self.policy

    @property
    def started(self) -> str:
        """When it started, as Sacred writes it."""
        return str(self.record.get("start_time", ""))

    @property
    def commit(self) -> str:
        """The source tree's commit, with ``+`` where it had local changes."""
        repositories = self.record.get("experiment", {}).get("repositories") or []
        return repositories[0]["commit"][:7] + ("+" if repositories[0]["dirty"] else "") if repositories else "unknown"

    @property
    def machine(self) -> str:
        """Processor, Python and PyTorch."""
        host = self.record.get("host", {})
        packages = self.record.get("experiment", {}).get("dependencies", [])
        torch = [package.replace("==", " ") for package in packages if package.startswith("torch=")]
        python = f"Python {host.get('python_version', 'unknown')}"
        return ", ".join([host.get("cpu") or "unknown processor", python, *torch])

    @cached_property
    def metrics(self) -> dict[str, Curve]:
        """Logged name -> environment steps and values; empty for a run that logged nothing.

        Raises:
            UserError: ``metrics.json`` is broken.
        """
        if not (self.folder / "metrics.json").is_file():
            return {}
        logged = files.read_json(self.folder / "metrics.json")
        try:
            return {
                name: (np.asarray(entry["steps"], float), np.asarray(entry["values"], float))
                for name, entry in logged.items()
            }
        except (TypeError, KeyError, ValueError) as error:
            raise UserError(f"{self.folder / 'metrics.json'} is damaged: no Sacred metrics ({error})") from error

    @cached_property
    def counts(self) -> dict[str, np.ndarray]:
        """Policy -> how often each action was taken, ``(time, agents, actions)``; empty for a run without the record.

        Raises:
            UserError: the file is broken.
        """
        file = self.folder / ACTIONS_FILE
        if not file.is_file():
            return {}
        try:
            return safetensors.numpy.load_file(file)
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise UserError(f"{file} is damaged: {error}") from error

    @cached_property
    def stress(self) -> dict[str, Any] | None:
        """What `kd-marl stress` measured; None for a run that has not been through it.

        Raises:
            UserError: the file is broken.
        """
        file = self.folder / STRESS_FILE
        if not file.is_file():
            return None
        facts = files.read_json(file)
        validity.check_part("stress", facts, file)
        return facts


@dataclass
class Found:
    """What a search brought up: runs with a result, and one line for each run without one that counts."""

    runs: list[Run]
    passed_over: list[str]


def find(folders: Iterable[Path]) -> Found:
    """Every run below some results folders.

    Raises:
        UserError: a folder does not exist, or there is no run in any of them.
    """
    found, seen = Found([], []), set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder: give a results folder, for example results")
        for record in sorted(_records(folder), key=_in_order):
            if record.resolve() in seen:
                continue
            seen.add(record.resolve())
            try:
                run = _read(record)
            except UserError as error:
                text = str(error)
                found.passed_over.append(text if str(record) in text else f"{record}: {text}")
                continue
            if isinstance(run, Run):
                found.runs.append(run)
            elif run:
                found.passed_over.append(f"{record}: {run}")
    if not seen:
        named = ", ".join(map(str, folders))
        raise UserError(f"no run in {named}: expected Sacred folders such as results/sacred/kd_student/3m/1")
    return found


def _records(folder: Path) -> Iterable[Path]:
    for path, inside, names in os.walk(folder):
        inside[:] = [name for name in inside if name not in _NO_RECORDS]
        if "config.json" in names and "run.json" in names:
            inside.clear()
            yield Path(path)


def _in_order(record: Path) -> tuple[str, int, str]:
    return str(record.parent), int(record.name) if record.name.isdigit() else 0, record.name


def _read(folder: Path) -> Run | str:
    """The run in a folder, or why it does not count; empty where nothing was to be expected of it."""
    config = _part(folder, "config", "config")
    record = _part(folder, "run", "account")
    name = config["name"]
    if name in OTHER_STAGES:
        return ""
    if not (folder / "summary.json").is_file():
        status = str(record.get("status", "unknown")).lower()
        if status == "completed":
            return f"{name} finished without an evaluation: run it with final_evaluation=True"
        return f"{name} has no result, its status is {status}"
    if config.get("evaluate"):
        return f"{name} evaluated again what another run had trained: that run counts"
    summary = _part(folder, "summary", "summary")
    results = str(config.get("local_results_path", ""))
    run = Run(folder, placeless(config, results), placeless(summary, results), record)
    validity.check_shapes(run)
    _ = run.stress
    return run


def _part(folder: Path, file: str, part: str) -> dict[str, Any]:
    facts = files.read_json(folder / f"{file}.json")
    validity.check_part(part, facts, folder / f"{file}.json")
    return facts


def placeless(facts: Any, results: str) -> Any:
    """Facts of a run without the absolute paths that a suite's command lines have.

    Args:
        facts: JSON data.
        results: the run's ``local_results_path``, of which the last name is left if it is absolute.
    """
    if isinstance(facts, dict):
        return {key: placeless(value, results) for key, value in facts.items()}
    if isinstance(facts, list):
        return [placeless(value, results) for value in facts]
    if not isinstance(facts, str):
        return facts
    if os.path.isabs(results):
        facts = facts.replace(results, Path(results).name)
    return _BUNDLED.sub(r"\1", facts)
