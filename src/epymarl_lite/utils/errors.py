"""What is no fault of the program, and can be mended by the user: its message is one line that says all."""

from __future__ import annotations


class ConfigError(ValueError):
    """A key has a value that cannot be run."""


class MissingPackageError(ConfigError, ImportError):
    """A key asks for a package that is not installed."""


class MissingFolderError(ConfigError, FileNotFoundError):
    """A key names a folder that is not there."""


class WorkerDiedError(RuntimeError):
    """A worker process was ended from outside, or ran out of memory."""
