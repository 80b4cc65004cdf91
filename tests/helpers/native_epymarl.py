"""Runs a checkout of EPyMARL as its README does, without the plug-in: ``python native_epymarl.py CHECKOUT FOLDER ...``.

Its results go below FOLDER, which gets a link to the checkout's source.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
from pathlib import Path
from types import ModuleType


def main(checkout: str, folder: str, *words: str) -> None:
    """Run ``src/main.py`` of a checkout with these words, in FOLDER."""
    source = Path(folder, "src")
    source.parent.mkdir(parents=True, exist_ok=True)
    if not source.is_symlink():
        source.symlink_to(Path(checkout, "src").resolve())
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")
    if importlib.util.find_spec("smaclite") is None:
        # Which it imports whatever is played.
        sys.modules["smaclite"] = ModuleType("smaclite")
    os.chdir(folder)
    sys.path[0] = str(source)
    sys.argv = [str(source / "main.py"), *words]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
