"""Hold what finished runs left to a schema, so that a fault is found before a page is made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from kd_core.errors import UserError, how_to_install

SCHEMA_FILE = Path(__file__).with_name("run.schema.json")
_LONGEST = 200


def check_part(part: str, facts: Mapping[str, Any], file: Path) -> None:
    """Hold the content of one file to its schema.

    Args:
        part: its name in ``run.schema.json``: ``config``, ``account``, ``summary``, ``stress`` or ``evidence``.
        facts: its content.
        file: where it lies, for the message.

    Raises:
        UserError: it is something else.
    """
    # It is of the extra `report`, and every run imports this room.
    try:
        from jsonschema.exceptions import best_match
    except ModuleNotFoundError as error:
        raise UserError(f"this needs {error.name}, which is not installed: {how_to_install('report')}") from None
    fault = best_match(_validator(part).iter_errors(facts))
    if fault is not None:
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in fault.absolute_path)
        reason = " ".join(fault.message.split())
        named = f"{place.removeprefix('.')}: " if place else ""
        raise UserError(f"{file} is no such {part}: {named}{reason[:_LONGEST]}")


@cache
def _validator(part: str) -> Any:
    import jsonschema  # of an extra, see above

    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{part}", "$defs": schema["$defs"]})
