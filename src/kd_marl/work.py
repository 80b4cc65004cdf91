"""The work of a command by its name, which is imported when it is called: help needs no torch."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kd_core.errors import UserError, how_to_install
from kd_core.host import get_host
from kd_core.imports import uncollected


@dataclass(frozen=True)
class Work:
    """A function that is imported when it is called.

    Attributes:
        name: ``package.module:function``.
        host: its module needs the host. On a checkout the host decides what the package ``envs`` is, so it comes first.
        extra: the extra of setup.py whose packages its module imports; empty for none.
    """

    name: str
    host: bool = False
    extra: str = ""

    def load(self) -> Callable[..., Any]:
        """Import the function.

        Raises:
            UserError: the host cannot be loaded, or a package of the extra is not installed.
        """
        with uncollected():
            if self.host:
                # All of it: what is imported next may need its Sacred.
                _ = get_host().main
            module, _, function = self.name.partition(":")
            try:
                found = getattr(importlib.import_module(module), function)
            except ModuleNotFoundError as error:
                if not self.extra:
                    raise
                needed = f"this needs {error.name}, which is not installed: {how_to_install(self.extra)}"
                raise UserError(needed) from error
        # Modules stay until the end, so no later search for garbage goes through them again.
        gc.freeze()
        return found
