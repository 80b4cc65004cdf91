"""Installed versions of packages."""

from __future__ import annotations

from importlib import metadata


def installed_version(distribution: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def package_version(distribution: str) -> str:
    """Return the installed version of a distribution; ``unknown`` for a source tree that is not installed."""
    return installed_version(distribution) or "unknown"
