"""The folders that hold finished runs."""

from __future__ import annotations

import os
from pathlib import Path

from kd_core.places import SOURCE_ROOT

# Folders below a results folder that hold no Sacred runs, and much else.
NO_RUNS = frozenset({"_sources", "buffers", "models", "logs", "bundles"})


def results_folders() -> list[Path]:
    """Return the `results` folders of the current directory, of this project and of the EPyMARL checkout in use."""
    tops = [Path.cwd(), SOURCE_ROOT.parent]
    if home := os.environ.get("EPYMARL_HOME"):
        tops.append(Path(home).expanduser())
    folders = dict.fromkeys((top / "results").resolve() for top in tops)
    return [folder for folder in folders if folder.is_dir()]
