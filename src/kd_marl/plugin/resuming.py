"""Going on with a run, and evaluating it again: which checkpoint the host's loop is to load."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kd_core import checkpoints
from kd_core.errors import UserError


def go_on(args: Any, logger: Any, teacher: str) -> bool:
    """Point the host's own loading at the checkpoint to go on from; True if that run has already finished."""
    point = checkpoints.newest(args, _seed_asked_for(args), teacher)
    say = logger.console_logger.info
    if point is None:
        say("resume=True: nothing to go on from, starting from the beginning")
        return False
    if point.reported:
        say(f"resume=True: this run has finished already, its result is {point.folder}")
        return True
    _take_seed(args, point.seed)
    args.checkpoint_path, args.load_step = str(point.folder.parent), point.t_env
    # The run's curves are whole in the record that its result will lie in.
    for name, value, step in checkpoints.logged_before(args, point):
        logger.log_stat(name, value, step)
    if point.finished:
        say(f"resume=True: this run is trained, only its evaluation is left: {point.folder}")
        args.evaluate = True
        return False
    say(f"resume=True: going on from {point.folder}")
    # The environments and masks of the run's first episodes would otherwise come again.
    args.env_args["seed"] = (point.seed + point.t_env) % 2**31
    return False


def _seed_asked_for(args: Any) -> int | None:
    """Return the seed that the command line names; None if it names none and Sacred drew one."""
    return args.seed if any(word.startswith("seed=") for word in shlex.split(args.command)) else None


def _take_seed(args: Any, seed: int) -> None:
    """Make ``seed`` the run's, as the host's main module did with the one that the run was given."""
    if seed != args.seed:
        args.seed = args.env_args["seed"] = seed
        np.random.seed(seed)
        torch.manual_seed(seed)


def saved_steps(folder: str) -> list[int]:
    """List the steps that a folder holds a checkpoint of.

    Raises:
        UserError: it has none.
    """
    steps = [int(path.name) for path in Path(folder).glob("*") if path.name.isdigit()]
    if not steps:
        step = Path(folder)
        if step.name.isdigit() and any(step.glob("*.th")):
            raise UserError(
                f"checkpoint_path={folder} is a single step: give checkpoint_path={step.parent} load_step={step.name}"
            )
        raise UserError(f"checkpoint_path={folder} holds no saved steps (folders such as 50000)")
    return steps


def choose_checkpoint(args: Any, teacher: str) -> None:
    """Choose the step that ``evaluate=True`` loads; without ``checkpoint_path`` the newest of the same command.

    The checkpoint's seed is the run's, so that the result is known to be its own.

    Raises:
        UserError: there is none, or it is of another seed than the one asked for.
    """
    # The host's own evaluation comes first and cannot be skipped: the least that it can play.
    args.test_nepisode = 1
    if args.checkpoint_path:
        steps = saved_steps(args.checkpoint_path)
        args.load_step = min(steps, key=lambda step: abs(step - (args.load_step or max(steps))))
        folder, asked = Path(args.checkpoint_path, str(args.load_step)), _seed_asked_for(args)
        if (folder / checkpoints.FACTS_FILE).is_file():
            seed = checkpoints.read_checkpoint(folder)["seed"]
            if asked not in (None, seed):
                raise UserError(f"{folder} was trained with seed={seed}, not {asked}: leave seed out")
            _take_seed(args, seed)
        return
    point = checkpoints.newest(args, _seed_asked_for(args), teacher)
    if point is None:
        raise UserError(
            "evaluate=True found no checkpoint of this configuration and teacher: "
            "give checkpoint_path=<folder with saved steps>"
        )
    _take_seed(args, point.seed)
    args.checkpoint_path, args.load_step = str(point.folder.parent), point.t_env
