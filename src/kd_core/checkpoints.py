"""Going on after a stop: which checkpoint belongs to the same command, and whether it is whole.

Every checkpoint folder of a teacher or a student ends with ``checkpoint.json``, written last: a folder without it was
cut short and does not count.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_core import files
from kd_core.errors import UserError
from kd_core.task import task_names

FORMAT = "kd-marl/checkpoint"
VERSION = 1
FACTS_FILE = "checkpoint.json"

# What decides where and how a run reports, or how fast it is, but not what it computes.
REPORTING = frozenset(
    {
        *("local_results_path", "label", "repeat_id", "hypergroup", "runner_processes", "save_replay", "render"),
        *("log_interval", "runner_log_interval", "learner_log_interval", "save_model", "save_model_interval"),
        *("use_tensorboard", "use_wandb", "wandb_mode", "wandb_project", "wandb_save_model", "wandb_team"),
        *("tracking", "tracking_db", "tracking_url"),
    }
)
# What else may differ between a run and its continuation or evaluation.
_VOLATILE = frozenset(
    {"seed", "resume", "command", "run_folder", "evaluate", "checkpoint_path", "load_step", "eval_episodes"}
)


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk.

    Attributes:
        folder: where it is.
        t_env: environment steps taken.
        seed: the run's seed.
        finished: whether the run had taken all its steps.
        reported: whether its result has been written too, over as many episodes as are asked for.
    """

    folder: Path
    t_env: int
    seed: int
    finished: bool
    reported: bool


def fingerprint(config: Mapping[str, Any]) -> str:
    """Compute the sha256 of everything in a configuration that decides what a run computes, its seed apart."""
    kept = {key: value for key, value in telling(config).items() if key not in _VOLATILE | REPORTING}
    kept["env_args"] = unseeded(config["env_args"])
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def hides(config: Mapping[str, Any]) -> bool:
    """Tell whether some agent of a run of this configuration sees less than everything."""
    return config.get("limits", "fo") != "fo" or bool(config.get("masks"))


def telling(config: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a configuration what has no effect.

    An agent that sees everything is given nothing else, and a silent team has no radio.
    """
    silent = set() if hides(config) else {"own_action"}
    if not config.get("sensor_status"):
        silent |= {"sensor_status"}
    # Keys that say nothing where they are empty; runs of before there were such keys have none.
    silent |= {key for key in ("adapt_from", "teachers") if not config.get(key)}
    if not config.get("teachers") and len(task_names(config.get("map_name", ""))) == 1:
        silent |= {"teacher_rule", "teacher_weights"}
    if config.get("message_number_bits") == 1:
        silent |= {"message_number_bits"}
    if not config.get("message_bits"):
        silent |= {key for key in config if key.startswith("message_")}
    return {key: value for key, value in config.items() if key not in silent}


def unseeded(env_args: Mapping[str, Any]) -> dict[str, Any]:
    """Take the environment's arguments that decide which task it is."""
    return {key: value for key, value in env_args.items() if key != "seed"}


def write_checkpoint(path: str | Path, args: Any, t_env: int, finished: bool, **facts: Any) -> None:
    """Declare the folder ``path`` a whole checkpoint of this run."""
    common = {
        "format": FORMAT,
        "version": VERSION,
        "task": args.map_name,
        "fingerprint": args.fingerprint,
        "seed": args.seed,
        "t_env": t_env,
        "finished": finished,
        "command": args.command,
        "logged_in": _relative_folder(args),
        "reported": False,
    }
    files.write_json(Path(path) / FACTS_FILE, {**common, **facts})


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read the facts of a checkpoint.

    Raises:
        UserError: there is none, or one of another format or version.
    """
    file = Path(path) / FACTS_FILE
    if not file.is_file():
        raise UserError(f"{path} is no whole checkpoint ({FACTS_FILE} is missing): give the folder of a finished save")
    facts = files.read_json(file)
    if (facts.get("format"), facts.get("version")) != (FORMAT, VERSION):
        raise UserError(
            f"{file} is {facts.get('format')} version {facts.get('version')}, this kd-marl reads {FORMAT} version "
            f"{VERSION}: use the kd-marl that wrote it"
        )
    return facts


def logged_before(args: Any, checkpoint: Checkpoint) -> list[tuple[str, float, int]]:
    """Read what a run had logged by the time of a checkpoint, oldest first: name, value, environment steps.

    Empty where nothing is left of it, since a run can go on without its curve.
    """
    folder = read_checkpoint(checkpoint.folder)["logged_in"]
    file = Path(args.local_results_path) / folder / "metrics.json"
    if not folder or not file.is_file():
        return []
    try:
        logged = [
            (name, value, step)
            for name, entry in files.read_json(file).items()
            for step, value in zip(entry["steps"], entry["values"], strict=True)
        ]
        return sorted((entry for entry in logged if entry[2] <= checkpoint.t_env), key=lambda entry: entry[2])
    except (UserError, AttributeError, TypeError, KeyError, ValueError):
        # Sacred rewrites the file as the run goes, and a kill can cut it short.
        return []


def mark_reported(path: Path | None, args: Any) -> None:
    """Note in a finished checkpoint that its run's result is written, and where, by the episodes that it is over.

    A folder that is no checkpoint stays as it is. So does one that ``evaluate=True`` has played: that is another
    command than the one that trained it, which is yet to find its own result.
    """
    asked_for = args.evaluate and not args.resume
    if path is not None and (path / FACTS_FILE).is_file() and not asked_for:
        facts = read_checkpoint(path)
        if facts["finished"]:
            noted = {"reported": True, "eval_episodes": args.eval_episodes}
            if args.run_folder:
                noted["records"] = {**facts.get("records", {}), str(args.eval_episodes): _relative_folder(args)}
                # An evaluation that repeats does not take the place of the run that trained.
                if not _has_result(facts.get("record", ""), args):
                    noted["record"] = _relative_folder(args)
            files.write_json(path / FACTS_FILE, {**facts, **noted})


def _relative_folder(args: Any) -> str:
    """Return the run's Sacred folder below its results; "" if Sacred writes none."""
    return os.path.relpath(args.run_folder, args.local_results_path) if args.run_folder else ""


def _reported(facts: Mapping[str, Any], args: Any) -> bool:
    """Tell whether a checkpoint's run has a result, still there, over as many episodes as are asked for."""
    if not facts["reported"]:
        return False
    asked = getattr(args, "eval_episodes", facts["eval_episodes"])
    if "record" not in facts:
        # Where Sacred writes no record, nobody can have removed one.
        return asked == facts["eval_episodes"]
    return _has_result(facts["records"].get(str(asked), ""), args)


def _has_result(record: str, args: Any) -> bool:
    """Tell whether a checkpoint's ``record`` names a folder with a result."""
    return bool(record) and (Path(args.local_results_path) / record / "summary.json").is_file()


def _had(facts: Mapping[str, Any], teacher: str) -> bool:
    """Tell whether a checkpoint's student had this teacher; a teacher's own checkpoint has none."""
    had = facts.get("teacher", {}).get("sha256", {}).get("agent.th", "")
    return not (teacher and had) or had == teacher


def newest(args: Any, seed: int | None, teacher: str = "") -> Checkpoint | None:
    """Find the furthest checkpoint of the newest run of the same command.

    Args:
        args: the run's namespace: ``local_results_path``, ``name``, ``fingerprint``; without ``eval_episodes`` a
            result over any number of them counts as reported.
        seed: the seed it must have; None: any.
        teacher: sha256 of the weights of the teacher that a student must have had; "": any.
    """
    runs: dict[Path, list[Checkpoint]] = {}
    for file in (Path(args.local_results_path) / "models").glob(f"{args.name}_seed*/**/{FACTS_FILE}"):
        facts = read_checkpoint(file.parent)
        if facts["fingerprint"] == args.fingerprint and seed in (None, facts["seed"]) and _had(facts, teacher):
            found = Checkpoint(file.parent, facts["t_env"], facts["seed"], facts["finished"], _reported(facts, args))
            runs.setdefault(file.parent.parent, []).append(found)
    if not runs:
        return None
    latest = max(runs, key=lambda run: run.stat().st_mtime)
    return max(runs[latest], key=lambda checkpoint: (checkpoint.finished, checkpoint.t_env))
