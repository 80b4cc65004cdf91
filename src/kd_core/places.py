"""Where kd-marl keeps what is no package: configurations, teachers, and the script that every run starts with.

A clone has them in ``src``, where EPyMARL has its own, with links to them in ``kd_core/data``. A wheel has them there.
"""

from __future__ import annotations

from pathlib import Path

SOURCE_ROOT = Path(__file__).resolve().parents[1]
_DATA = Path(__file__).resolve().parent / "data"
CONFIG, ZOO = (_DATA / "config").resolve(), (_DATA / "zoo").resolve()
# Alone in its folder, which Python puts first of the places that it imports from.
MAIN = (_DATA / "entry" / "main.py").resolve()
IN_CLONE = MAIN.parent == SOURCE_ROOT
# What a user types before the words of a run. Records keep it, so whoever reads one knows both.
PROGRAMS = (("python", "src/main.py"), ("kd-marl", "train"))
PROGRAM = PROGRAMS[0] if IN_CLONE else PROGRAMS[1]
# The folder of the configurations, as messages name it.
CONFIG_NAME = "src/config" if IN_CLONE else str(CONFIG)
