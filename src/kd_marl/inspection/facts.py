"""Facts in a terminal, one a line."""

from __future__ import annotations

from collections.abc import Iterable


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print name and value, one pair a line, values aligned; an absent value is a dash."""
    pairs = [(name, "-" if value is None else str(value)) for name, value in facts]
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"{name:<{width}}  {value}")
