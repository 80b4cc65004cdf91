"""`kd-marl teachers`: which teachers there are, what one was trained on, and training one again."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_core.errors import UserError
from kd_marl.commands.common import ZOO, Subparsers, add_parser, print_facts, results_folders


def add(subparsers: Subparsers) -> None:
    """Adds `teachers`, `teachers list`, `teachers show` and `teachers train`."""
    parser = add_parser(
        subparsers,
        "teachers",
        "List the teachers a run can use, show one, or train one again.",
        "kd-marl teachers show src/zoo/<task>",
    )
    parser.set_defaults(run=_list, search=[])
    actions = parser.add_subparsers(metavar="ACTION")
    listing = add_parser(
        actions,
        "list",
        "List the teachers in the results (newest first) and in the zoo. This is also what 'kd-marl teachers' does.",
        "kd-marl teachers list --search ~/runs",
    )
    listing.add_argument("--search", type=Path, action="append", default=[], help="a further folder to look in")
    listing.set_defaults(run=_list)
    show = add_parser(
        actions,
        "show",
        "Verify a teacher, ours or an EPyMARL mappo checkpoint, and show its facts.",
        "kd-marl teachers show results/models/mappo_seed1_pz-mpe-simple-spread-v3_2025-01-01 --n-agents 3",
    )
    show.add_argument("folder", type=Path, help="the teacher's folder")
    show.add_argument("--config", type=Path, help="EPyMARL checkpoint: config.json of its Sacred run")
    show.add_argument("--n-agents", type=int, help="EPyMARL checkpoint: its number of agents")
    show.set_defaults(run=_show)
    train = add_parser(
        actions,
        "train",
        "Train a teacher again by the commands of its record, one after the other where it began with another; stop it "
        "at any time, the same command goes on. The weights come out otherwise, since rounding differs, and on a hard "
        "map that can decide whether it learns to win.",
        "kd-marl teachers train 8m with seed=2",
    )
    train.add_argument("teacher", help="a bundled teacher's name, or a teacher's folder")
    train.add_argument(
        "--to", type=Path, default=Path("results"), metavar="DIR", help="results folder (default: results)"
    )
    train.usage = f"{train.prog} TEACHER [--to DIR] [with key=value ...]"
    train.set_defaults(run=_train, updates=[])


def _list(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Column, Table

    from kd_core.artifacts.teacher import read_facts, teacher_folders

    folders = teacher_folders([*args.search, *(folder / "models" for folder in results_folders())])
    table = Table("task", "steps", "hidden", "seed", "test return", Column("folder", overflow="fold"))
    for folder in [*folders, *teacher_folders([ZOO])]:
        try:
            facts = read_facts(folder)
        except UserError as error:
            print(f"passing over: {error}", file=sys.stderr)
            continue
        row = [facts[key] for key in ("task", "steps", "hidden_dim", "seed")]
        table.add_row(*("-" if value is None else str(value) for value in row), _greedy(facts), str(folder))
    if not table.row_count:
        print("no teachers yet: train one with `python src/main.py --config=kd_teacher --env-config=mpe ...`")
        return 0
    # Wide enough for the paths when the output goes to a file or a pipe.
    console = Console()
    (console if console.is_terminal else Console(width=240)).print(table)
    return 0


def _show(args: argparse.Namespace) -> int:
    from kd_core.artifacts.teacher import load_teacher

    teacher = load_teacher(args.folder, config=args.config, n_agents=args.n_agents, results_dirs=results_folders())
    print_facts([("folder", teacher.folder), *((key, _plain(value)) for key, value in teacher.facts.items())])
    for warning in teacher.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _train(args: argparse.Namespace) -> int:
    from kd_core.artifacts.teacher import checkpoint_folder, read_facts
    from kd_marl import retrain

    bundled = [folder.name for folder in sorted(ZOO.iterdir()) if (folder / "teacher.json").is_file()]
    if args.teacher not in bundled and not Path(args.teacher).is_dir():
        raise UserError(f"no teacher {args.teacher}: give a folder, or a bundled teacher's name ({', '.join(bundled)})")
    folder = ZOO / args.teacher if args.teacher in bundled else checkpoint_folder(Path(args.teacher))
    recorded = read_facts(folder)
    try:
        made = read_facts(retrain.train(recorded, args.to.expanduser(), args.updates))
    except KeyboardInterrupt:
        print("stopped: the same command goes on", file=sys.stderr)
        return 130
    print(f"return, greedy: {_greedy(made)}; of the teacher in {folder}: {_greedy(recorded)}")
    return 0


def _plain(value: Any) -> object:
    """Nested facts as JSON, on one line."""
    return json.dumps(value) if isinstance(value, dict | list) else value


def _greedy(facts: Mapping[str, Any]) -> str:
    """The measured return of the greedy policy, mean and standard deviation over episodes."""
    greedy = (facts["test"] or {}).get("greedy")
    return "-" if greedy is None else f"{greedy['return_mean']:.2f} ± {greedy['return_std']:.2f}"
