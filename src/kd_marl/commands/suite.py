"""`kd-marl suite`: grids of runs from a YAML file, made once, here or on a Ray cluster."""

from __future__ import annotations

from pathlib import Path

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work


def add(subparsers: Subparsers) -> None:
    """Adds `suite run`, `suite status` and `suite list`."""
    parser = add_parser(
        subparsers,
        "suite",
        "Make the runs of a grid (tasks x methods x limits x seeds) that a YAML file describes: docs/guides/suites.md.",
        "kd-marl suite run suites/smoke.yaml --jobs 4",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    run = add_parser(
        actions,
        "run",
        "Make what is missing; stop it at any time, the same command goes on.",
        "kd-marl suite run suites/paper.yaml --tasks 3m 3s5z --seeds 1 2 3 --jobs 8 with eval_episodes=500",
    )
    run.add_argument("--jobs", type=int, help="processors to use at most (default: all)")
    run.add_argument(
        "--ray", metavar="ADDRESS", help="run on this Ray cluster, 'auto' for the one this machine is in, or 'local'"
    )
    run.add_argument("--retry-broken", action="store_true", help="try runs that are broken once more")
    status = add_parser(
        actions, "status", "Show what is finished, runs, is broken or left.", "kd-marl suite status suites/paper.yaml"
    )
    listing = add_parser(
        actions, "list", "Print the command line of every run.", "kd-marl suite list suites/smoke.yaml"
    )
    for action, function in ((run, "run"), (status, "status"), (listing, "list_runs")):
        action.add_argument("file", type=Path, metavar="FILE", help="the suite, such as suites/smoke.yaml")
        action.add_argument("--to", type=Path, metavar="DIR", help="folder of the runs (default: results/suites/NAME)")
        for axis, kind in (("tasks", str), ("methods", str), ("limits", str), ("seeds", int)):
            action.add_argument(
                f"--{axis}", nargs="+", type=kind, metavar=axis.rstrip("s").upper(), help=f"only these {axis}"
            )
        action.usage = f"{action.prog} FILE [options] [with key=value ...]"
        action.set_defaults(run=Work(f"kd_marl.suite.command:{function}", host=True), updates=[])
