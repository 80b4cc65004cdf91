"""Errors that a user can mend, said in one line."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

from kd_core.places import IN_CLONE


class UserError(ValueError):
    """A mistake in what the user gave: the message says what was wrong, what was expected and what to do."""

    def __str__(self) -> str:
        """Return the message in one line, whatever was quoted in it."""
        return " ".join(super().__str__().splitlines())


# What a file system has against a path, whatever is to be done with it.
_AGAINST_PATHS = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EROFS)


def of_path(error: OSError) -> UserError | None:
    """Say in one line why a file system refuses a path; None: the error is of another kind."""
    if error.errno not in _AGAINST_PATHS or error.filename is None:
        return None
    name = str(error.filename)
    shown = name if len(name) <= 200 else f"{name[:200]}..."
    return UserError(f"cannot use {shown} ({error.strerror}): give another path, or rights to this one")


def how_to_install(extra: str) -> str:
    """Write the command that installs the packages of one of the project's extras."""
    return f"pip install -e '.[{extra}]' in kd-marl's checkout" if IN_CLONE else f"pip install 'kd-marl[{extra}]'"


def nearest(word: str, valid: Iterable[str]) -> str:
    """Write the hint that ends an "unknown name" message.

    Args:
        word: what the user wrote.
        valid: the names that would have been accepted.

    Returns:
        ``"did you mean 'x' or 'y'?"`` with the nearest valid names, or ``"valid: a, b, c"`` if none is near.
    """
    names = sorted({str(name) for name in valid})
    near = difflib.get_close_matches(str(word), names, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(f"'{name}'" for name in near) + "?"
    return "valid: " + ", ".join(names)
