"""Imports sacred where setuptools is 82 or newer, which has no ``pkg_resources`` any more.

Sacred 0.8.7 needs it for the versions of what is installed, and for the path of one of its own files. Delete this
module once sacred imports without it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from functools import cached_property
from importlib import metadata, resources
from types import ModuleType


class _Distribution:
    """What sacred asks of one."""

    def __init__(self, found: metadata.Distribution) -> None:
        self._found = found
        self.project_name, self.version = str(found.metadata["Name"]), found.version

    def _get_metadata(self, name: str) -> list[str]:
        return (self._found.read_text(name) or "").split()


class _WorkingSet:
    """The distributions of this environment."""

    @cached_property
    def by_key(self) -> dict[str, _Distribution]:
        found = [_Distribution(distribution) for distribution in metadata.distributions()]
        # Of two with one name the first is the one that is imported.
        return {distribution.project_name.lower(): distribution for distribution in reversed(found)}

    def __iter__(self) -> Iterator[_Distribution]:
        return iter(self.by_key.values())


def import_sacred() -> None:
    """Import sacred, with a stand-in for ``pkg_resources`` if there is none; nobody else is shown that."""
    if "sacred" in sys.modules or importlib.util.find_spec("pkg_resources") is not None:
        return
    stand_in = ModuleType("pkg_resources")
    vars(stand_in).update(
        working_set=_WorkingSet(),
        resource_filename=lambda package, name: str(resources.files(package) / name),
    )
    sys.modules["pkg_resources"] = stand_in
    try:
        importlib.import_module("sacred.observers")
    finally:
        del sys.modules["pkg_resources"]
