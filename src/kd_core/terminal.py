"""Plain characters where a terminal or a pipe has no others: no output may cost a result."""

from __future__ import annotations

import codecs
import sys
import unicodedata

_HANDLER = "kd-plain"
# ruff: noqa: RUF001
_PLAIN = {"±": "+/-", "×": "x", "÷": "/", "−": "-", "–": "-", "→": "->", "←": "<-", "≥": ">=", "≤": "<=", "…": "..."}


def adapt() -> None:
    """Let stdout and stderr write every character, as ASCII where their encoding is not UTF-8.

    A run's output is captured in a file that is read as UTF-8, so bytes of another encoding would break the run.
    """
    codecs.register_error(_HANDLER, _plain)
    for stream in (sys.stdout, sys.stderr):
        # Programs may have put other objects there.
        if not hasattr(stream, "reconfigure"):
            continue
        if codecs.lookup(stream.encoding).name == "utf-8":
            # Names of files may hold bytes that are none.
            stream.reconfigure(errors="backslashreplace")
        else:
            stream.reconfigure(encoding="ascii", errors=_HANDLER)


def plain(text: str) -> str:
    """Write text in ASCII: lines of boxes as ``-`` and ``|``, letters without their marks, others as ``?``."""
    return "".join(_character(character) for character in text)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end


def _character(character: str) -> str:
    if character.isascii():
        return character
    if character in _PLAIN:
        return _PLAIN[character]
    name = unicodedata.name(character, "")
    if name.startswith("BOX DRAWINGS"):
        return "+" if " AND " in name else "-" if "HORIZONTAL" in name else "|"
    if name.startswith("BLOCK") or name.endswith("BLOCK"):
        return "#"
    decomposed = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return decomposed or "?"
