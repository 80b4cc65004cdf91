"""YAML that people write: read with one line for each mistake."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from kd_core.errors import UserError

# Deeper or larger than any configuration; aliases can make a short file endless.
_DEEPEST, _MOST = 50, 100_000
# Python writes no longer number in decimal.
_MOST_BITS = 10_000


class _Loader(yaml.SafeLoader):
    """Reads numbers such as ``1e-3``, and refuses a key that has two values, of which YAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping, if each of its keys is there once, or has the same value again as in EPyMARL's vdn.yaml."""
        seen: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                continue
            first = seen.setdefault(key.value, value)
            again = isinstance(value, yaml.ScalarNode) and (value.tag, value.value) == (first.tag, first.value)
            if first is not value and not again:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is there twice", key.start_mark)
        return super().construct_mapping(node, deep=True)


# YAML 1.1 takes a number for one only with a point before its exponent and a sign behind the e.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read(path: Path) -> Any:
    """Read a YAML file in UTF-8, with or without a byte-order mark.

    Raises:
        UserError: it cannot be read, or is no YAML.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"cannot read {path}: it is no text in UTF-8; save it in that encoding") from None
    return parse(text, str(path))


def parse(text: str, name: str) -> Any:
    """Read YAML.

    Args:
        text: what to read.
        name: what the message calls it.

    Raises:
        UserError: it is no YAML.
    """
    try:
        content = yaml.load(text, _Loader)
        _measure(content)
    # What has the form of a date or a number and is none, is a ValueError.
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())[:200]
        raise UserError(f"{name} is no valid YAML{where} ({reason}): correct the file") from None
    return content


def read_mapping(path: Path) -> dict[Any, Any]:
    """Read a YAML file of keys and values; an empty one has none.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    content = read(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else f"'{str(content)[:40]}'"
        raise UserError(f"{path} holds {kind}: expected lines of the form 'key: value'")
    return content


def _measure(content: Any) -> None:
    """Refuse what is too deep or too large to be walked."""
    todo, seen = [(content, 0)], 0
    while todo:
        value, depth = todo.pop()
        seen += 1
        if depth > _DEEPEST or seen > _MOST:
            raise ValueError("it is nested too deeply, or its aliases repeat too much")
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise ValueError(f"it has a number of {value.bit_length()} bits")
        if isinstance(value, dict):
            todo += [(part, depth + 1) for part in value.values()]
        elif isinstance(value, (list, tuple, set)):
            todo += [(part, depth + 1) for part in value]
