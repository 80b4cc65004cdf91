"""Changes to a host's registries that last as long as a block of code."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def replaced(registry: dict[str, Any], key: str, entry: Any) -> Iterator[None]:
    """Let ``registry[key]`` be ``entry`` within the block."""
    before = registry[key]
    registry[key] = entry
    try:
        yield
    finally:
        registry[key] = before


@contextlib.contextmanager
def captured(registry: dict[str, Any], key: str, built: list[Any], change: Callable[[Any], None]) -> Iterator[None]:
    """Change everything that ``registry[key]`` builds within the block, and append it to ``built``."""
    build = registry[key]

    def capture(*positional: Any, **named: Any) -> Any:
        built.append(build(*positional, **named))
        change(built[-1])
        return built[-1]

    with replaced(registry, key, capture):
        yield
