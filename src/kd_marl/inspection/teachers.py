"""The work of `kd-marl teachers`: a table of them, the facts of one, and a training repeated."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from kd_core.artifacts.teacher import checkpoint_folder, load_teacher, read_facts, teacher_folders
from kd_core.errors import UserError
from kd_core.places import PROGRAM, ZOO
from kd_marl import retrain
from kd_marl.inspection.facts import print_facts
from kd_marl.runs.folders import results_folders


def list_teachers(args: argparse.Namespace) -> int:
    """Print a table of the teachers; returns the exit status."""
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
        print(f"no teachers yet: train one with `{' '.join(PROGRAM)} --config=kd_teacher --env-config=mpe ...`")
        return 0
    # Wide enough for the paths when the output goes to a file or a pipe.
    console = Console()
    (console if console.is_terminal else Console(width=240)).print(table)
    return 0


def show(args: argparse.Namespace) -> int:
    """Print the facts of one teacher; returns the exit status."""
    teacher = load_teacher(args.folder, config=args.config, n_agents=args.n_agents, results_dirs=results_folders())
    print_facts([("folder", teacher.folder), *((key, _plain(value)) for key, value in teacher.facts.items())])
    for warning in teacher.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def train(args: argparse.Namespace) -> int:
    """Train a teacher again from its history; return the exit status."""
    bundled = [folder.name for folder in sorted(ZOO.iterdir()) if (folder / "teacher.json").is_file()]
    if args.teacher not in bundled and not Path(args.teacher).is_dir():
        raise UserError(f"no teacher {args.teacher}: give a folder, or a bundled teacher's name ({', '.join(bundled)})")
    folder = ZOO / args.teacher if args.teacher in bundled else checkpoint_folder(Path(args.teacher))
    facts = read_facts(folder)
    try:
        made = read_facts(retrain.train(facts, args.to.expanduser(), args.updates))
    except KeyboardInterrupt:
        print("stopped: the same command goes on", file=sys.stderr)
        return 130
    print(f"return, greedy: {_greedy(made)}; of the teacher in {folder}: {_greedy(facts)}")
    return 0


def _plain(value: Any) -> object:
    """Write nested facts as JSON, on one line."""
    return json.dumps(value) if isinstance(value, dict | list) else value


def _greedy(facts: Mapping[str, Any]) -> str:
    """Return the measured return of the greedy policy, mean and standard deviation over episodes."""
    greedy = (facts["test"] or {}).get("greedy")
    return "-" if greedy is None else f"{greedy['return_mean']:.2f} ± {greedy['return_std']:.2f}"
