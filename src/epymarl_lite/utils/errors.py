"""Errors that the user can mend; each message is one complete line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What EPyMARL has and this runtime leaves to it.
_IN_A_CHECKOUT = "EPyMARL itself has more: EPYMARL_HOME=/path/to/epymarl uses a checkout"


class ConfigError(ValueError):
    """A key has a value with which no run is possible."""


class MissingPackageError(ConfigError, ImportError):
    """A key asks for a package that is not installed."""


class MissingFolderError(ConfigError, FileNotFoundError):
    """A key names a folder that does not exist."""


class WorkerDiedError(RuntimeError):
    """A worker process was ended from outside, or ran out of memory."""


class EnvironmentFaultError(RuntimeError):
    """An environment does what no learner can use."""


def registered(registry: Mapping[str, Any], key: str, name: str) -> Any:
    """Return what a registry has under a name.

    Raises:
        ConfigError: it has nothing there; the message names ``key``.
    """
    if name not in registry:
        raise ConfigError(f"unknown {key} '{name}': valid are {', '.join(sorted(registry))}; {_IN_A_CHECKOUT}")
    return registry[name]
