"""`kd-marl env`: an environment of one's own, from its template to what it lacks for training."""

from __future__ import annotations

from pathlib import Path

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work


def add(subparsers: Subparsers) -> None:
    """Adds `env new` and `env check`."""
    parser = add_parser(
        subparsers,
        "env",
        "Begin an environment of your own, and check it.",
        "kd-marl env check chargers:Chargers",
    )
    actions = parser.add_subparsers(metavar="WORK", required=True)
    new = add_parser(
        actions,
        "new",
        "Write a template to begin with: an environment with every method, and a file of its arguments.",
        "kd-marl env new my_environment",
    )
    new.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="DIR", help="where to (default: here)")
    new.set_defaults(run=Work("kd_marl.inspection.env_command:new"))
    checking = add_parser(
        actions,
        "check",
        "Play an environment at random and say what it lacks for training; exit status 1 if it lacks something.",
        "kd-marl env check chargers:Chargers --args robots=4 size=7",
    )
    checking.add_argument(
        "environment",
        metavar="MODULE:CLASS",
        help="your class, without .py or path, from this folder or installed; or a key of gymma, e.g."
        " pz-mpe-simple-spread-v3",
    )
    checking.add_argument("--args", nargs="+", default=[], metavar="KEY=VALUE", help="arguments of the class")
    checking.add_argument("--seconds", type=float, default=5.0, help="play for about so long, two episodes at least")
    checking.set_defaults(run=Work("kd_marl.inspection.env_command:check", host=True))
