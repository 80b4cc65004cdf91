"""Errors that the user can mend; each message is one complete line."""

from __future__ import annotations


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
