"""The EPyMARL-style entry: ``python src/main.py --config=kd_student --env-config=mpe with env_args.key=...``."""

from __future__ import annotations

import sys

from kd_core import terminal, threads
from kd_core.config import USAGE, parse_command
from kd_core.errors import UserError
from kd_core.host import get_host
from kd_marl.work import Work

# Before torch is imported, which nothing above does.
threads.limit()

_LAUNCH = Work("kd_marl.plugin.launch:launch", host=True)


def main(arguments: list[str]) -> int:
    """Run one stage or one stock algorithm; returns the exit status."""
    terminal.adapt()
    if not arguments or "--help" in arguments or "-h" in arguments:
        print(USAGE)
        return 0
    try:
        command = parse_command(arguments)
        launch = _LAUNCH.load()
        launch(get_host(), command)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
