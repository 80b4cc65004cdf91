"""The EPyMARL-style entry: ``python src/main.py --config=kd_student --env-config=mpe with env_args.key=...``."""

from __future__ import annotations

import sys

from kd_core import threads

threads.limit()


def main(arguments: list[str]) -> int:
    """Run one stage or one stock algorithm; returns the exit status."""
    from kd_core.config import USAGE, assemble, parse_command
    from kd_core.errors import UserError
    from kd_marl.plugin.launch import execute

    if not arguments or "--help" in arguments or "-h" in arguments:
        print(USAGE)
        return 0
    try:
        command = parse_command(arguments)

        import torch

        from kd_core import progress
        from kd_core.host import get_host

        torch.set_num_threads(1)
        progress.remember_terminal()
        # The host comes first: on a checkout it decides what the package `envs` is.
        host = get_host()
        from kd_marl.plugin import lifecycle, register

        register.register(host)
        config = assemble(host, command)
        lifecycle.install(host)
        execute(host, command, config)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
