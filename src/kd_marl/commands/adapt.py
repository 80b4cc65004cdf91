"""`kd-marl adapt`: a student whose sensors have died learns to do without them, from the weights that it has."""

from __future__ import annotations

from pathlib import Path

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work


def add(subparsers: Subparsers) -> None:
    """Adds `adapt`."""
    parser = add_parser(
        subparsers,
        "adapt",
        "Let a student go on from its weights under other masks, with its teacher's labels, and show its retention "
        "before the failure, right after it, and after adapting. The new run has a bundle whose profile names the "
        "ancestor.",
        'kd-marl adapt results/sacred/kd_student/3m/1 --masks "0: [O], 2: [A0]" --steps 100000\n\n'
        "Agents that --masks does not name see what they saw. Interrupted, the same command goes on.",
    )
    parser.add_argument(
        "student", metavar="RUN", type=Path, help="the student: its Sacred folder, its models folder, or one checkpoint"
    )
    parser.add_argument(
        "--masks",
        required=True,
        metavar="MASKS",
        help="what agents see now, as masks= takes it (docs/guides/masks.md): text, or a YAML file",
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="environment steps (default: a tenth of the student's own training)"
    )
    parser.add_argument("--teacher", type=Path, metavar="DIR", help="the teacher, if it is no longer where it was")
    parser.add_argument("--no-bundle", action="store_true", help="write no bundle, which needs the extra onboard")
    # What follows `with` is taken out before argparse looks, see cli.py.
    parser.usage = f"{parser.prog} RUN --masks MASKS [options] [with KEY=VALUE ...]"
    parser.set_defaults(run=Work("kd_marl.adapt.command:run", host=True), updates=[])
