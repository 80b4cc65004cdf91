"""Versions of installed packages, and the commit of the source tree."""

from __future__ import annotations

import os
import subprocess
from importlib import metadata
from pathlib import Path

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


def unclean() -> str:
    """Say why no commit stands for the source tree, ours and that of the checkout in use; "" where one does."""
    home = os.environ.get("EPYMARL_HOME")
    for folder in (SOURCE_ROOT, *([Path(home).expanduser()] if home else [])):
        git = ["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"]
        try:
            changed = subprocess.run(git, capture_output=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return f"{folder} is in no git repository"
        if changed.strip():
            return f"{folder} has changes that are not committed"
    return ""


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
