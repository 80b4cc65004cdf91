"""The type and range of every key, read from the comments of the YAML files.

A comment may end with the values that its key takes: ``[whole >= 1]``, ``[number 0..1 | null]``, ``[fo | lh | lha]``.
A key means the same in every file, so one comment is enough. A key without one takes values like its defaults.
"""

from __future__ import annotations

import ast
import functools
import math
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from kd_core.errors import UserError
from kd_core.places import CONFIG, SOURCE_ROOT

_HOST_CONFIG = SOURCE_ROOT / "epymarl_lite" / "config"
# Sacred's own key; numpy takes no other values.
_SACRED = {"seed": "whole 0..4294967295"}
_WORDS = {
    "boolean": "True or False",
    "whole": "a whole number",
    "number": "a number",
    "text": "text",
    "list": "a list",
    "mapping": "a mapping",
    "null": "null",
}
# Of EPyMARL's steps and sizes none needs more; torch and numpy count no further.
_LARGEST = 2**63 - 1


class _NoFitError(ValueError):
    """The value is none of this kind's."""


@dataclass(frozen=True)
class Alternative:
    """One kind of value.

    Attributes:
        name: ``boolean``, ``whole``, ``number``, ``text``, ``list``, ``mapping``, ``null``, or ``choice``.
        low: the least number.
        high: the greatest number.
        above: whether ``low`` itself is excluded.
        choice: with ``choice`` the word.
    """

    name: str
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    choice: str = ""

    @classmethod
    def parse(cls, text: str) -> Alternative:
        """Read one part of an annotation, such as ``whole >= 1``."""
        name, _, bounds = text.strip().partition(" ")
        if name not in _WORDS:
            return cls("choice", choice=text.strip())
        if span := re.fullmatch(r"(\S+)\.\.(\S+)", bounds):
            return cls(name, float(span[1]), float(span[2]))
        if limit := re.fullmatch(r"(>=|>) *(\S+)", bounds):
            return cls(name, float(limit[2]), above=limit[1] == ">")
        if bounds:
            raise ValueError(f"no such bounds: {text!r}")
        return cls(name)

    def __str__(self) -> str:
        if self.name == "choice":
            return self.choice or '""'
        words = _WORDS[self.name]
        if math.isfinite(self.high):
            return f"{words} from {self.low:,.12g} to {self.high:,.12g}"
        if math.isfinite(self.low):
            return f"{words} {'above' if self.above else 'of at least'} {self.low:,.12g}"
        return words

    def read(self, value: Any) -> Any:
        """Return the value as this kind, whether it was typed, written in YAML, or given by a program.

        Raises:
            _NoFitError: it is none of this kind.
        """
        read: Any = getattr(self, f"_{self.name}")(value)
        if self.name in ("whole", "number") and not (self.low < read if self.above else self.low <= read):
            raise _NoFitError
        if self.name in ("whole", "number") and read > self.high:
            raise _NoFitError
        return read

    def _null(self, value: Any) -> None:
        if value is not None and str(value) not in ("None", "null", "Null", "NULL", "~"):
            raise _NoFitError

    def _boolean(self, value: Any) -> bool:
        if str(value).lower() not in ("true", "false"):
            raise _NoFitError
        return str(value).lower() == "true"

    def _whole(self, value: Any) -> int:
        number = self._number(value)
        if number != int(number) or abs(number) > _LARGEST:
            raise _NoFitError
        return int(number)

    def _number(self, value: Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise _NoFitError
        number: int | float = math.nan
        for kind in (int, float):
            try:
                number = kind(value) if isinstance(value, str) else value
                break
            except ValueError:
                continue
        if isinstance(number, float) and not math.isfinite(number):
            raise _NoFitError
        return number

    def _text(self, value: Any) -> str:
        if isinstance(value, str):
            literal = _literal(value)
            text = literal if isinstance(literal, str) else value
            if "\0" in text:  # which no file's name may have
                raise _NoFitError
            return text
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        raise _NoFitError

    def _choice(self, value: Any) -> str:
        if self._text(value) != self.choice:
            raise _NoFitError
        return self.choice

    def _list(self, value: Any) -> list[Any]:
        literal = _literal(value)
        if not isinstance(literal, (list, tuple)):
            raise _NoFitError
        return list(literal)

    def _mapping(self, value: Any) -> dict[Any, Any]:
        # On a command line it stays text: Sacred would take a mapping's keys for keys of its own.
        if not isinstance(value, Mapping):
            raise _NoFitError
        return dict(value)


@dataclass(frozen=True)
class Kind:
    """What a key takes; without alternatives anything, as Sacred reads it."""

    alternatives: tuple[Alternative, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Kind:
        """Read an annotation without its brackets."""
        return cls(tuple(Alternative.parse(part) for part in text.split("|")))

    def __str__(self) -> str:
        words = [str(alternative) for alternative in self.alternatives]
        return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)

    def read(self, key: str, value: Any) -> Any:
        """Return the value as the first kind that fits.

        Args:
            key: as the message names it.
            value: text of the command line, or a value of a YAML file.

        Raises:
            UserError: no kind fits.
        """
        if not self.alternatives:
            return _literal(value)
        # Text takes everything that is written, so it comes last.
        for alternative in sorted(self.alternatives, key=lambda alternative: alternative.name == "text"):
            try:
                return alternative.read(value)
            except (_NoFitError, OverflowError):
                continue
        raise UserError(f"{key} is {_shown(value)}: expected {self}")


@dataclass
class _Entry:
    annotation: str = ""
    defaults: list[Any] = field(default_factory=list)


@functools.cache
def table() -> Mapping[str, Kind]:
    """Return the kind of every key of our YAML files, by its dotted name.

    Raises:
        ValueError: two comments say different things of one key, or a default is none of its key's values.
    """
    entries: dict[str, _Entry] = {}
    for folder in (_HOST_CONFIG, CONFIG):
        for path in sorted(folder.rglob("*.yaml")):
            text = path.read_text(encoding="utf-8")
            notes = dict(stated(text))
            for key, value in flatten(yaml.safe_load(text) or {}):
                if key.startswith("per_env."):
                    key = key.split(".", 2)[2]
                entry = entries.setdefault(key, _Entry())
                entry.defaults.append(value)
                note = notes.get(key, "")
                if note and entry.annotation not in ("", note):
                    raise ValueError(f"{path}: {key} is [{note}], elsewhere [{entry.annotation}]")
                entry.annotation = note or entry.annotation
    kinds = {key: Kind.parse(note) for key, note in _SACRED.items()}
    for key, entry in entries.items():
        kinds[key] = Kind.parse(entry.annotation) if entry.annotation else kind_like(*entry.defaults)
        for value in entry.defaults:
            if value != {}:
                kinds[key].read(key, value)
    return kinds


def kind_of(key: str, default: Any) -> Kind:
    """Return what a key takes; one that is in none of our files takes values like its default."""
    return table()[key] if key in table() else kind_like(default)


def kind_like(*defaults: Any) -> Kind:
    """Return the kind of the values that a key has in YAML files: text may stand for anything, and so may null."""
    names = []
    for default in defaults:
        if isinstance(default, bool):
            names.append("boolean")
        elif isinstance(default, (int, float)):
            names.append("number")
        elif isinstance(default, list):
            names.append("list")
        elif default is not None or len(set(map(type, defaults))) == 1:
            return Kind()
        else:
            names.append("null")
    return Kind(tuple(Alternative(name) for name in dict.fromkeys(names)))


def stated(text: str) -> Iterator[tuple[str, str]]:
    """Find the keys of a YAML file whose comments state what they take.

    Yields:
        The dotted name and what stands between the brackets. Keys that follow each other share a comment.
    """
    folders: list[tuple[int, str]] = []
    comment, keep = "", False
    for line in text.splitlines():
        content = line.strip()
        if content.startswith("#"):
            comment, keep = (f"{comment} {content}" if not keep else content), False
        elif ":" in content:
            depth, (name, _, value) = len(line) - len(line.lstrip()), content.partition(":")
            folders = [*(folder for folder in folders if folder[0] < depth), (depth, name)]
            names = [folder for _, folder in folders]
            if not value:
                comment, keep = "", False
                continue
            if found := re.search(r"\[([^\]]+)\]$", comment):
                yield ".".join(names[2:] if names[0] == "per_env" else names), found[1]
            keep = True
        else:
            comment, keep = "", False


def flatten(values: Mapping[Any, Any], whole: Collection[str] = (), prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walk a configuration's keys with dotted names.

    Args:
        values: the configuration.
        whole: dotted names of mappings that are values themselves, as empty ones are.
        prefix: of the names.
    """
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and name not in whole:
            yield from flatten(value, whole, f"{name}.")
        else:
            yield name, value


def conform(values: Mapping[Any, Any], defaults: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a layer of the user's with every value as its key takes it.

    Args:
        values: the layer, nested as in its YAML file.
        defaults: what lies below it.
        where: the file, as the message names it.

    Raises:
        UserError: a value that its key does not take.
    """
    result: dict[str, Any] = {}
    known, mappings = dict(flatten(defaults)), _mappings()
    for key, value in flatten(values, mappings):
        default = known.get(key, value)
        if isinstance(value, Mapping) and not value and key not in mappings:
            read: Any = {}
        elif any(name.startswith(f"{key}.") for name in known):
            raise UserError(f"{where}: {key} is {_shown(value)}: expected a mapping of keys to values")
        else:
            read = kind_of(key, default).read(f"{where}: {key}", value)
        put(result, key, read)
    return result


def as_typed(values: Mapping[Any, Any]) -> dict[str, str]:
    """Return the values of a file as a user would type them: dotted key -> text."""
    return {key: _typed(value) for key, value in flatten(values, _mappings())}


def _typed(value: Any) -> str:
    if isinstance(value, Mapping):
        return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=sys.maxsize).strip()
    return value if isinstance(value, str) else repr(value)


def _mappings() -> set[str]:
    """Name the keys whose values may be mappings."""
    return {key for key, kind in table().items() if any(part.name == "mapping" for part in kind.alternatives)}


def put(config: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of a dotted key; levels that are missing are made."""
    *path, last = key.split(".")
    for part in path:
        config = config.setdefault(part, {})
    config[last] = value


def _literal(value: Any) -> Any:
    """Read text as Python writes values, as Sacred does; what is no literal stays text."""
    if not isinstance(value, str):
        return value
    try:
        literal = ast.literal_eval(value.strip())
        # Python writes no number of more than 4300 digits, and 0xfff... may have them.
        str(literal)
        return literal
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def _shown(value: Any) -> str:
    plain = _literal(value)
    text = str(plain) if isinstance(plain, (bool, int, float)) else f"'{value}'"
    return text if len(text) <= 60 else f"{text[:57]}..."
