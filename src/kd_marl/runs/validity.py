"""What a run's record must hold, so that what is broken is found before a page is made of it, not half-way through."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema

from kd_core.errors import UserError

if TYPE_CHECKING:
    from kd_marl.runs.finished import Run

SCHEMA_FILE = Path(__file__).with_name("record.schema.json")
# Parts of a summary with an entry for each agent.
_PER_AGENT = ("widths", "inputs", "sees", "actions", "agreement_per_agent")
_LONGEST = 200


def check_part(part: str, facts: Mapping[str, Any], file: Path) -> None:
    """Hold the content of one file to its schema.

    Args:
        part: which, as ``record.schema.json`` names them: ``config``, ``account``, ``summary``, ``stress``.
        facts: its content.
        file: where it lies, for the message.

    Raises:
        UserError: it is something else.
    """
    fault = jsonschema.exceptions.best_match(_validator(part).iter_errors(facts))
    if fault is not None:
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in fault.absolute_path)
        reason = " ".join(fault.message.split())
        named = f"{place.removeprefix('.')}: " if place else ""
        raise UserError(f"{file} is no such record: {named}{reason[:_LONGEST]}")


def check_shapes(run: Run) -> None:
    """Hold the parts of a record to each other: as many agents and actions in each, each policy counted.

    Raises:
        UserError: they are of different runs, or a file is broken.
    """
    for name, (steps, values) in run.metrics.items():
        if not steps.size or steps.shape != values.shape or steps.ndim != 1:
            _differ(run, "metrics.json", f"{name} has {steps.size} steps and {values.size} values")
    lists = {key: len(run.summary[key]) for key in _PER_AGENT if key in run.summary}
    if len(set(lists.values())) > 1:
        _differ(run, "summary.json", f"numbers of agents differ: {', '.join(f'{k} {n}' for k, n in lists.items())}")
    if not run.counts:
        return
    policies = ("teacher", "student", "random") if run.is_student else ("policy",)
    if lacking := [policy for policy in policies if policy not in run.counts]:
        _differ(run, "actions.safetensors", f"it has no {lacking[0]}")
    if "actions" not in run.summary:
        _differ(run, "summary.json", "actions were counted, and it does not name them")
    sizes = (len(run.summary["actions"]), max(map(len, run.summary["actions"])))
    for policy in policies:
        shape = run.counts[policy].shape
        if shape[1:] != sizes:
            _differ(run, "actions.safetensors", f"{policy} is {shape}, not (steps, {sizes[0]}, {sizes[1]})")


def _differ(run: Run, file: str, what: str) -> None:
    raise UserError(f"{run.folder / file} does not fit together: {what}")


@cache
def _validator(part: str) -> Any:
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{part}", "$defs": schema["$defs"]})
