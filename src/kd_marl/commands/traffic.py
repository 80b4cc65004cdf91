"""`kd-marl traffic`: mean waiting time under teachers and students, fixed-time and max-pressure control."""

from __future__ import annotations

from pathlib import Path

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work


def add(subparsers: Subparsers) -> None:
    """Adds `traffic`."""
    parser = add_parser(
        subparsers,
        "traffic",
        "Let fixed-time control, max-pressure control, a teacher and its student play the same episodes of a road "
        "network, and print how long a vehicle waits under each, with 95 %% intervals.",
        "kd-marl traffic results/sacred/kd_student/cologne1/1 --episodes 20\n"
        "  kd-marl traffic --map-name cologne1 --teacher results/models/kd_teacher_seed1_cologne1_...\n\n"
        "Of several runs of one network the intervals are over the runs. Needs the extra traffic.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="*", type=Path, help="students: their Sacred or models folders")
    parser.add_argument("--map-name", metavar="NAME", default="", help="a network, to play without a student")
    parser.add_argument("--teacher", type=Path, metavar="DIR", help="the teacher (default: the one of the run)")
    parser.add_argument("--episodes", type=int, default=10, metavar="N", help="for each control (default: 10)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the episodes with --map-name (default: 1)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the numbers as JSON too")
    parser.set_defaults(run=Work("kd_marl.traffic.command:traffic", host=True))
