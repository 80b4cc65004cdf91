"""One run: `python src/main.py` in a clone, `kd-marl train` everywhere."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from kd_core import terminal, threads
from kd_core.config import USAGE, parse_command
from kd_core.errors import UserError, of_path
from kd_core.host import get_host
from kd_marl.work import Work

# Before torch is imported, which nothing above does.
threads.limit()

_LAUNCH = Work("kd_marl.plugin.launch:launch", host=True)


def command(args: argparse.Namespace) -> int:
    """Run what `kd-marl train` was given; returns the exit status."""
    return main(args.words)


def main(arguments: Sequence[str]) -> int:
    """Run one stage or one stock algorithm.

    Args:
        arguments: the command line without the program's name.

    Returns:
        The exit status: 0; 2 after a user's mistake, which is said in one line on stderr.
    """
    terminal.adapt()
    if not arguments or "--help" in arguments or "-h" in arguments:
        print(USAGE)
        return 0
    try:
        command = parse_command(list(arguments))
        launch = _LAUNCH.load()
        launch(get_host(), command)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if (refused := of_path(error)) is None:
            raise
        print(f"error: {refused}", file=sys.stderr)
        return 2
    return 0
