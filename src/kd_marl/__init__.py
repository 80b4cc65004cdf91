"""KD-MARL: small, decentralised students from a large multi-agent teacher, as an EPyMARL plug-in.

The names below are the public Python API. They are loaded on first use, so that ``import kd_marl`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_core.errors import UserError
    from kd_marl.api import (
        TeacherInfo,
        distil,
        evaluate,
        export,
        load_student,
        load_teacher,
        teachers,
        train_teacher,
        write_report,
    )

__all__ = [
    "TeacherInfo",
    "UserError",
    "distil",
    "evaluate",
    "export",
    "load_student",
    "load_teacher",
    "teachers",
    "train_teacher",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'kd_marl' has no attribute '{name}'")
    # First of all: an EPyMARL checkout brings its own `envs` package, which ours joins.
    _ = import_module("kd_core.host").get_host().main
    return getattr(import_module("kd_marl.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
