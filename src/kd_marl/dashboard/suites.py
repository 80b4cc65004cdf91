"""How far suites are, from the same records as `kd-marl suite status`, and when those that run will end."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kd_core.errors import UserError
from kd_core.host import get_host
from kd_marl.plugin import register
from kd_marl.suite import document
from kd_marl.suite.attempts_log import State, spent
from kd_marl.suite.campaign import Found, look
from kd_marl.suite.estimate import Durations, Load, seconds_left
from kd_marl.suite.plan import Plan

# Reasons of broken runs that are listed.
_MOST_NOTES = 20


@dataclass(frozen=True)
class Standing:
    """What the page shows of a suite.

    Attributes:
        name: of the suite.
        file: its YAML file.
        counts: state -> how many of its runs, teachers and buffers.
        rows: the same for each task, method and limits.
        running: labels of what runs.
        notes: why runs are broken.
        seconds: until all is made, if what runs now keeps running; None where that is not known, or nothing runs.
        fault: why nothing is known of it; "" where all is well.
    """

    name: str
    file: str
    counts: dict[str, int] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float | None = None
    fault: str = ""


class Suites:
    """The suites whose runs lie in a results folder."""

    def __init__(self, files: Sequence[Path], root: Path, given: bool) -> None:
        """Take suite files.

        Args:
            files: YAML files.
            root: the results folder.
            given: whether the user named the files: then every one is shown, and one may have its runs in ``root``.
        """
        self._files, self._root, self._given = files, root, given
        self._plans: dict[Path, tuple[int, Plan]] = {}

    def standings(self) -> list[dict[str, Any]]:
        """Return how far each suite is."""
        return [asdict(found) for file in self._files if (found := self._standing(file)) is not None]

    def _standing(self, file: Path) -> Standing | None:
        try:
            plan = self._plan(file)
            return None if plan is None else standing(plan, str(file))
        except (UserError, OSError) as error:
            return Standing(file.stem, str(file), fault=str(error)) if self._given else None

    def _plan(self, file: Path) -> Plan | None:
        """Return a suite's plan; None if its runs are not in the results folder."""
        written = file.stat().st_mtime_ns
        if file not in self._plans or self._plans[file][0] != written:
            suite = document.load(file)
            folder = self._folder(suite.name)
            if folder is None:
                return None
            host = get_host()
            register.register(host)
            self._plans[file] = (written, Plan(host, suite, folder))
        return self._plans[file][1]

    def _folder(self, name: str) -> Path | None:
        usual = self._root / "suites" / name
        if usual.is_dir():
            return usual
        own = (self._root / "suite").is_dir()
        if own and (self._given or self._root.name == name):
            return self._root
        return usual if self._given else None


def standing(plan: Plan, file: str) -> Standing:
    """Say how far a suite is."""
    found = {label: look(plan, label) for label in plan.nodes}
    rows: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for label, node in plan.nodes.items():
        rows[node.task, node.method, node.cell.limits if node.cell else ""][found[label].state.value] += 1
    return Standing(
        name=plan.suite.name,
        file=file,
        counts={state.value: count for state in State if (count := sum(f.state is state for f in found.values()))},
        rows=[
            {"task": task, "method": method, "limits": limits, "counts": dict(counts)}
            for (task, method, limits), counts in rows.items()
        ],
        running=[label for label in found if found[label].state is State.RUNNING],
        notes=[f"{label}: {f.note}" for label, f in found.items() if f.state is State.BROKEN][:_MOST_NOTES],
        seconds=_seconds(plan, found, time.time()),
    )


def _seconds(plan: Plan, found: dict[str, Found], now: float) -> float | None:
    """Estimate when a suite ends, on as many processors as its runs have now."""
    durations = Durations()
    for f in found.values():
        if f.state is State.FINISHED and f.job is not None:
            durations.add(f.job.kind, f.job.spent())
    running, waiting = [], []
    for label, f in found.items():
        node = plan.nodes[label]
        if f.state in (State.FINISHED, State.BROKEN):
            continue
        whole = durations.of(node.kind)
        if whole is None:
            return None
        attempts = f.job.attempts_log.attempts() if f.job is not None else []
        goes_on = f.job is not None and f.job.goes_on
        cpus = plan.suite.cpus_of(node.method)
        if f.state is State.RUNNING and attempts:
            before = (spent(attempts[:-1]) if goes_on else None) or 0.0
            running.append(Load(max(0.0, whole - before - (now - attempts[-1].started)), cpus))
        else:
            waiting.append(Load(max(0.0, whole - ((spent(attempts) if goes_on else None) or 0.0)), cpus))
    if not running:
        return None
    return seconds_left(running, waiting, sum(load.cpus for load in running))
