"""Fields of untrusted JSON: strict parsing, and reading with the required types."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from kd_onboard.errors import BundleError

# Largest whole number accepted: far beyond any network, and products of two such sizes fit into 64 bits.
MOST = 1 << 31
# Every program reads such a number as a float.
_MOST_DIGITS = 300
_NAMES = {bool: "true or false", str: "a text", int: "a whole number", list: "a list", dict: "an object"}


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """Parse JSON bytes to an object; refuse duplicate keys, NaN and infinity, on which parsers disagree.

    Raises:
        BundleError: the bytes are not such an object.
    """
    try:
        value = strict_json(data.decode("utf-8"))
    except RecursionError:
        raise BundleError(f"{where} is damaged: nested too deeply") from None
    except ValueError as error:
        raise BundleError(f"{where} is damaged: no valid JSON ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(value, dict):
        raise BundleError(f"{where} is damaged: expected a JSON object, found {type(value).__name__}")
    return value


def strict_json(text: str | bytes, constants: bool = False) -> Any:
    """Parse JSON that every program reads alike: no key twice in an object, no number too large for a float.

    Args:
        text: the JSON.
        constants: accept NaN and infinity, which Python writes.

    Raises:
        ValueError: it is not such JSON.
        RecursionError: it is nested too deeply.
    """
    constant = None if constants else _no_number
    return json.loads(
        text, object_pairs_hook=_without_repeats, parse_int=_whole, parse_float=_float, parse_constant=constant
    )


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError("a number is too large")
    return int(digits)


def _float(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise ValueError("a number is too large")
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return found


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


class Fields:
    """A JSON object whose fields are read with their types; each method raises BundleError for another value.

    Args:
        values: the object.
        where: its name in messages, such as ``profile.json agents[2]``.
    """

    def __init__(self, values: dict[str, Any], where: str) -> None:
        self.values, self.where = values, where

    def fail(self, name: str, expected: str) -> NoReturn:
        """Refuse a field.

        Raises:
            BundleError: always.
        """
        if name not in self.values:
            raise BundleError(f"{self.where} lacks '{name}': expected {expected}")
        raise BundleError(f"{self.where}: '{name}' is {quoted(self.values[name])}, expected {expected}")

    def _typed(self, name: str, kind: type) -> Any:
        value = self.values.get(name)
        if type(value) is not kind:
            self.fail(name, _NAMES[kind])
        return value

    def flag(self, name: str) -> bool:
        """Read true or false."""
        return self._typed(name, bool)

    def text(self, name: str, pattern: str = "") -> str:
        """Read a text without control characters; with ``pattern``, one that matches it entirely."""
        value = self._typed(name, str)
        if len(value) > 1000 or not value.isprintable() or (pattern and not re.fullmatch(pattern, value, re.ASCII)):
            self.fail(name, f"a text like {pattern}" if pattern else "a printable text of at most 1000 characters")
        return value

    def whole(self, name: str, least: int = 0, most: int = MOST) -> int:
        """Read a whole number between ``least`` and ``most``."""
        value = self._typed(name, int)
        if not least <= value <= most:
            self.fail(name, f"a whole number from {least} to {most}")
        return value

    def number(self, name: str, least: float = 0.0) -> float:
        """Read a number of at least ``least``."""
        value = self.values.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= 1e300:
            self.fail(name, f"a number of at least {least:g}")
        return float(value)

    def choice(self, name: str, valid: tuple[str, ...]) -> str:
        """Read one of the texts ``valid``."""
        value = self._typed(name, str)
        if value not in valid:
            self.fail(name, "one of " + ", ".join(valid))
        return value

    def items(self, name: str, most: int = 100_000) -> list[Any]:
        """Read a list of at most ``most`` elements."""
        value = self._typed(name, list)
        if len(value) > most:
            self.fail(name, f"a list of at most {most} elements")
        return value

    def object(self, name: str) -> Fields:
        """Read an object inside this one."""
        return Fields(self._typed(name, dict), f"{self.where} {name}")

    def objects(self, name: str) -> Iterator[Fields]:
        """Read the objects of a list."""
        for i, value in enumerate(self.items(name)):
            if type(value) is not dict:
                raise BundleError(f"{self.where}: {name}[{i}] is {quoted(value)}, expected an object")
            yield Fields(value, f"{self.where} {name}[{i}]")

    def is_null(self, name: str) -> bool:
        """Tell whether the field is present and null; an absent field is a fault like any other."""
        return name in self.values and self.values[name] is None


def quoted(value: Any) -> str:
    """Format a value for a message, cut to a readable length."""
    text = ascii(value) if not isinstance(value, int) or abs(value) < 10**30 else "a huge number"
    return text if len(text) <= 60 else text[:57] + "..."
