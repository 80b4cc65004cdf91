"""The work of `kd-marl adapt`: a student is measured under its new masks, trained on, measured again and exported."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from kd_controllers.hetero_mac import HeteroMAC
from kd_core import files, progress, stages
from kd_core.artifacts import teacher as artifacts
from kd_core.artifacts.teacher import TeacherArtifact
from kd_core.errors import UserError
from kd_core.host import Host, get_host
from kd_core.task import Task
from kd_envs.hetero_mask.mask import ObservationMask
from kd_envs.hetero_mask.presets import joined_masks
from kd_learners.ancestor import read_ancestor
from kd_learners.stage import Compared, RunContext
from kd_learners.value_teacher import frozen_teacher
from kd_marl import retrain
from kd_marl.evaluation import evaluator
from kd_marl.plugin import register
from kd_marl.runs.folders import results_folders
from kd_marl.runs.student_run import StudentRun, load_student, run_arguments
from kd_marl.stress.measure import find_teacher
from kd_marl.work import Work
from kd_runners import environments

FILE, FORMAT, VERSION = "adapt.json", "kd-marl/adapt", 1
# Name of the runs, by which a report keeps them apart from students that were trained anew.
NAME = "kd_adapt"
BUNDLE = "bundle"
DEFAULT_SHARE = 10
# What an interruption can lose at most, as a share of the steps.
CHECKPOINTS = 5
_OWN = {
    "masks": "give --masks",
    "t_max": "give --steps",
    "teacher": "give --teacher",
    **dict.fromkeys(("limits", "masks_preset", "own_action", "sensor_status"), "give --masks"),
    **dict.fromkeys(
        ("adapt_from", "widths", "seed", "name", "eval_episodes", "local_results_path", "resume", "evaluate"),
        "the student's own holds",
    ),
}
_SCORED = ("return_mean", "return_std", "win_rate")

_EXPORT = Work("kd_marl.deploy.command_export:export_student", host=True, extra="onboard")
_OPTIONS = Work("kd_marl.deploy.export:Options", host=True, extra="onboard")


@dataclass(frozen=True)
class Change:
    """A student and the masks under which it goes on.

    Attributes:
        student: as it was trained.
        args: its run's namespace, with the new masks.
        task: what its environment says of itself.
        mask: the new one.
        teacher: the one that labels.
    """

    student: StudentRun
    args: SimpleNamespace
    task: Task
    mask: ObservationMask
    teacher: TeacherArtifact

    def words(self, steps: int, updates: Sequence[str]) -> list[str]:
        """Return the command line of the training, after ``python src/main.py``."""
        run = self.student
        own = {
            "name": NAME,
            "adapt_from": run.checkpoint,
            "masks": self.args.masks,
            "widths": list(run.network.widths),
            "t_max": steps,
            "save_model_interval": max(1, steps // CHECKPOINTS),
            # Several teachers are named by the ancestor's own words.
            **({} if run.config.get("teachers") else {"teacher": self.teacher.folder}),
            "seed": run.facts["seed"],
            "eval_episodes": run.summary["episodes"],
            "local_results_path": run.results,
        }
        words = shlex.split(run.facts["command"])[2:]
        return retrain.merged(words, [*(f"{key}={value}" for key, value in own.items()), *updates])


def run(args: argparse.Namespace) -> int:
    """Adapt the student of the command's arguments; returns the exit status."""
    host = get_host()
    register.register(host)
    progress.remember_terminal()
    student = load_student(args.student)
    change = _change(host, student, args.masks, args.teacher)
    steps = student.config["t_max"] // DEFAULT_SHARE if args.steps is None else args.steps
    if steps < 1:
        raise UserError(f"--steps is {steps}: give at least 1")
    for word in args.updates:
        key = word.partition("=")[0]
        if key in _OWN:
            raise UserError(f"adapt sets {key} itself: {_OWN[key]}")
    words = change.words(steps, args.updates)
    # What is missing is said before the work that would have been for nothing.
    export = None if args.no_bundle else (_EXPORT.load(), _OPTIONS.load())
    # A terminal's Ctrl-C and a batch system's SIGTERM end it alike.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        adapted = load_student(_trained(host, words, student.facts["seed"]))
        file = adapted.folder / FILE
        if not file.is_file():
            files.write_json(file, _facts(change, _right_after(host, change), adapted, steps))
    except KeyboardInterrupt:
        print("stopped: the same command goes on", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    print("\n".join(_table(files.read_json(file))))
    print(f"written to {file}", flush=True)
    if export is not None:
        write, options = export
        write(adapted, adapted.folder / BUNDLE, adapted.find_buffer(), options(), force=True)
        print(f"its bundle: {adapted.folder / BUNDLE}")
    return 0


def _change(host: Host, student: StudentRun, masks: str, teacher: Path | None) -> Change:
    """Read the new masks.

    Raises:
        UserError: they hide everything from an agent, or change nothing; or the teacher is gone or another.
    """
    joined = joined_masks(student.mask.layout, student.config["masks"], masks)
    # Without braces: Sacred reads those as new configuration keys.
    text = yaml.safe_dump(joined, default_flow_style=True, width=2**31).strip()[1:-1]
    args, task = run_arguments(host, replace(student, config={**student.config, "masks": text}))
    mask = environments.task_mask(args, task.facts)
    if mask.signature() == student.mask.signature():
        raise UserError(f"--masks {masks!r} changes nothing that an agent sees: name what is left of its features")
    artifact = find_teacher(student, teacher, [student.results, *results_folders()])
    artifacts.check_compatible(artifact, task)
    args.adapt_from = str(student.checkpoint)
    return Change(student, args, task, mask, artifact)


def _trained(host: Host, words: Sequence[str], seed: int) -> Path:
    """Train, or go on with the training; returns the final checkpoint.

    Raises:
        UserError: the run failed; it has said why.
    """
    point = stages.made_by(host, words, seed)
    if point is None or not point.reported:
        if stages.run_main([*words, "resume=True"]):
            raise UserError("the training failed: its message is above")
        point = stages.made_by(host, words, seed)
        assert point is not None, "a run that ends well leaves its student"
    return point.folder


def _right_after(host: Host, change: Change) -> dict[str, Any]:
    """Measure the student's own weights under the new masks, in the episodes of its run's evaluation."""
    args, task, episodes = change.args, change.task, change.student.summary["episodes"]
    args.eval_episodes, args.mask_at = episodes, "controller"
    mac = HeteroMAC({"obs": {"vshape": task.obs_size}}, None, args, change.mask)
    read_ancestor(args.adapt_from, args, mac).hand_over(mac)
    context = RunContext(task, change.mask, limited=True, run_folder=change.student.folder)
    teacher = frozen_teacher(change.teacher, args)
    return evaluator.evaluate(host, args, context, Compared(mac, 0, teacher))[0]


def _facts(change: Change, failed: Mapping[str, Any], adapted: StudentRun, steps: int) -> dict[str, Any]:
    summaries = {"before": change.student.summary, "failed": failed, "adapted": adapted.summary}
    return {
        "format": FORMAT,
        "version": VERSION,
        "task": change.student.task,
        "seed": change.student.facts["seed"],
        "ancestor": {"run": change.student.record, "steps": change.student.facts["t_env"], **adapted.facts["ancestor"]},
        "masks": change.args.masks,
        "steps": steps,
        "episodes": failed["episodes"],
        **{
            name: {"retention": summary["retention"], **{key: summary["student"][key] for key in _SCORED}}
            for name, summary in summaries.items()
        },
    }


def _table(facts: Mapping[str, Any]) -> list[str]:
    """Write what the failure has cost, and what is regained."""
    rows = {
        "before": ("before the failure", facts["ancestor"]["steps"]),
        "failed": ("right after it", 0),
        "adapted": ("after adapting", facts["steps"]),
    }
    lines = [f"{facts['task']}, {facts['episodes']} episodes each, greedy", ""]
    lines.append(f"{'':<20}{'steps':>10}{'return':>18}{'win rate':>10}{'retention':>11}")
    for name, (label, steps) in rows.items():
        row = facts[name]
        wins, retention = (
            "-" if share is None else f"{100 * share:.1f} %" for share in (row["win_rate"], row["retention"])
        )
        score = f"{row['return_mean']:.2f} ± {row['return_std']:.2f}"
        lines.append(f"{label:<20}{steps:>10,}{score:>18}{wins:>10}{retention:>11}")
    return [*lines, ""]
