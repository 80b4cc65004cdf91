"""The work of `kd-marl pareto`: the students are made and exported, and the sweep's page is written."""

from __future__ import annotations

import argparse
import signal
import sys

from kd_core import progress
from kd_core.errors import UserError
from kd_core.host import get_host
from kd_marl.pareto import choose
from kd_marl.pareto.figure import is_knee
from kd_marl.pareto.sweep import Sweep
from kd_marl.plugin import register


def run(args: argparse.Namespace) -> int:
    """Make the sweep of the command's arguments and write its page; returns the exit status."""
    host = get_host()
    register.register(host)
    progress.remember_terminal()
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}: give at least 1")
    args.to = args.to.expanduser()
    sweep = Sweep(host, args.env_config, args.updates, args.widths, args.seeds, args.to, args.message_bits)
    # A terminal's Ctrl-C and a batch system's SIGTERM end the runs alike.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sweep.make(args.jobs)
        facts = choose.measure(sweep)
    except KeyboardInterrupt:
        print("stopped: the same command goes on with what is left", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    choose.write(args.to, facts)
    for point in facts["points"]:
        knee = "  knee" if is_knee(facts, point) else ""
        bits = f"  {point['message_bits']:>3} bits" if sweep.bits else ""
        print(
            f"width {point['width']:>3}{bits}  retention {point['retention']:7.1%}  {point['flops']:>8.0f} FLOPs{knee}"
        )
    print(f"written to {args.to / 'pareto.svg'}, pareto.md and pareto.json")
    return 0
