"""The arguments of an environment's own constructor, which `env_args` may name beside the keys of the YAML files."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

# Everything else that a task is told is decided by other keys, or by EPyMARL's own wrapper.
_OURS = frozenset({"self", "seed", "render_mode", "continuous_actions", "env_name", "lib_name"})


def arguments(key: str) -> frozenset[str] | None:
    """List what the constructor of a Gymnasium or PettingZoo environment takes.

    Args:
        key: ``env_args.key``.

    Returns:
        The names, which are none where there is no such environment; None where it takes any name.
    """
    found: set[str] = set()
    try:
        builders = _pettingzoo(key) if key.startswith("pz-") else _gymnasium(key)
    except Exception:
        # Whatever hinders its import: the run itself says it, when it builds the environment.
        return frozenset()
    for build in builders:
        parameters = inspect.signature(build).parameters.values()
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return None
        found |= {parameter.name for parameter in parameters}
    return frozenset(found - _OURS)


def _pettingzoo(key: str) -> list[Callable[..., Any]]:
    from epymarl_lite.envs.pz import find_module  # it brings numpy, and help needs none

    library, _, name = key.removeprefix("pz-").partition("-")
    return [find_module(key, library, name.replace("-", "_")).raw_env]


def _gymnasium(key: str) -> list[Callable[..., Any]]:
    import gymnasium  # takes a while, and most runs name no such argument

    # VMAS hands its scenarios whatever it is given.
    if key.startswith("vmas-"):
        return [lambda **arguments: None]
    module, _, name = key.rpartition(":")
    if module:
        importlib.import_module(module)
    entry = gymnasium.spec(name).entry_point
    if isinstance(entry, str):
        path, _, attribute = entry.partition(":")
        entry = getattr(importlib.import_module(path), attribute)
    return [entry] if callable(entry) else []
