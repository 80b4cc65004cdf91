"""The work of `kd-marl teachers`: a table of them, the facts of one, a checkpoint packed, and a training repeated."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from kd_core import files
from kd_core.artifacts.epymarl_teacher import find_config
from kd_core.artifacts.teacher import (
    FACTS_FILE,
    checkpoint_folder,
    load_teacher,
    read_facts,
    save_teacher,
    teacher_folders,
    test_of,
)
from kd_core.errors import UserError
from kd_core.places import PROGRAM, ZOO
from kd_marl import retrain
from kd_marl.inspection.facts import print_facts
from kd_marl.runs import finished
from kd_marl.runs.folders import results_folders
from kd_marl.runs.student_run import CONFIG_FILE, SUMMARY_FILE


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


def pack(args: argparse.Namespace) -> int:
    """Write a stock algorithm's checkpoint as a teacher with its facts; return the exit status."""
    folder, target = checkpoint_folder(args.folder.expanduser()), args.to.expanduser()
    if (folder / FACTS_FILE).is_file():
        raise UserError(f"{folder} is a teacher with its facts: copy it as it is")
    if target.exists():
        raise UserError(f"{target} exists: give another folder")
    config = args.config.expanduser() if args.config else _only_record(folder)
    teacher = load_teacher(folder, config=config, n_agents=args.n_agents)
    facts = {**teacher.facts, **_training(config, teacher.facts["steps"])}
    if args.tested:
        facts["test"] = _tested(args.tested.expanduser(), folder)
    save_teacher(target, teacher.agent_state, teacher.critic_state, facts)
    for warning in teacher.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"teacher written: {target}")
    return 0


def _only_record(folder: Path) -> Path:
    """Find the ``config.json`` of the run that wrote a checkpoint.

    Raises:
        UserError: none is found, or a run of the same name, seed and task may as well have written it.
    """
    found = find_config(folder, results_folders())
    seed = files.read_json(found)["seed"]
    alike = [path for path in found.parents[1].glob(f"*/{CONFIG_FILE}") if files.read_json(path).get("seed") == seed]
    if len(alike) > 1:
        raise UserError(
            f"{len(alike)} runs below {found.parents[1]} have this name, task and seed: give --config "
            f"PATH/{CONFIG_FILE} of the one that wrote {folder}"
        )
    return found


def _training(config: Path, steps: int | None) -> dict[str, Any]:
    """Tell from a training's record which command it was, and its tests up to the checkpoint."""
    settings, curves = files.read_json(config), finished.metrics(config.with_name(finished.METRICS_FILE))
    words = shlex.split(settings.get("command") or "")
    command = shlex.join([*words[:2], *retrain.merged(words[2:], [f"seed={settings['seed']}"])]) if words else None
    returns = curves.get("test_return_mean") or curves.get("test_total_return_mean") or ((), ())
    wins = dict(zip(*curves.get("test_battle_won_mean", ((), ())), strict=True))
    tests = [
        [int(step), float(value), *([float(wins[step])] if step in wins else [])]
        for step, value in zip(*returns, strict=True)
        if steps is None or step <= steps
    ]
    return {"algorithm": settings["name"], "command": command, "tests": tests}


def _tested(run: Path, folder: Path) -> dict[str, Any]:
    """Read what a checkpoint scored in a run that evaluated it.

    Raises:
        UserError: the run evaluated something else, or did not finish.
    """
    settings = files.read_json(run / CONFIG_FILE)
    if Path(settings.get("checkpoint_path") or "", str(settings.get("load_step"))).resolve() != folder.resolve():
        raise UserError(
            f"{run} did not evaluate {folder}: give a run with evaluate=True final_evaluation=True, "
            f"checkpoint_path={folder.parent} and load_step={folder.name}"
        )
    return test_of(files.read_json(run / SUMMARY_FILE))


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
