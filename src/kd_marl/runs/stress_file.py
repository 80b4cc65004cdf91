"""The result of a stress test in a student's Sacred folder: ``stress.json`` (docs/reference/formats/stress.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMAT, VERSION, FILE = "kd-marl/stress", 1, "stress.json"


def made_by(facts: Mapping[str, Any]) -> str:
    """Join the command lines that made a ``stress.json``, in their order."""
    return ", then ".join(f"`{line}`" for line in facts.get("commands", ()))
