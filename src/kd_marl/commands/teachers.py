"""`kd-marl teachers`: which teachers there are, what one was trained on, packing one, and training one again."""

from __future__ import annotations

from pathlib import Path

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work

_LIST = Work("kd_marl.inspection.teachers:list_teachers")


def add(subparsers: Subparsers) -> None:
    """Adds `teachers`, `teachers list`, `teachers show`, `teachers pack` and `teachers train`."""
    parser = add_parser(
        subparsers,
        "teachers",
        "List the teachers a run can use, show one, pack a checkpoint as one, or train one again.",
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
        "Verify a teacher, ours or an EPyMARL checkpoint, and show its facts.",
        "kd-marl teachers show results/models/mappo_seed1_pz-mpe-simple-spread-v3_2025-01-01 --n-agents 3",
    )
    show.add_argument("folder", type=Path, help="the teacher's folder")
    show.add_argument("--config", type=Path, help="EPyMARL checkpoint: config.json of its Sacred run")
    show.add_argument("--n-agents", type=int, help="EPyMARL checkpoint: its number of agents")
    show.set_defaults(run=Work("kd_marl.inspection.teachers:show"))
    pack = add_parser(
        actions,
        "pack",
        "Pack a checkpoint of a stock algorithm (mappo, ippo, qmix, vdn, iql) as a teacher with its facts, so that it "
        "needs neither its run's config nor its number of agents any more.",
        "kd-marl teachers pack results/models/qmix_seed1_3m_2025-01-01/500000 --n-agents 3 --to my_teachers/3m_qmix",
    )
    pack.add_argument("folder", type=Path, help="the checkpoint's folder")
    pack.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="the teacher's folder, which must not exist"
    )
    pack.add_argument("--config", type=Path, help="config.json of its Sacred run, if it is not found near it")
    pack.add_argument("--n-agents", type=int, help="its number of agents, which only checkpoints of _ns tell")
    pack.add_argument(
        "--tested",
        type=Path,
        metavar="RUN",
        help="Sacred folder of a run with evaluate=True final_evaluation=True of this checkpoint: its result becomes "
        "the teacher's test",
    )
    pack.set_defaults(run=Work("kd_marl.inspection.teachers:pack"))
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
