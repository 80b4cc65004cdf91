"""At the host's boundary: narrow, typed settings read once from EPyMARL's flat ``args``."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, get_type_hints

from kd_marl.errors import UserError

Settings = TypeVar("Settings")


def read_settings(kind: type[Settings], args: Any) -> Settings:
    """Fill a dataclass from the keys of the same names, refusing values of the wrong type.

    Raises:
        UserError: a key has a value of another type than the dataclass declares.
    """
    hints = get_type_hints(kind)
    values = {}
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]
        value, expected = getattr(args, item.name), hints[item.name]
        if expected is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if expected in (int, float, bool, str) and type(value) is not expected:
            raise UserError(f"{item.name} is {value!r}: expected a value of type {expected.__name__}")
        values[item.name] = value
    return kind(**values)


def check_counts(settings: Any, *names: str) -> None:
    """Refuse numbers of things of which there must be one at least.

    Raises:
        UserError: the first that is less.
    """
    for name in names:
        if getattr(settings, name) < 1:
            raise UserError(f"{name} is {getattr(settings, name)}: expected a whole number of at least 1")


def check_blocks(args: Any) -> None:
    """Refuse a learner other episodes than those just played: the host's buffer could hand it old ones, or only some.

    Raises:
        UserError: ``batch_size``, ``buffer_size`` and ``batch_size_run`` differ.
    """
    if not args.batch_size == args.buffer_size == args.batch_size_run:
        raise UserError(
            f"{args.learner} takes the episodes just played: set batch_size, buffer_size and batch_size_run to the "
            "same number"
        )
