"""Versions of installed packages, and the commit of the source tree."""

from __future__ import annotations

import subprocess
from importlib import metadata

from kd_core.places import IN_CLONE, SOURCE_ROOT


def installed_version(distribution: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def package_version(distribution: str) -> str:
    """Return the installed version of a distribution; ``unknown`` for a source tree that is not installed."""
    return installed_version(distribution) or "unknown"


def source_commit() -> str | None:
    """Find the source tree's commit, ``+`` where tracked files differ from it; None outside a checkout."""
    if not IN_CLONE:
        return None
    git = ["git", "-C", str(SOURCE_ROOT)]
    try:
        head = subprocess.check_output([*git, "rev-parse", "--short", "HEAD"], text=True, stderr=subprocess.DEVNULL)
        changed = subprocess.check_output([*git, "status", "--porcelain", "--untracked-files=no"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.strip() + ("+" if changed.strip() else "")
