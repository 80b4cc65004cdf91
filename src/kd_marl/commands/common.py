"""What the sub-commands share: parsers with an example, aligned facts, and where results are."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from kd_core.errors import UserError, how_to_install
from kd_core.host import SOURCE_ROOT

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

ZOO = SOURCE_ROOT / "zoo"


def add_parser(subparsers: Subparsers, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """A sub-command's parser; its help ends with an example."""
    return subparsers.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Prints name and value, one pair a line, values aligned; an absent value is a dash."""
    pairs = [(name, "-" if value is None else str(value)) for name, value in facts]
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"{name:<{width}}  {value}")


@contextmanager
def onboard_packages() -> Iterator[None]:
    """Around imports that need the extra ``onboard``.

    Raises:
        UserError: one of its packages is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"this needs {error.name}, which is not installed: {how_to_install('onboard')}") from error


def check_parent(file: Path) -> None:
    """See that a file can be written where it is asked for, before the work that it is to hold.

    Raises:
        UserError: its folder does not exist.
    """
    if not file.expanduser().absolute().parent.is_dir():
        raise UserError(f"cannot write {file}: there is no folder {file.parent}")


def results_folders() -> list[Path]:
    """The `results` folders of the current directory, of this project and of the EPyMARL checkout in use."""
    tops = [Path.cwd(), SOURCE_ROOT.parent]
    if home := os.environ.get("EPYMARL_HOME"):
        tops.append(Path(home).expanduser())
    folders = dict.fromkeys((top / "results").resolve() for top in tops)
    return [folder for folder in folders if folder.is_dir()]
