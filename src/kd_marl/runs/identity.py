"""The identity of a run: the part of its configuration that decides what it computes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from kd_core import checkpoints

# The teacher counts by its hash.
NOT_COMPARED = checkpoints.REPORTING | {"command", "resume", "teacher"}


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that decides what a run computes, as JSON has it."""
    deciding = {key: value for key, value in checkpoints.telling(config).items() if key not in NOT_COMPARED}
    deciding["env_args"] = checkpoints.unseeded(config["env_args"])
    return json.loads(json.dumps(deciding, sort_keys=True, default=str))


def identity(config: Mapping[str, Any]) -> str:
    """Return its sha256: two runs of one identity are the same run."""
    return hashlib.sha256(json.dumps(comparable(config), sort_keys=True).encode()).hexdigest()
