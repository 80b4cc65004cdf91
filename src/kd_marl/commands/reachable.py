"""`kd-marl reachable`: the most that a policy of any size is known to reach under a task's limits."""

from __future__ import annotations

from pathlib import Path

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work


def add(subparsers: Subparsers) -> None:
    """Adds `reachable`."""
    parser = add_parser(
        subparsers,
        "reachable",
        "Show what can be reached under each task's limits: a bound, or the best that was found. With results, keep "
        "the best of their runs where they are better than what is known.",
        "kd-marl reachable\n  kd-marl reachable results evidence/*.json.xz    keep the best runs of these",
    )
    parser.add_argument(
        "results",
        nargs="*",
        type=Path,
        metavar="RESULTS",
        help="results folders and evidence files (*.json.xz) whose best runs are kept",
    )
    parser.add_argument("--file", type=Path, metavar="FILE", help="of the entries (default: the one of this kd-marl)")
    parser.set_defaults(run=Work("kd_marl.inspection.reachable:reachable"))
