"""Keeps torch's optimisers from importing torch's compiler: two seconds of each start, for something never used here.

An optimiser tells the compiler to leave it alone, at its first call and around each step, and imports it for that. The
stand-in below takes that message. Whoever asks it for anything else gets the compiler itself.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import torch

_NAME = "torch._dynamo"


class _StandIn(ModuleType):
    """Does nothing at a break of a compiled program, since there is none, and becomes the compiler when it is used."""

    @staticmethod
    def graph_break(*_: Any, **__: Any) -> None:
        """Do nothing."""

    @staticmethod
    def disable(function: Any, *_: Any, **__: Any) -> Any:
        """Return a function that is never compiled as it is."""
        return function

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(_NAME) is self:
            del sys.modules[_NAME]
            vars(torch).pop("_dynamo", None)
        return getattr(importlib.import_module(_NAME), name)


def defer() -> None:
    """Import the compiler when something compiles, and not before."""
    if _NAME not in sys.modules:
        stand_in = _StandIn(_NAME)
        sys.modules[_NAME] = stand_in
        vars(torch)["_dynamo"] = stand_in
