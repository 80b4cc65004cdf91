"""Mappings within mappings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def recursive_dict_update(d: dict[str, Any], u: Mapping[str, Any]) -> dict[str, Any]:
    """Merge ``u`` into ``d`` in place, including mappings within mappings, and return ``d``."""
    for key, value in u.items():
        if isinstance(value, Mapping):
            below = d.get(key)
            d[key] = recursive_dict_update(below if isinstance(below, dict) else {}, value)
        else:
            d[key] = value
    return d
