"""A finished student: its newest whole checkpoint, its run's configuration and its result.

A run leaves them in two places, ``sacred/<name>/<task>/<id>/`` and ``models/<token>/<steps>/`` of its results folder.
The configuration's fingerprint, the seed and the teacher say which belong together. Any of these folders names the run.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from kd_controllers.messages import Messages
from kd_controllers.student_net import HeteroStudent
from kd_controllers.talking_net import TalkingStudent
from kd_core import checkpoints, files
from kd_core.artifacts.expert_buffer import ExpertBuffer
from kd_core.errors import UserError
from kd_core.host import Host
from kd_core.task import Task, task_names
from kd_envs.hetero_mask.mask import ObservationMask
from kd_marl.runs.folders import results_folders
from kd_runners import environments

# The network that a bundle's ONNX and C are written for.
EXPORTED_AGENT = "rnn"
CONFIG_FILE, SUMMARY_FILE, RUN_FILE = "config.json", "summary.json", "run.json"


@dataclass(frozen=True)
class StudentRun:
    """A trained student and what its run left of it.

    Attributes:
        checkpoint: folder of the weights.
        facts: its ``checkpoint.json``.
        config: the run's configuration.
        summary: its ``summary.json``.
        commit: of the source tree that trained it; None if unknown.
        record: the run's Sacred folder, ``<name>/<task>/<id>``.
        network: the students.
        mask: who sees what.
        roles: U_S, ``(roles, max_width)`` float32.
    """

    checkpoint: Path
    facts: dict[str, Any]
    config: dict[str, Any]
    summary: dict[str, Any]
    commit: str | None
    record: str
    network: HeteroStudent
    mask: ObservationMask
    roles: torch.Tensor

    @property
    def task(self) -> str:
        """Return the task, e.g. ``pz-mpe-simple-spread-v3``."""
        return str(self.facts["task"])

    @property
    def results(self) -> Path:
        """Return the results folder that holds its checkpoint and its record."""
        return _above(self.checkpoint, "models")

    @property
    def folder(self) -> Path:
        """Return the run's Sacred folder, beside its models."""
        return self.results / "sacred" / self.record

    def find_buffer(self, given: Path | None = None) -> ExpertBuffer | None:
        """Return the expert buffer that the student was distilled from, or None if it is not where the run left it.

        Args:
            given: where the user says it is; it must be there.

        Raises:
            UserError: ``given`` holds none, or one of another task or teacher; or the buffer found is damaged.
        """
        task, teacher = task_names(self.task)[0], self.facts["teacher"]["sha256"]["agent.th"]
        named = self.config["expert_buffer"]
        usual = Path(named).expanduser() if named else self.results / "buffers" / task / teacher[:12]
        folder = usual if given is None else given
        if given is None and not (folder / "buffer.json").is_file():
            return None
        buffer = ExpertBuffer.open(folder)
        if (buffer.facts["task"], buffer.facts["teacher"]["sha256"]["agent.th"]) != (task, teacher):
            raise UserError(
                f"the expert buffer in {folder} is of {buffer.facts['task']} and the teacher "
                f"{buffer.facts['teacher']['path']}: give the one that this student of {self.task} learnt from"
            )
        return buffer

    def more_buffers(self) -> list[ExpertBuffer]:
        """Return the expert buffers of the further tasks of a student of several that are where the run left them."""
        pairs = zip(task_names(self.task)[1:], self.facts.get("more_teachers", ()), strict=False)
        folders = (self.results / "buffers" / task / known["sha256"]["agent.th"][:12] for task, known in pairs)
        return [ExpertBuffer.open(folder) for folder in folders if (folder / "buffer.json").is_file()]


def load_student(run: Path | str) -> StudentRun:
    """Read a student.

    Args:
        run: the run's Sacred folder, its folder below ``models``, or one folder of steps in that.

    Raises:
        UserError: there is no student, no finished checkpoint or no result, or something is damaged.
    """
    run = Path(run).expanduser().absolute()
    if not run.is_dir():
        raise UserError(
            f"there is no folder {run}: give a student's folder below results/sacred or results/models{_newest(run)}"
        )
    if (run / RUN_FILE).is_file():
        record, checkpoint = run, _checkpoint_of(run)
    else:
        checkpoint = _checkpoint_in(run)
        record = _record_of(checkpoint)
    facts = checkpoints.read_checkpoint(checkpoint)
    if not facts["finished"]:
        raise UserError(
            f"{checkpoint} was saved in the middle of its run, whose result is not its own: give {checkpoint.parent}, "
            "or let the run finish with resume=True"
        )
    config = files.read_json(record / CONFIG_FILE)
    if config["agent"] != EXPORTED_AGENT:
        raise UserError(
            f"{record} is a run of {config['name']} with agent={config['agent']}, and only recurrent students are "
            f"loaded again: train with agent={EXPORTED_AGENT}, as kd_student does"
        )
    mask = ObservationMask.from_dict(facts["mask"])
    visible = [mask.indices(agent) for agent in range(mask.n_agents)]
    return StudentRun(
        checkpoint=checkpoint,
        facts=facts,
        config=config,
        summary=files.read_json(record / SUMMARY_FILE),
        commit=_commit(record),
        record="/".join(record.relative_to(_above(record, "sacred") / "sacred").parts),
        network=_network(checkpoint / "agent.th", facts, visible, config["sharing"]),
        mask=mask,
        roles=_read_th(checkpoint / "training.th")["student_roles"],
    )


def run_arguments(host: Host, run: StudentRun) -> tuple[SimpleNamespace, Task]:
    """Rebuild the run's namespace as the host's loop had it, and describe its task.

    Raises:
        UserError: its environment cannot be built here.
    """
    env_args = {**run.config["env_args"], "seed": run.facts["seed"]}
    args = SimpleNamespace(**{**run.config, "env_args": env_args, "use_cuda": False, "device": "cpu"})
    # As it was trained, whatever has become of its budget's file.
    args.widths, args.budget = list(run.network.widths), ""
    return args, environments.prepare(host, args)


def _newest(missing: Path) -> str:
    """Name the newest student of the results folder that a missing folder would be in, or of this folder's."""
    above = (folder for name in ("sacred", "models") if (folder := _above(missing, name)) != missing)
    for results in (*above, *results_folders()):
        found = list((results / "sacred").glob(f"**/{SUMMARY_FILE}"))
        for file in sorted(found, key=lambda file: file.stat().st_mtime, reverse=True):
            # A damaged neighbour is not what the user asked for.
            with contextlib.suppress(UserError):
                if files.read_json(file.parent / CONFIG_FILE).get("learner") == "kd_mappo_student":
                    return f"; the newest is {file.parent}"
    return ""


def _checkpoint_in(folder: Path) -> Path:
    """Return the furthest whole checkpoint in a models folder, or the folder itself if it is one."""
    if (folder / "teacher.json").is_file() or any(folder.glob("*/teacher.json")):
        raise UserError(f"{folder} is a teacher, and a student was expected: distil it first with kd_student")
    if (folder / checkpoints.FACTS_FILE).is_file():
        return folder
    steps = [path.parent for path in folder.glob(f"*/{checkpoints.FACTS_FILE}") if path.parent.name.isdigit()]
    if steps:
        return max(steps, key=lambda path: int(path.name))
    raise UserError(
        f"{folder} holds no student: expected {checkpoints.FACTS_FILE} in it or in <steps>/ in it, "
        f"or {RUN_FILE} of a run"
    )


def _checkpoint_of(record: Path) -> Path:
    """Return the furthest checkpoint of a Sacred run."""
    if not (record / SUMMARY_FILE).is_file():
        raise _no_result(record)
    config = files.read_json(record / CONFIG_FILE)
    if config.get("learner") != "kd_mappo_student":
        raise UserError(f"{record} is a run of {config.get('name')}, and only students of kd_student are loaded again")
    results, summary = _above(record, "sacred"), files.read_json(record / SUMMARY_FILE)
    models = results / "models"
    found: dict[Path, Any] = {}
    for file in models.glob(f"**/{checkpoints.FACTS_FILE}"):
        facts = checkpoints.read_checkpoint(file.parent)
        if _belong_together(facts, config, summary):
            named = "record" in facts and results / facts["record"] == record
            found[file.parent] = (named, facts["finished"], facts["t_env"], file.stat().st_mtime)
    if not found:
        raise UserError(
            f"the weights of {record} are not in {models}: run it with save_model=True, or give the models folder "
            "itself"
        )
    return max(found, key=lambda folder: found[folder])


def _record_of(checkpoint: Path) -> Path:
    """Return the newest Sacred run whose result is the checkpoint's."""
    facts, results = checkpoints.read_checkpoint(checkpoint), _above(checkpoint, "models")
    # The same command may have trained another student, whose result is that student's.
    elsewhere = (
        checkpoints.read_checkpoint(file.parent).get("record")
        for file in (results / "models").glob(f"**/{checkpoints.FACTS_FILE}")
        if file.parent.parent != checkpoint.parent
    )
    others = {results / record for record in elsewhere if record not in (None, facts.get("record"))}
    found = []
    for file in (results / "sacred").glob(f"**/{SUMMARY_FILE}"):
        config = files.read_json(file.parent / CONFIG_FILE)
        is_student = config.get("learner") == "kd_mappo_student" and file.parent not in others
        if is_student and _belong_together(facts, config, files.read_json(file)):
            found.append(file)
    if not found:
        raise _no_result(checkpoint)
    return max(found, key=lambda file: file.stat().st_mtime).parent


def _above(folder: Path, name: str) -> Path:
    """Return the results folder, which holds the nearest folder ``name`` around ``folder``; a task may have slashes."""
    return next((parent.parent for parent in folder.parents if parent.name == name), folder)


def _belong_together(facts: dict[str, Any], config: dict[str, Any], summary: dict[str, Any]) -> bool:
    """Return whether a checkpoint and a run's result are of one student: the same configuration, seed and teacher.

    The seed is the result's: an evaluation that was given none has one of its own in its configuration.
    """
    if facts["fingerprint"] != checkpoints.fingerprint(config) or summary.get("seed") != facts["seed"]:
        return False
    teacher = summary["teacher_artifact"]["sha256"]["agent.th"]
    return teacher == facts["teacher"]["sha256"]["agent.th"]


def _no_result(folder: Path) -> UserError:
    return UserError(
        f"the result ({SUMMARY_FILE}) of {folder} is missing: let the run finish, or repeat its command with "
        "evaluate=True"
    )


def _network(path: Path, facts: dict[str, Any], visible: Sequence[Sequence[int]], sharing: str) -> HeteroStudent:
    state = _read_th(path)
    actions = {value.shape[-1] for name, value in state.items() if name.endswith("head_weight")}
    try:
        network: HeteroStudent
        # Students of before there were messages say nothing of them.
        if radio := facts.get("messages"):
            messages = Messages.from_dict(radio)
            network = TalkingStudent(facts["widths"], visible, actions.pop(), sharing, messages)
        else:
            network = HeteroStudent(facts["widths"], visible, actions.pop(), sharing)
        network.load_state_dict(state)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} does not fit its {checkpoints.FACTS_FILE} ({reason[:120]}): copy the folder whole"
        ) from error
    return network.eval()


def _read_th(path: Path) -> dict[str, Any]:
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: copy the checkpoint whole") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise UserError(f"{path} is damaged or holds more than tensors: copy the checkpoint again") from error


def _commit(record: Path) -> str | None:
    repositories = files.read_json(record / RUN_FILE).get("experiment", {}).get("repositories") or [{}]
    commit = repositories[0].get("commit")
    return f"{commit}+changes" if commit and repositories[0].get("dirty") else commit
