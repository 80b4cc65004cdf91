"""The paper's numbers, from ``paper.yaml``."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from kd_core.metrics.retention import retention

FILE = Path(__file__).with_name("paper.yaml")


@cache
def numbers() -> dict[str, Any]:
    """Read the content of ``paper.yaml``, where each key is explained."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def table_of(task: str) -> str | None:
    """Find the table, ``table_1`` or ``table_2``, that has the task; None for a task that the paper has not."""
    return next((name for name in ("table_1", "table_2") if task in numbers()[name]), None)


def score(task: str, method: str, limits: str) -> dict[str, Any] | None:
    """Look up a method's cell of Table I or II: ``return``, ``win_rate`` (Table I), ``step_ms``."""
    table = table_of(task)
    return None if table is None else numbers()[table][task].get(method, {}).get(limits)


def retention_of(task: str, method: str, limits: str) -> float | None:
    """Compute what a method retains of the paper's teacher (MAPPO FO), from Table I (win rates) or II (returns)."""
    ours, teacher = score(task, method, limits), score(task, "mappo", "fo")
    if ours is None or teacher is None:
        return None
    if "win_rate" in teacher:
        return retention(ours["win_rate"], teacher["win_rate"], win_rate=True)
    return retention(ours["return"][0], teacher["return"][0], win_rate=False)
