"""`kd-marl`: runs, and everything around them."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from kd_core import terminal
from kd_core.errors import UserError, of_path
from kd_marl.commands import (
    adapt,
    buffer,
    bundle,
    dashboard,
    doctor,
    env,
    export,
    masks,
    pareto,
    reachable,
    report,
    run,
    stress,
    suite,
    teachers,
    track,
    traffic,
    train,
    watch,
)

# Each has `add(subparsers)`, which registers its parser and, as the parser's `run`, its `Work`.
_COMMANDS = (
    train,
    buffer,
    teachers,
    masks,
    env,
    export,
    bundle,
    run,
    pareto,
    stress,
    traffic,
    adapt,
    watch,
    suite,
    report,
    reachable,
    dashboard,
    track,
    doctor,
)

_DESCRIPTION = """Trains, looks after what runs leave behind and shows what they would do."""

_EXAMPLE = """example:
  kd-marl masks --env-config mpe --key pz-mpe-simple-spread-v3 --limits lh    who sees what
  kd-marl doctor                                                              what is installed, what is wrong"""

# What a shell shows of a program that SIGPIPE has ended.
READER_GONE = 128 + 13


class _Parser(argparse.ArgumentParser):
    """Say a mistake in one line, and lets a command take EPyMARL's ``with key=value ...``."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse as usual; in commands that have ``updates``, the words after ``with`` are those. Options may follow.

        A command that has ``words`` takes every word as it is.
        """
        words = list(sys.argv[1:] if args is None else args)
        if self.get_default("words") is not None:
            return argparse.Namespace(run=self.get_default("run"), words=words), []
        if "with" not in words or self.get_default("updates") is None:
            return super().parse_known_args(words, namespace)
        start = words.index("with")
        end = next((i for i in range(start, len(words)) if words[i].startswith("-")), len(words))
        parsed, rest = super().parse_known_args(words[:start] + words[end:], namespace)
        parsed.updates = words[start + 1 : end]
        return parsed, rest

    def error(self, message: str) -> NoReturn:
        """End the program with status 2."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the whole command line."""
    parser = _Parser(
        prog="kd-marl",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command line without the program's name; None to take it from `sys.argv`.

    Returns:
        0; 1 if a check found a fault; 2 after a user's mistake, which is said in one line on stderr; 141 where what
        reads the output has closed it.
    """
    terminal.adapt()
    args = build_parser().parse_args(arguments)
    # Sacred's, at every start, where setuptools still has the module.
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    try:
        status = args.run.load()(args)
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # `| head` has seen enough. Python flushes once more at its end and would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except OSError as error:
        if (refused := of_path(error)) is None:
            raise
        print(f"error: {refused}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
