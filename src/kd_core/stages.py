"""How one stage finds what the stage before it made: the teacher, and its expert buffer."""

from __future__ import annotations

import logging
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kd_core import checkpoints
from kd_core.artifacts import teacher as artifacts
from kd_core.artifacts.buffer_facts import FACTS_FILE as BUFFER_FACTS
from kd_core.artifacts.buffer_facts import read_facts as read_buffer_facts
from kd_core.artifacts.expert_buffer import ExpertBuffer
from kd_core.artifacts.teacher import TeacherArtifact
from kd_core.config import assemble, parse_command, plugin_keys, updated
from kd_core.errors import UserError
from kd_core.host import Host, get_host
from kd_core.places import MAIN, PROGRAM, ZOO
from kd_core.task import Task, of_task, task_names

# Keys of ours that mean something to one stage only.
_OWN_TO_A_STAGE = frozenset(
    {"resume", "teacher", "expert_buffer", "limits", "masks", "masks_preset", "own_action", "sensor_status", "mask_at"}
)

_log = logging.getLogger(__name__)


def locate_teacher(args: Any, task: Task) -> TeacherArtifact:
    """Load the teacher that ``teacher=`` means: a path, the task's newest finished one, the bundled one, or ``train``.

    Args:
        args: the run's namespace.
        task: what it must have been trained on.

    Raises:
        UserError: none is found, it is damaged, or it was trained on something else.
    """
    if args.teacher == "train" and not several(args):
        # Where the student is not made again, neither is its teacher.
        again = {"resume": True} if args.resume or args.evaluate else {}
        run_stage("kd_teacher", args, **again)
    command = shlex.join([*PROGRAM, *_stage_words("kd_teacher", args)])
    return _checked(args, task, _loaded(args, task, _find_teacher(args, command)))


def several(args: Any) -> list[str]:
    """Return the names of ``teachers=``, a list or text; empty for a run with one teacher, or of another stage."""
    given = getattr(args, "teachers", None) or []
    return [name.strip(" '\"") for name in given.strip("[] ").split(",")] if isinstance(given, str) else list(given)


def of_each_task(args: Any, task: Task) -> list[tuple[SimpleNamespace, Task]]:
    """Return a run's namespace as that of a run on each of its tasks, with one teacher, and the task."""
    names = several(args) or [args.teacher] * len(task.parts)
    return [
        (of_task(args, part.name, teacher=name, teachers=None), part)
        for part, name in zip(task.parts, names, strict=True)
    ]


def locate_teachers(args: Any, task: Task) -> list[TeacherArtifact]:
    """Load the teachers that ``teachers=`` names.

    Args:
        args: the run's namespace.
        task: what each must have been trained on.

    Raises:
        UserError: one is missing or was trained on something else, or they differ in their number of actions.
    """
    folders = [artifacts.named_teacher(name, ZOO) for name in several(args)]
    teachers = [_loaded(args, task, folder) for folder in folders]
    first, *others = teachers
    for other in others:
        counts = [teacher.facts["n_actions"] for teacher in (first, other)]
        if counts[0] != counts[1]:
            raise UserError(
                f"teachers of one student choose among the same actions: {first.folder} has {counts[0]} and "
                f"{other.folder} {counts[1]}; give teachers of {task.name} only"
            )
    return [_checked(args, task, teacher) for teacher in teachers]


def _loaded(args: Any, task: Task, folder: Path) -> TeacherArtifact:
    teacher = artifacts.load_teacher(
        folder,
        config=args.teacher_config or None,
        n_agents=task.n_agents,
        results_dirs=[Path(args.local_results_path), get_host().results_path],
    )
    for warning in teacher.warnings:
        _log.warning(warning)
    return teacher


def _checked(args: Any, task: Task, teacher: TeacherArtifact) -> TeacherArtifact:
    """Return a teacher of the run's task.

    Raises:
        UserError: it was trained on something else, or sees something else than the command line says.
    """
    artifacts.check_compatible(teacher, task)
    folder = teacher.folder
    sees = teacher.facts["teacher_input"]
    if args.teacher_input != sees and any(word.startswith("teacher_input=") for word in shlex.split(args.command)):
        raise UserError(
            f"teacher_input is {args.teacher_input}, and the teacher in {folder} sees {sees}: leave teacher_input out, "
            "or give another teacher"
        )
    _log.info("Teacher: %s", folder)
    return teacher


def _find_teacher(args: Any, train_command: str = "") -> Path:
    models = [Path(args.local_results_path) / "models", get_host().results_path / "models"]
    spec = next(iter(several(args)), "" if args.teacher == "train" else args.teacher)
    return artifacts.find_teacher(spec, task_names(args.map_name)[0], models, ZOO, train_command, args.env)


def teacher_weights(args: Any) -> str:
    """Return the sha256 of the teacher's weights that a student's run would have now; "" where there is none yet.

    Args:
        args: the run's namespace, or that of its configuration.
    """
    if args.teacher == "train":
        return ""
    try:
        return artifacts.weights_sha256(_find_teacher(args))
    except UserError:
        # The run itself says what is wrong.
        return ""


def buffer_folder(args: Any, teacher: TeacherArtifact) -> Path:
    """Name the folder of this teacher's expert buffer: ``expert_buffer=``, or one named after task and teacher."""
    if args.expert_buffer:
        return Path(args.expert_buffer).expanduser()
    return Path(args.local_results_path) / "buffers" / args.map_name / teacher.sha256["agent.th"][:12]


def at_its_temperature(teacher: TeacherArtifact, folder: Path) -> TeacherArtifact:
    """Return a teacher that learnt action values with the temperature of its expert buffer; any other as it is.

    Where the buffer is gone, a warning says that its policy has temperature 1.
    """
    if not teacher.learnt_values:
        return teacher
    if (folder / BUFFER_FACTS).is_file() and (known := read_buffer_facts(folder).get("teacher_temperature")):
        return teacher.at(known)
    _log.warning(f"no expert buffer in {folder} tells the temperature of the teacher's policy: it is 1 when it samples")
    return teacher


def locate_buffer(args: Any, teacher: TeacherArtifact) -> Path:
    """Find the teacher's expert buffer; export it, or finish its export, if it is not there whole.

    Raises:
        UserError: ``expert_buffer=`` names a folder that holds none, or one of another teacher or task; the buffer was
            exported from an environment with other arguments, or is damaged.
    """
    folder = buffer_folder(args, teacher)
    if not args.expert_buffer and stored_episodes(folder) < args.buffer_episodes:
        # Named, because a variant's YAML may ask for more than kd_export's own.
        run_stage("kd_export", args, teacher=str(teacher.folder), resume=True, buffer_episodes=args.buffer_episodes)
    buffer = ExpertBuffer.open(folder, check=True)
    if not buffer.episodes:
        raise UserError(
            f"the expert buffer in {folder} holds no episode yet: finish it with --config=kd_export, resume=True and "
            f"expert_buffer={folder}"
        )
    facts = buffer.facts
    if facts["task"] != args.map_name:
        raise UserError(f"the expert buffer in {folder} is of {facts['task']}, this run's task is {args.map_name}")
    if facts["teacher"]["sha256"]["agent.th"] != teacher.sha256["agent.th"]:
        raise UserError(
            f"the expert buffer in {folder} was written by another teacher ({facts['teacher']['path']}): give that "
            "one with teacher=PATH, or leave expert_buffer out to export again"
        )
    if teacher.learnt_values:
        check_same_entropy(folder, facts, args)
    if other := environment_difference(facts, vars(args)):
        raise UserError(
            f"the expert buffer in {folder} was exported with {other}: export another with --config=kd_export and "
            "expert_buffer=DIR, then give that DIR here"
        )
    return folder


def check_same_entropy(folder: Path, facts: Mapping[str, Any], args: Any) -> None:
    """Refuse an expert buffer whose teacher, made of action values, played with another ``teacher_entropy``.

    Raises:
        UserError: the two differ.
    """
    if (was := facts.get("teacher_entropy")) != args.teacher_entropy:
        raise UserError(
            f"the expert buffer in {folder} was exported with teacher_entropy={was}, this run has "
            f"{args.teacher_entropy:g}: set it to that, or export another with --config=kd_export and "
            "expert_buffer=DIR, then give that DIR here"
        )


def environment_difference(facts: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Say in what a buffer's environment is not a run's: ``key=value, this run has value``; "" if it is the same.

    Args:
        facts: the buffer's.
        config: the run's, with ``env_args``, ``common_reward`` and ``reward_scalarisation``.
    """
    stated, given = facts["env_args"], checkpoints.unseeded(config["env_args"])
    pairs = {f"env_args.{key}": (stated.get(key), given.get(key)) for key in {**stated, **given}}
    return _first_difference(pairs) or reward_difference(facts, config)


def reward_difference(facts: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Say in what the rewards of a buffer or a teacher are not a run's, as `environment_difference` does.

    Args:
        facts: the buffer's, or the teacher's whose critic values them.
        config: the run's.
    """
    # Rewards that are not made one are not made one in any way.
    keys = ("common_reward", "reward_scalarisation") if config["common_reward"] else ("common_reward",)
    return _first_difference({key: (facts[key], config[key]) for key in keys})


def _first_difference(pairs: Mapping[str, tuple[Any, Any]]) -> str:
    return next((f"{key}={was}, this run has {now}" for key, (was, now) in pairs.items() if was != now), "")


def made_by(host: Host, words: Sequence[str], seed: int) -> checkpoints.Checkpoint | None:
    """Find the furthest checkpoint that a command line and a seed have left; None if there is none.

    Args:
        host: whose configuration files are read.
        words: the command line after ``python src/main.py``, with ``local_results_path``.
        seed: the run's.
    """
    command = parse_command(list(words))
    config = updated(host, assemble(host, command), command)
    run = SimpleNamespace(**{**config, "fingerprint": checkpoints.fingerprint(config)})
    return checkpoints.newest(run, seed, teacher_weights(run))


def run_stage(algorithm: str, args: Any, **updates: Any) -> None:
    """Run another stage as its own Sacred run, with this run's environment and results folder.

    Raises:
        UserError: that stage failed; it has said why.
    """
    words = _stage_words(algorithm, args, **updates)
    _log.info("Running %s", shlex.join([*PROGRAM, *words]))
    if run_main(words):
        raise UserError(f"{algorithm}, which this run needs first, failed: its message is above")


def run_main(words: Sequence[str]) -> int:
    """Make a run in this terminal and return its exit status.

    Raises:
        KeyboardInterrupt: after it has saved what it has, since a terminal's Ctrl-C interrupts it too.
    """
    with subprocess.Popen([sys.executable, str(MAIN), *words]) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise


def is_shared(key: str) -> bool:
    """Tell whether a key of a run means the same to the stages before it."""
    common = ("local_results_path", "use_cuda", "common_reward", "reward_scalarisation")
    return key.startswith("env_args.") or key in common or key in plugin_keys() - _OWN_TO_A_STAGE


def _stage_words(algorithm: str, args: Any, **updates: Any) -> list[str]:
    """Build the command line of another stage: this run's, with the words that mean nothing to it left out."""
    given = shlex.split(args.command)[2:]
    environment = next(word for word in given if word.startswith("--env-config="))
    kept = [word for word in given if "=" in word and is_shared(word.split("=", 1)[0])]
    # It plays one episode at a time, and other stages have blocks of their own.
    kept = [word for word in kept if word != "runner=episode"]
    kept.append(f"seed={args.seed}")
    return [f"--config={algorithm}", environment, "with", *kept, *(f"{key}={value}" for key, value in updates.items())]


def stored_episodes(folder: Path) -> int:
    """Count the episodes that are safe on disk in an expert buffer; 0 if there is none yet."""
    return ExpertBuffer.open(folder).episodes if (folder / "buffer.json").is_file() else 0
