"""Sacred's own flags: which there are, and what is wrong with one before Sacred meets it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence

from kd_core.errors import UserError, nearest
from kd_core.versions import unclean


def _number(value: str) -> bool:
    try:
        return float(value) > 0
    except ValueError:
        return False


def _whole(value: str) -> bool:
    return value.removeprefix("-").isdigit()


def _level(value: str) -> bool:
    return value.isdigit() or value in ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")


# Short flag -> long flag, what its value must be, and the words for that; none: it takes no value.
_FLAGS: dict[str, tuple[str, Callable[[str], bool] | None, str]] = {
    "-b": ("--beat-interval", _number, "seconds above 0"),
    "-C": ("--capture", lambda value: value in ("no", "sys", "fd"), "no, sys or fd"),
    "-c": ("--comment", bool, "a comment"),
    "-D": ("--pdb", None, ""),
    "-d": ("--debug", None, ""),
    "-e": ("--enforce_clean", None, ""),
    "-F": ("--file_storage", bool, "a folder"),
    "-f": ("--force", None, ""),
    "-h": ("--help", None, ""),
    "-i": ("--id", bool, "an id"),
    "-l": ("--loglevel", _level, "CRITICAL, ERROR, WARNING, INFO, DEBUG or a whole number"),
    "-m": ("--mongo_db", bool, "HOST:PORT:DB"),
    "-n": ("--name", bool, "a name"),
    "-P": ("--priority", _whole, "a whole number"),
    "-p": ("--print-config", None, ""),
    "-q": ("--queue", None, ""),
    "-S": ("--s3", bool, "s3://BUCKET/PATH"),
    "-s": ("--sql", bool, "a database's URL"),
    "-t": ("--tiny_db", bool, "a file"),
    "-u": ("--unobserved", None, ""),
}
# What Sacred does in place of a run.
_COMMANDS = ("help", "my_main", "print_config", "print_dependencies", "print_named_configs", "save_config")
# Sacred's observers that need a package of their own.
_PACKAGES = {"-S": ("boto3",), "-s": ("sqlalchemy",), "-t": ("tinydb", "hashfs")}
# Flags whose value is the next word.
VALUED = frozenset(name for short, (long, fits, _) in _FLAGS.items() if fits for name in (short, long))


def check(words: Sequence[str]) -> None:
    """Refuse a flag that Sacred does not have, that lacks its value or package, or that would do nothing here.

    Args:
        words: the command line without the flags of EPyMARL.

    Raises:
        UserError: the first such flag.
    """
    for word in _commands(words):
        if word not in _COMMANDS:
            raise UserError(f"'{word}' is no command of Sacred's: leave it out, or write key=value behind 'with'")
    for short, value in _given(words):
        long, fits, expected = _FLAGS[short]
        if short == "-m":
            # Sacred's own observer would take it, and record a password. Not shown, for the same reason.
            raise UserError(f"{short} ({long}) is written otherwise here: give -m HOST:PORT:DB as two words")
        if short == "-q":
            raise UserError("-q (--queue) puts a run into a queue that nothing here works on: leave it out")
        # The word before the updates is nobody's value.
        if fits and (value == "with" or not fits(value)):
            raise UserError(f"{short} ({long}) is '{value}': expected {expected}")
        if short == "-e" and (problem := unclean()):
            raise UserError(f"{short} ({long}): {problem}: leave {short} out")
        missing = [name for name in _PACKAGES.get(short, ()) if importlib.util.find_spec(name) is None]
        if missing:
            raise UserError(f"{short} ({long}) needs what is not installed: pip install {' '.join(missing)}")


def _commands(words: Sequence[str]) -> list[str]:
    """Return the words before ``with`` that are neither flags nor their values."""
    before = list(words[: words.index("with")] if "with" in words else words)
    return [
        word
        for word, flag in zip(before, ["", *before], strict=False)
        if not (word.startswith("-") and word.strip("-")) and not _takes_next(flag)
    ]


def _takes_next(word: str) -> bool:
    """Tell whether a word is a flag, or ends in one, whose value is the next word."""
    if word.startswith("--"):
        return "=" not in word and any(fits and long.startswith(word) for long, fits, _ in _FLAGS.values())
    if not word.startswith("-"):
        return False
    for place, letter in enumerate(word[1:], start=2):
        if f"-{letter}" in VALUED:
            return place == len(word)
    return False


def _given(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Find the flags with their values, however they are written: ``-b 2``, ``-db2``, ``--beat-interval=2``."""
    longs = {long: short for short, (long, _, _) in _FLAGS.items()}
    pending = iter(words)
    for word in pending:
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            # Sacred takes the beginning of a long flag for the whole.
            found = [long for long in longs if long == name] or [long for long in longs if long.startswith(name)]
            if len(found) != 1:
                raise UserError(f"{name}: no such flag; {nearest(name, longs)}")
            short = longs[found[0]]
            takes = _FLAGS[short][1] is not None
            if equals and not takes:
                raise UserError(f"{found[0]} takes no value: leave ={value} out")
            yield short, value if equals or not takes else next(pending, "")
        elif word.startswith("-") and len(word) > 1:
            letters = word[1:]
            while letters:
                short, letters = f"-{letters[0]}", letters[1:]
                if short not in _FLAGS:
                    raise UserError(f"{word}: no such flag; valid: {', '.join(sorted(_FLAGS))}, or a long one")
                if _FLAGS[short][1] is not None:
                    yield short, letters or next(pending, "")
                    break
                yield short, ""
