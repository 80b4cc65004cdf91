"""`kd-marl pareto`: students of several widths, and the retention of each against its cost."""

from __future__ import annotations

from pathlib import Path

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work

WIDTHS, SEEDS = (4, 8, 16, 32, 64), (1,)


def add(subparsers: Subparsers) -> None:
    """Adds `pareto`."""
    parser = add_parser(
        subparsers,
        "pareto",
        "Distil students of several widths, export them, and draw the retention of each against its costs.",
        "kd-marl pareto --env-config=mpe --widths 4 8 16 32 64 --seeds 1 2 3 --to pareto with "
        "env_args.key=pz-mpe-simple-spread-v3",
    )
    parser.add_argument("--env-config", required=True, metavar="NAME", help="as for kd-marl train, e.g. mpe")
    parser.add_argument(
        "--widths", nargs="+", type=int, default=WIDTHS, metavar="W", help="of all agents (default: 4 8 16 32 64)"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, metavar="S", help="runs of each (default: 1)")
    parser.add_argument(
        "--message-bits",
        nargs="+",
        type=int,
        default=(),
        metavar="K",
        help="compare students that send messages of so many bits too, e.g. 0 1 2 4 8 16 32 (default: message_bits)",
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument(
        "--to",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of runs, bundles, figure and page; call again to go on",
    )
    # What follows `with` is taken out before argparse looks, see cli.py.
    parser.usage = f"{parser.prog} [options] --env-config NAME --to DIR with env_args.key=TASK [key=value ...]"
    parser.set_defaults(run=Work("kd_marl.pareto.command:run", host=True, extra="onboard"), updates=[])
