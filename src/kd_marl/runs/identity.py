"""When two runs are the same run: the part of their configurations that decides what they compute."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from kd_core import checkpoints

# The teacher counts by its hash.
NOT_COMPARED = checkpoints.REPORTING | {"command", "resume", "teacher"}


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration decides what a run computes, as JSON has it."""
    deciding = {key: value for key, value in checkpoints.telling(config).items() if key not in NOT_COMPARED}
    deciding["env_args"] = checkpoints.unseeded(config["env_args"])
    return json.loads(json.dumps(deciding, sort_keys=True, default=str))


def identity(config: Mapping[str, Any]) -> str:
    """Sha256 of that: two runs of one identity are the same run."""
    return hashlib.sha256(json.dumps(comparable(config), sort_keys=True).encode()).hexdigest()
