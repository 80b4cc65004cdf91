"""Environments of the user's own: ``env: own`` builds the class that ``env_args.key`` names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from kd_core.errors import UserError, nearest


def own_env(key: str | None = None, **env_args: Any) -> Any:
    """Build an environment.

    Args:
        key: its class, or a function that builds it, as ``module:Class``.
        **env_args: its own arguments, and ``seed``, ``common_reward`` and ``reward_scalarisation``.

    Raises:
        UserError: there is no such class.
    """
    return find_class(key)(**env_args)


def find_class(key: str | None) -> Any:
    """Import the class that a key names, from the current folder or from any installed package.

    Raises:
        UserError: the key is none, or its module or class is not there.
    """
    module, _, name = str(key or "").partition(":")
    if not module or not name.isidentifier():
        raise UserError(f"env_args.key is {key!r}: expected your class as module:Class, such as chargers:Chargers")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not error.name or not f"{module}.".startswith(f"{error.name}."):
            raise UserError(f"module {module} needs {error.name}, which is not installed: install it") from error
        raise UserError(f"there is no module {module}: type the command in the folder of {module}.py") from error
    except SyntaxError as error:
        raise UserError(f"module {module} cannot be read: {error.msg}, line {error.lineno}; correct it") from error
    if not hasattr(found, name):
        raise UserError(
            f"module {module} has no {name}; {nearest(name, [own for own in vars(found) if own[:1] != '_'])}"
        )
    return getattr(found, name)
