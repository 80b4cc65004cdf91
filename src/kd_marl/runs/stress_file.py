"""The result of a stress test as it lies in a student's Sacred folder: ``stress.json`` (docs/formats.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMAT, VERSION, FILE = "kd-marl/stress", 1, "stress.json"


def commands(facts: Mapping[str, Any]) -> list[str]:
    """The command lines that made a ``stress.json``, in their order; earlier versions kept the last alone."""
    return facts.get("commands") or [facts[key] for key in ("command",) if key in facts]


def made_by(facts: Mapping[str, Any]) -> str:
    """Those command lines in a sentence."""
    return ", then ".join(f"`{line}`" for line in commands(facts))
