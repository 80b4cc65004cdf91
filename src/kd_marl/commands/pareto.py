"""`kd-marl pareto`: students of several widths, and what each keeps for what it costs."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from kd_core.errors import UserError
from kd_marl.commands.common import Subparsers, add_parser, onboard_packages

WIDTHS, SEEDS = (4, 8, 16, 32, 64), (1,)


def add(subparsers: Subparsers) -> None:
    """Adds `pareto`."""
    parser = add_parser(
        subparsers,
        "pareto",
        "Distil students of several widths, export them, and draw what each keeps against what it costs.",
        "kd-marl pareto --env-config=mpe --widths 4 8 16 32 64 --seeds 1 2 3 --to pareto with "
        "env_args.key=pz-mpe-simple-spread-v3",
    )
    parser.add_argument("--env-config", required=True, metavar="NAME", help="as for python src/main.py, e.g. mpe")
    parser.add_argument(
        "--widths", nargs="+", type=int, default=WIDTHS, metavar="W", help="of all agents (default: 4 8 16 32 64)"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, metavar="S", help="runs of each (default: 1)")
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
    parser.set_defaults(run=_pareto, updates=[])


def _pareto(args: argparse.Namespace) -> int:
    from kd_core.host import get_host

    # First of all: an EPyMARL checkout brings its own `envs` package, which ours joins.
    host = get_host()

    from kd_core import progress
    from kd_marl.plugin import register

    with onboard_packages():
        from kd_marl.pareto import choose as pareto
        from kd_marl.pareto.sweep import Sweep
    register.register(host)
    progress.remember_terminal()
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}: give at least 1")
    args.to = args.to.expanduser()
    sweep = Sweep(host, args.env_config, args.updates, args.widths, args.seeds, args.to)
    # A terminal's Ctrl-C and a batch system's SIGTERM end the runs alike.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sweep.make(args.jobs)
        facts = pareto.measure(sweep)
    except KeyboardInterrupt:
        print("stopped: the same command goes on with what is left", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    pareto.write(args.to, facts)
    for point in facts["points"]:
        knee = "  knee" if point["width"] == facts["knee"] else ""
        print(f"width {point['width']:>3}  keeps {point['retention']:7.1%}  {point['flops']:>8.0f} FLOPs{knee}")
    print(f"written to {args.to / 'pareto.svg'}, pareto.md and pareto.json")
    return 0
