"""`kd-marl teachers`: which teachers there are, what one was trained on, and training one again."""

from __future__ import annotations

from pathlib import Path

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work

_LIST = Work("kd_marl.inspection.teachers:list_teachers")


def add(subparsers: Subparsers) -> None:
    """Adds `teachers`, `teachers list`, `teachers show` and `teachers train`."""
    parser = add_parser(
        subparsers,
        "teachers",
        "List the teachers a run can use, show one, or train one again.",
        "kd-marl teachers show src/zoo/<task>",
    )
    parser.set_defaults(run=_LIST, search=[])
    actions = parser.add_subparsers(metavar="ACTION")
    listing = add_parser(
        actions,
        "list",
        "List the teachers in the results (newest first) and in the zoo. This is also what 'kd-marl teachers' does.",
        "kd-marl teachers list --search ~/runs",
    )
    listing.add_argument("--search", type=Path, action="append", default=[], help="a further folder to look in")
    listing.set_defaults(run=_LIST)
    show = add_parser(
        actions,
        "show",
        "Verify a teacher, ours or an EPyMARL mappo checkpoint, and show its facts.",
        "kd-marl teachers show results/models/mappo_seed1_pz-mpe-simple-spread-v3_2025-01-01 --n-agents 3",
    )
    show.add_argument("folder", type=Path, help="the teacher's folder")
    show.add_argument("--config", type=Path, help="EPyMARL checkpoint: config.json of its Sacred run")
    show.add_argument("--n-agents", type=int, help="EPyMARL checkpoint: its number of agents")
    show.set_defaults(run=Work("kd_marl.inspection.teachers:show"))
    train = add_parser(
        actions,
        "train",
        "Train a teacher again by the commands of its history, one after the other where it began with another; stop "
        "it at any time, the same command goes on. The weights come out otherwise, since rounding differs, and on a "
        "hard map that can decide whether it learns to win.",
        "kd-marl teachers train 8m with seed=2",
    )
    train.add_argument("teacher", help="a bundled teacher's name, or a teacher's folder")
    train.add_argument(
        "--to", type=Path, default=Path("results"), metavar="DIR", help="results folder (default: results)"
    )
    train.usage = f"{train.prog} TEACHER [--to DIR] [with key=value ...]"
    train.set_defaults(run=Work("kd_marl.inspection.teachers:train"), updates=[])
