"""A finished run: what Sacred and the final evaluation left of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from kd_core import files
from kd_core.errors import UserError
from kd_marl.runs import validity

ACTIONS_FILE, METRICS_FILE, STRESS_FILE = "actions.safetensors", "metrics.json", "stress.json"
# Stages without a result of their own: a teacher is measured beside its students, in their episodes.
NO_RESULT = frozenset({"kd_export", "kd_teacher"})
# An absolute path to a bundled teacher, and what of it is the same on every machine.
_BUNDLED = re.compile(r"/[^\s'\"=]*/(?:src|kd_core/data)/zoo/")
# Parts of a summary with an entry for each agent.
_PER_AGENT = ("widths", "inputs", "sees", "actions", "agreement_per_agent")
# What a report reads of Sacred's account: the rest names the machine and its user.
_TIMES, _KNOWN = (
    ("status", "start_time", "stop_time"),
    {
        "experiment": ("dependencies", "repositories"),
        "host": ("cpu", "os", "python_version"),
    },
)

Curve = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Run:
    """One run with a result, without the names and paths of the machine that it was made on.

    Attributes:
        source: the results folder or the evidence file that it was found in.
        place: its Sacred folder, as a path within the results folder.
        config: ``config.json``.
        summary: ``summary.json``.
        account: of Sacred's ``run.json`` when, from which source and on what kind of machine it was made.
        metrics: logged name -> environment steps and values; empty for a run that logged nothing.
        counts: policy -> how often each action was taken, ``(time, agents, actions)``; empty if nobody counted.
        stress: what `kd-marl stress` measured; None for a run that has not been through it.
    """

    source: Path
    place: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    account: Mapping[str, Any]
    metrics: Mapping[str, Curve] = field(default_factory=dict)
    counts: Mapping[str, np.ndarray] = field(default_factory=dict)
    stress: Mapping[str, Any] | None = None

    @property
    def folder(self) -> Path:
        """Where it lies, or would lie if its evidence file were a results folder."""
        return self.source / self.place

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
        """Return its policy's ``params``, ``flops_per_decision``, ``flops_per_episode`` or ``decision_us``, or None."""
        return self.summary.get(f"{name}_student" if self.is_student else name)

    @property
    def steps(self) -> float | None:
        """Environment steps of its training, a student's without its teacher's and its buffer's; None: unknown."""
        if not self.is_student:
            return self.summary.get("steps")
        return max((float(steps[-1]) for steps, _ in self.metrics.values() if len(steps)), default=None)

    @property
    def started(self) -> str:
        """When it started, as Sacred writes it."""
        return str(self.account.get("start_time", ""))

    @property
    def commit(self) -> str:
        """The source tree's commit, with ``+`` where it had local changes."""
        repositories = self.account.get("experiment", {}).get("repositories") or []
        return repositories[0]["commit"][:7] + ("+" if repositories[0]["dirty"] else "") if repositories else "unknown"

    @property
    def machine(self) -> str:
        """Processor, Python and PyTorch."""
        host = self.account.get("host", {})
        packages = self.account.get("experiment", {}).get("dependencies", [])
        torch = [package.replace("==", " ") for package in packages if package.startswith("torch=")]
        python = f"Python {host.get('python_version', 'unknown')}"
        return ", ".join([host.get("cpu") or "unknown processor", python, *torch])


def read(source: Path, folder: Path) -> Run | str:
    """Read the run in a Sacred folder below a results folder.

    Returns:
        The run, or why it does not count; empty where no result was to be expected.

    Raises:
        UserError: a file of it is broken.
    """
    config, sacred = _part(folder, "config", "config"), _part(folder, "run", "account")
    name = config["name"]
    if name in NO_RESULT:
        return ""
    if not (folder / "summary.json").is_file():
        status = str(sacred.get("status", "unknown")).lower()
        if status == "completed":
            return f"{name} finished without an evaluation: run it with final_evaluation=True"
        return f"{name} has no result, its status is {status}"
    if config.get("evaluate"):
        return f"{name} evaluated again what another run had trained: that run counts"
    summary, results = _part(folder, "summary", "summary"), str(config.get("local_results_path", ""))
    run = Run(
        source,
        folder.relative_to(source).as_posix(),
        placeless(config, results),
        placeless(summary, results),
        account(sacred),
        metrics(folder / METRICS_FILE),
        _counts(folder / ACTIONS_FILE),
        _part(folder, "stress", "stress") if (folder / STRESS_FILE).is_file() else None,
    )
    check_shapes(run)
    return run


def account(sacred: Mapping[str, Any]) -> dict[str, Any]:
    """Take from Sacred's ``run.json`` when, from which source and on what kind of machine a run was made."""
    known: dict[str, Any] = {name: sacred[name] for name in _TIMES if name in sacred}
    for part, names in _KNOWN.items():
        known[part] = {name: sacred[part][name] for name in names if name in sacred.get(part, {})}
    # The first repository is the source tree; where it lies is the user's own business.
    repositories = known["experiment"].get("repositories") or []
    known["experiment"]["repositories"] = [
        {name: repository[name] for name in ("commit", "dirty")} for repository in repositories[:1]
    ]
    return known


def placeless(facts: Any, results: str) -> Any:
    """Take from a run's facts the absolute paths that a suite's command lines have.

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
    return _BUNDLED.sub("src/zoo/", facts)


def check_shapes(run: Run) -> None:
    """Hold the parts of a run to each other: as many agents and actions in each, each policy counted.

    Raises:
        UserError: they are of different runs.
    """
    for name, (steps, values) in run.metrics.items():
        if not steps.size or steps.shape != values.shape or steps.ndim != 1:
            _differ(run, METRICS_FILE, f"{name} has {steps.size} steps and {values.size} values")
    lists = {key: len(run.summary[key]) for key in _PER_AGENT if key in run.summary}
    if len(set(lists.values())) > 1:
        _differ(run, "summary.json", f"numbers of agents differ: {', '.join(f'{k} {n}' for k, n in lists.items())}")
    if not run.counts:
        return
    policies = ("teacher", "student", "random") if run.is_student else ("policy",)
    if lacking := [policy for policy in policies if policy not in run.counts]:
        _differ(run, ACTIONS_FILE, f"it has no {lacking[0]}")
    if "actions" not in run.summary:
        _differ(run, "summary.json", "actions were counted, and it does not name them")
    sizes = (len(run.summary["actions"]), max(map(len, run.summary["actions"])))
    for policy in policies:
        shape = run.counts[policy].shape
        if shape[1:] != sizes:
            _differ(run, ACTIONS_FILE, f"{policy} is {shape}, not (steps, {sizes[0]}, {sizes[1]})")


def _part(folder: Path, file: str, part: str) -> dict[str, Any]:
    facts = files.read_json(folder / f"{file}.json")
    validity.check_part(part, facts, folder / f"{file}.json")
    return facts


def metrics(file: Path) -> dict[str, Curve]:
    """Read the curves that Sacred's ``metrics.json`` has: name -> steps and values; none where there is no file."""
    if not file.is_file():
        return {}
    try:
        return {
            name: (np.asarray(entry["steps"], float), np.asarray(entry["values"], float))
            for name, entry in files.read_json(file).items()
        }
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{file} is damaged: no Sacred metrics ({error})") from error


def _counts(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        return {}
    try:
        return safetensors.numpy.load_file(file)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"{file} is damaged: {error}") from error


def _differ(run: Run, file: str, what: str) -> None:
    raise UserError(f"{run.folder / file} does not fit together: {what}")
