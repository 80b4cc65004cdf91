"""Teacher artifact: frozen weights and the facts that a student needs (docs/reference/formats/teacher.md).

A folder with `agent.th` and `critic.th` as EPyMARL saves them, and `teacher.json`. One that learnt action values has a
`mixer.th` instead of `critic.th`, or neither. Folders that EPyMARL itself wrote have no `teacher.json`;
`epymarl_teacher.py` reconstructs the facts from tensor shapes and the run's Sacred config.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from kd_core import files
from kd_core.artifacts.epymarl_teacher import load_epymarl_checkpoint
from kd_core.artifacts.teacher_weights import WEIGHT_FILES, StateDict, TeacherArtifact, load_state, weight_files
from kd_core.errors import UserError
from kd_core.places import PROGRAM
from kd_core.task import Task

FORMAT = "kd-marl/teacher"
VERSION = 1
FACTS_FILE = "teacher.json"
# What fixes the networks' shapes, and what their inputs mean.
NETWORK_FACTS = (
    "obs_size",
    "state_size",
    "n_agents",
    "n_actions",
    "hidden_dim",
    "use_rnn",
    "obs_agent_id",
    "obs_last_action",
    "obs_individual_obs",
    "agent",
    "critic_type",
    "teacher_input",
)
REQUIRED_FACTS = (
    *("task", "env", "layout", *NETWORK_FACTS),
    *("gamma", "shaping", "masked", "common_reward", "reward_scalarisation", "normalisers"),
    *("host", "host_commit", "seed", "steps", "begun_with", "finished", "train_seconds", "tests", "command", "test"),
)

_LARGEST_SIZE = 1 << 24


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value <= _LARGEST_SIZE


def _is_size_or_null(value: Any) -> bool:
    return value is None or _is_size(value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _are_statistics(value: Any) -> bool:
    """Tell whether these are mean and standard deviation of each quantity that is normalised, or null."""
    if not isinstance(value, dict) or set(value) != {"reward", "value"}:
        return False
    for entry in value.values():
        if entry is None:
            continue
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), list) for key in ("mean", "std")):
            return False
        if not all(map(_is_number, [*entry["mean"], *entry["std"]])) or not all(std > 0 for std in entry["std"]):
            return False
    return True


_SIZE = (_is_size, f"a whole number from 1 to {_LARGEST_SIZE}")
_SWITCH = (lambda value: type(value) is bool, "true or false")
# Facts that weights are read with and students compute with: the fact -> its test, and what a reader is told to expect.
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("obs_size", "n_agents", "n_actions", "hidden_dim"), _SIZE),
    # Networks that never read the state do not tell its size.
    "state_size": (_is_size_or_null, f"{_SIZE[1]}, or null"),
    **dict.fromkeys(("use_rnn", "obs_agent_id", "obs_last_action", "obs_individual_obs"), _SWITCH),
    **dict.fromkeys(("masked", "common_reward", "finished"), _SWITCH),
    "gamma": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "shaping": (_is_number, "a number"),
    "normalisers": (_are_statistics, "mean and positive std of reward and value, or null"),
    "tests": (lambda value: isinstance(value, list), "a list of tests"),
    "sha256": (lambda value: isinstance(value, dict), "an object with the hash of each file of weights"),
}

_log = logging.getLogger(__name__)


def save_teacher(
    folder: Path | str, agent_state: Mapping[str, Any], critic_state: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a teacher artifact: the weights first, `teacher.json` last, so that a teacher with facts is whole.

    Args:
        folder: destination, created if missing.
        agent_state: the actor's state dict.
        critic_state: the critic's state dict; of one that learnt values its mixer's, or empty.
        facts: every key of `REQUIRED_FACTS`; `format`, `version` and `sha256` are added.

    Returns:
        The facts as written.
    """
    missing = [key for key in REQUIRED_FACTS if key not in facts]
    assert not missing, f"teacher facts lack {', '.join(missing)}"
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Without this, a crash between the files would leave new weights under the old facts.
    (folder / FACTS_FILE).unlink(missing_ok=True)
    hashes = {
        name: files.save_torch(folder / name, {key: value.detach().cpu().clone() for key, value in state.items()})
        # A teacher without a critic or a mixer has one file.
        for name, state in zip(weight_files(facts["critic_type"]), (agent_state, critic_state), strict=False)
    }
    written = {"format": FORMAT, "version": VERSION, **facts, "sha256": hashes}
    files.write_json(folder / FACTS_FILE, written)
    return written


def test_of(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Take from a run's ``summary.json`` what its policy scored, greedy and sampled, as the fact ``test``.

    Who learnt action values has no policy to sample.
    """
    policy = summary["policy"]
    greedy = {name: policy[name] for name in ("return_mean", "return_std", "win_rate")}
    return {"episodes": summary["episodes"], "greedy": greedy, "sampled": policy.get("sampled")}


def read_facts(folder: Path | str) -> dict[str, Any]:
    """Read and check `teacher.json` without touching the weights.

    Raises:
        UserError: it is missing, damaged, of another format or version, or lacks a key or has one of another type.
    """
    path = Path(folder) / FACTS_FILE
    facts = files.read_json(path)
    if facts.get("format") != FORMAT:
        raise UserError(f"{path} is no teacher: its format is {facts.get('format')!r}, expected {FORMAT!r}")
    if facts.get("version") != VERSION:
        raise UserError(
            f"{path} has version {facts.get('version')!r}, this kd-marl reads version {VERSION}: "
            "train the teacher again or use the kd-marl that wrote it"
        )
    missing = [key for key in (*REQUIRED_FACTS, "sha256") if key not in facts]
    if missing:
        raise UserError(f"{path} is damaged: it lacks {', '.join(missing)}")
    for key, (valid, expected) in _KINDS.items():
        if not valid(facts[key]):
            raise UserError(f"{path} is damaged: {key} is {repr(facts[key])[:60]}, expected {expected}")
    if facts["state_size"] is None and str(facts["critic_type"]).startswith(("cv_", "qmix")):
        raise UserError(f"{path} is damaged: state_size is null, and a {facts['critic_type']} reads the state")
    return facts


def _check_weights(folder: Path, facts: Mapping[str, Any], states: Mapping[str, StateDict]) -> None:
    """Refuse weights that are not finite float numbers, or whose actor has other sizes than the facts.

    Raises:
        UserError: the first fault.
    """
    for name, state in states.items():
        for key, value in state.items():
            if not value.is_floating_point():
                raise UserError(f"{folder / name} holds other numbers than floats in {key}: train the teacher again")
            if not torch.isfinite(value).all():
                raise UserError(f"{folder / name} holds a value that is not finite in {key}: train the teacher again")
    actor, first = states[WEIGHT_FILES[0]], "agents.0." * (facts["agent"] == "rnn_ns")
    sizes = [tuple(actor[key].shape) if key in actor else () for key in (f"{first}fc1.weight", f"{first}fc2.weight")]
    hidden, actions = facts["hidden_dim"], facts["n_actions"]
    if sizes[0][:1] != (hidden,) or sizes[1] != (actions, hidden):
        raise UserError(
            f"{folder / WEIGHT_FILES[0]} does not fit {FACTS_FILE}, which says {hidden} hidden units and {actions} "
            "actions: copy the folder again"
        )


def load_teacher(
    folder: Path | str,
    *,
    config: Path | str | None = None,
    n_agents: int | None = None,
    results_dirs: Iterable[Path | str] = (),
) -> TeacherArtifact:
    """Read a teacher artifact, or the checkpoint of an EPyMARL algorithm, and verify it.

    Args:
        folder: the artifact, or a folder of numbered checkpoints (the largest number is taken).
        config: for an EPyMARL checkpoint, the `config.json` of its Sacred run, if it is not found near it.
        n_agents: for an EPyMARL checkpoint, the number of agents, which neither its files nor its config hold.
        results_dirs: for an EPyMARL checkpoint, further `results` folders whose Sacred runs are searched.

    Raises:
        UserError: nothing there, damaged or altered weights, or facts that cannot be found.
    """
    folder = checkpoint_folder(Path(folder).expanduser())
    if not (folder / FACTS_FILE).is_file():
        return load_epymarl_checkpoint(folder, config=config, n_agents=n_agents, results_dirs=results_dirs)
    facts = read_facts(folder)
    names = weight_files(facts["critic_type"])
    for name in names:
        path = folder / name
        if not path.is_file():
            raise UserError(
                f"the teacher in {folder} is incomplete: {name} is missing; copy it whole or train it again"
            )
        if files.file_sha256(path) != facts["sha256"].get(name):
            raise UserError(f"{path} was altered: its sha256 is not the one in {FACTS_FILE}; copy the folder again")
    states = {name: load_state(folder / name) for name in names}
    _check_weights(folder, facts, states)
    return TeacherArtifact(folder, facts, states[names[0]], states[names[1]] if len(names) > 1 else {})


def checkpoint_folder(folder: Path) -> Path:
    """Find the folder that holds the weights: `folder` itself, or its sub-folder with the largest number of steps."""
    if (folder / FACTS_FILE).is_file() or (folder / WEIGHT_FILES[0]).is_file():
        return folder
    if not folder.is_dir():
        raise UserError(f"no teacher at {folder}: there is no such folder")
    steps = [child for child in folder.iterdir() if child.is_dir() and child.name.isdigit()]
    usable = [child for child in steps if (child / WEIGHT_FILES[0]).is_file()]
    if not usable:
        raise UserError(
            f"no teacher at {folder}: expected {FACTS_FILE} or {WEIGHT_FILES[0]} in it or in <steps>/ in it"
        )
    return max(usable, key=lambda child: int(child.name))


def weights_sha256(folder: Path) -> str:
    """Return the sha256 of a teacher's ``agent.th``: ``teacher.json``'s, or the file's where there are no facts.

    Raises:
        UserError: the facts are damaged.
    """
    name = WEIGHT_FILES[0]
    if not (folder / FACTS_FILE).is_file():
        return files.file_sha256(folder / name)
    sha256 = read_facts(folder)["sha256"].get(name)
    if not isinstance(sha256, str):
        raise UserError(f"{folder / FACTS_FILE} is damaged: it lacks the sha256 of {name}")
    return sha256


def check_compatible(teacher: TeacherArtifact, task: Task) -> None:
    """Refuse a teacher that was trained on something else.

    Args:
        teacher: the teacher to use.
        task: the run's task.

    Raises:
        UserError: the first fact that differs, with both values; or the teacher learnt under limits.
    """
    if teacher.facts["masked"]:
        raise UserError(
            f"the teacher in {teacher.folder} was trained under limits (mask_at=environment), and students learn from "
            "one that sees everything: give another with teacher=PATH"
        )
    wanted = {
        "task": (task.name, "task"),
        "n_agents": (task.n_agents, "number of agents"),
        "obs_size": (task.obs_size, "observation size"),
        "n_actions": (task.n_actions, "number of actions"),
        "state_size": (task.state_size, "state size"),
    }
    for key, (value, words) in wanted.items():
        found = teacher.facts[key]
        # An ippo checkpoint does not tell the state size: its critic never sees the state.
        if found is not None and found != value:
            raise UserError(
                f"the teacher in {teacher.folder} does not fit: its {words} is {found}, this run's is {value}; "
                f"give teacher=<one trained on {task.name}> or train one with teacher=train"
            )


def teacher_folders(search_dirs: Iterable[Path | str]) -> list[Path]:
    """List every folder below `search_dirs` that holds a `teacher.json`, newest first."""
    found = {path.parent: path.stat().st_mtime for top in search_dirs for path in Path(top).rglob(FACTS_FILE)}
    return sorted(found, key=lambda folder: (found[folder], str(folder)), reverse=True)


def named_teacher(spec: str, zoo_dir: Path | str) -> Path:
    """Find the teacher in the folder `spec`, or if there is no such folder the bundled one of that name.

    Raises:
        UserError: there is neither.
    """
    folder, bundled = Path(spec).expanduser(), Path(zoo_dir) / spec
    return bundled if not folder.exists() and (bundled / FACTS_FILE).is_file() else checkpoint_folder(folder)


def find_teacher(
    spec: str,
    task: str,
    search_dirs: Iterable[Path | str],
    zoo_dir: Path | str,
    train_command: str = "",
    env: str = "",
) -> Path:
    """Choose the teacher of a run: the one named, else the newest for the task in the results, else the zoo's.

    One that learnt under limits is found by its name alone.

    Args:
        spec: what the user wrote in `teacher=`, a folder or a bundled teacher's name; empty to search.
        task: the run's task.
        search_dirs: folders searched for `teacher.json`, e.g. `results/models`.
        zoo_dir: the bundled teachers, a folder each; the one that a task gets unasked has its name.
        train_command: the command that trains a teacher for this task, for the message.
        env: the run's environment, since SMAC and SMAX have maps of the same name; "": any.

    Raises:
        UserError: nothing found; the message names the command that trains one.
    """
    if spec:
        return named_teacher(spec, zoo_dir)
    for folder in teacher_folders(search_dirs):
        try:
            facts = read_facts(folder)
            # A training that still runs, or was interrupted, has left checkpoints too; name such a folder to use it.
            mine = facts["task"] == task and env in ("", facts["env"])
            if mine and facts["finished"] and not facts["masked"]:
                return folder
        except UserError as error:
            _log.warning("Passing over a teacher: %s", error)
    bundled = Path(zoo_dir) / task
    if (bundled / FACTS_FILE).is_file() and env in ("", read_facts(bundled)["env"]):
        return bundled
    command = train_command or f"{' '.join(PROGRAM)} --config=kd_teacher --env-config=<env> with env_args.key={task}"
    raise UserError(
        f"no teacher for {task} in the results or the zoo: train one with `{command}`, "
        "let this run do it with teacher=train, or give teacher=PATH"
    )
