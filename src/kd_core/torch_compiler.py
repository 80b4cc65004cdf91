"""Keeps torch's optimisers from importing torch's compiler: two seconds of each start, for something never used here.

An optimiser tells the compiler to leave it alone, at its first call and around each step, and imports it for that. The
stand-in below takes that message from torch's optimisers. Whoever asks it for anything else gets the compiler itself.
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

    def disable(self, function: Any = None, *others: Any, **named: Any) -> Any:
        """Return a method of an optimiser as it is, for it is never compiled; let the compiler see to others."""
        if getattr(function, "__module__", "").startswith("torch.optim."):
            return function
        return self.__getattr__("disable")(function, *others, **named)

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
