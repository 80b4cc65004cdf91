"""Mistakes in a configuration, told apart from faults of the program: their message is one line for the user."""

from __future__ import annotations


class ConfigError(ValueError):
    """A key has a value that cannot be run."""


class MissingPackageError(ConfigError, ImportError):
    """A key asks for a package that is not installed."""


class MissingFolderError(ConfigError, FileNotFoundError):
    """A key names a folder that is not there."""
