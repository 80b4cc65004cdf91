"""Plays teacher and student under each disturbance, in the same episodes, and writes each result as it comes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from kd_controllers.hetero_mac import HeteroMAC
from kd_controllers.policy_mac import PolicyMAC
from kd_controllers.random_mac import RandomMAC
from kd_controllers.talking_net import TalkingStudent
from kd_core import checkpoints, files, progress
from kd_core.artifacts import teacher as artifacts
from kd_core.artifacts.teacher import TeacherArtifact
from kd_core.errors import UserError
from kd_core.host import Host
from kd_core.places import ZOO
from kd_core.task import Task, task_names
from kd_learners import batches
from kd_learners.batches import Episodes
from kd_learners.losses import acting_mask
from kd_learners.settings import check_episodes
from kd_learners.value_teacher import frozen_teacher
from kd_marl.evaluation.episodes import PairedEpisodes
from kd_marl.processes.workers import workers_watched
from kd_marl.runs.stress_file import FILE, FORMAT, VERSION
from kd_marl.runs.student_run import StudentRun
from kd_marl.stress import plan
from kd_marl.stress.envs import RUNNER, Trouble, disturbing
from kd_marl.stress.plan import Trial
from kd_marl.stress.scores import Scores, row

# Facts that must be equal for a measured row to stay.
_IDENTITY = ("task", "env_args", "seed", "episodes", "batch", "student_sha256", "teacher_sha256")

Maker = Callable[[dict[str, Any], Any], PolicyMAC]


class Match:
    """Teacher and student, who play the same episodes greedily.

    Args:
        host: whose environments are used.
        run: the student.
        args: its run's namespace, see :func:`kd_marl.runs.student_run.run_arguments`.
        task: what its environment says of itself.
        teacher: the one it was distilled from.
        episodes: how many each policy plays under each disturbance.
        batch: at most so many of them at a time.

    Attributes:
        batch: how many are played at a time.

    Raises:
        UserError: ``episodes`` is not positive, or the teacher was trained on something else.
    """

    def __init__(
        self,
        host: Host,
        run: StudentRun,
        args: SimpleNamespace,
        task: Task,
        teacher: TeacherArtifact,
        episodes: int,
        batch: int,
    ) -> None:
        check_episodes(episodes)
        layout = run.mask.layout
        if (task.n_agents, task.obs_size) != (layout.n_agents, layout.obs_size):
            raise UserError(
                f"{task.name} has {task.n_agents} agents with {task.obs_size} features each here, the student was "
                f"made for {layout.n_agents} with {layout.obs_size}: use the environment's settings of its run"
            )
        artifacts.check_compatible(teacher, task)
        self.host, self.run, self.layout = host, run, layout
        self.args = SimpleNamespace(**{**vars(args), "runner": RUNNER, "batch_size_run": batch})
        self.teacher = frozen_teacher(teacher, self.args)
        self.teacher.mac.greedy = True
        self.episodes = episodes
        self.batch = PairedEpisodes(host, self.args, None, episodes).block

    def teacher_mac(self, scheme: dict[str, Any], options: Any) -> PolicyMAC:
        """Return the greedy teacher."""
        return self.teacher.mac

    def student_mac(self, scheme: dict[str, Any], options: Any) -> HeteroMAC:
        """Return the greedy student: the environment is whole, this controller hides what its mask hides."""
        mac = HeteroMAC(scheme, None, options, self.run.mask)
        mac.agent.load_state_dict(self.run.network.state_dict())
        mac.greedy = True
        return mac

    def student_under(self, trouble: Trouble) -> Maker:
        """Return what makes the greedy student with the radio that a disturbance leaves it."""

        def make(scheme: dict[str, Any], options: Any) -> PolicyMAC:
            if not isinstance(self.run.network, TalkingStudent):
                return self.student_mac(scheme, options)
            late = options.message_latency + trouble.message_delay
            mac = self.student_mac(scheme, SimpleNamespace(**{**vars(options), "message_latency": late}))
            mac.test_loss = trouble.message_loss
            if trouble.jammed is not None:
                assert isinstance(mac.agent, TalkingStudent), "the student's own kind"
                mac.agent.cut_off(trouble.jammed)
            return mac

        return make

    def play(
        self,
        make: Maker,
        trouble: Trouble,
        label: str,
        task: str | None = None,
        watch: Callable[[Episodes], None] | None = None,
    ) -> Scores:
        """Play the episodes.

        Args:
            make: the policy's controller.
            trouble: what goes wrong.
            label: of the progress bar.
            task: another map; None: the run's own.
            watch: is given each block of episodes.
        """
        args = SimpleNamespace(**vars(self.args))
        if task not in (None, args.map_name):
            args.map_name, args.env_args = task, {**args.env_args, "map_name": task}
        returns, won = [], []
        paired = PairedEpisodes(self.host, args, None, self.episodes)
        with disturbing(self.host, trouble) as latest_won, workers_watched():
            for batch, _, _ in paired.blocks(make, masked=False, label=label):
                episodes = batches.from_host(batch)
                returns.append((episodes.reward.double() * episodes.filled).sum(dim=(1, 2)).numpy())
                won.append(latest_won().copy())
                if watch:
                    watch(episodes)
        return Scores(np.concatenate(returns), np.concatenate(won))


class Spread:
    """Standard deviation of every feature over the steps at which its agent has a choice, so is alive.

    Args:
        agents: how many.
        obs_size: features of an observation.
    """

    def __init__(self, agents: int, obs_size: int) -> None:
        self._count = np.zeros((agents, 1))
        self._sum, self._squares = np.zeros((agents, obs_size)), np.zeros((agents, obs_size))

    def add(self, episodes: Episodes) -> None:
        """Count a block of episodes."""
        acting = acting_mask(episodes.filled.squeeze(-1), episodes.avail_actions[:, :-1]).double().unsqueeze(-1)
        obs = episodes.obs[:, :-1].double()
        self._count += acting.sum(dim=(0, 1)).numpy()
        self._sum += (obs * acting).sum(dim=(0, 1)).numpy()
        self._squares += (obs.square() * acting).sum(dim=(0, 1)).numpy()

    def std(self) -> np.ndarray:
        """Return ``(agents, obs_size)`` float64; 0 for a feature that never changes and an agent that never acts."""
        count = np.maximum(self._count, 1)
        return np.sqrt(np.maximum(self._squares / count - np.square(self._sum / count), 0))


def find_teacher(run: StudentRun, given: Path | None, results: Sequence[Path]) -> TeacherArtifact:
    """Return the teacher that a student was distilled from.

    Args:
        run: the student.
        given: where the user says it is.
        results: results folders to look in, if it is not where it was.

    Raises:
        UserError: it is nowhere, or what was given is another; or the student plays several tasks.
    """
    wanted = run.facts["teacher"]["sha256"]["agent.th"]
    if len(task_names(run.task)) > 1:
        raise UserError(
            f"the student in {run.record} plays {run.task}, each with a teacher of its own, and this command compares "
            "it with one: its summary.json has every task's result, and `kd-marl run` plays its bundle on each"
        )

    def fits(folder: Path) -> bool:
        file = folder / artifacts.WEIGHT_FILES[0]
        return file.is_file() and files.file_sha256(file) == wanted

    was = Path(run.facts["teacher"]["path"])
    if given is not None:
        places = [artifacts.checkpoint_folder(given.expanduser())]
    else:
        places = [was, *artifacts.teacher_folders([ZOO, *(folder / "models" for folder in results)])]
    folder = next((place for place in places if fits(place)), None)
    if folder is None:
        where = f"{places[0]} is another teacher" if given is not None else f"the teacher is no longer in {was}"
        raise UserError(
            f"{where}: the student of {run.task} was distilled from agent.th {wanted[:12]}: give --teacher DIR"
        )
    teacher = artifacts.load_teacher(
        folder, config=run.config["teacher_config"] or None, n_agents=run.mask.n_agents, results_dirs=results
    )
    temperature = run.facts["teacher"].get("temperature")
    return teacher if temperature is None else teacher.at(temperature)


def identity(match: Match) -> dict[str, Any]:
    """Return the facts that identify a result: rows that were measured under the same facts stay."""
    args = match.args
    return {
        "task": args.map_name,
        "env_args": checkpoints.unseeded(args.env_args),
        "seed": args.seed,
        "episodes": match.episodes,
        "batch": match.batch,
        "student_sha256": files.file_sha256(match.run.checkpoint / "agent.th"),
        "teacher_sha256": match.teacher.artifact.sha256["agent.th"],
    }


def measured_rows(file: Path, facts: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the content and rows of a file that is there; nothing if they are of other facts.

    Raises:
        UserError: the file is no such result.
    """
    if not file.is_file():
        return {}, []
    found = files.read_json(file)
    if (found.get("format"), found.get("version")) != (FORMAT, VERSION) or not isinstance(found.get("rows"), list):
        raise UserError(f"{file} is no result of this kd-marl stress: move it away")
    other = [key for key in _IDENTITY if found.get(key) != facts[key]]
    if other:
        print(f"{file} was measured with other {', '.join(other)}: measuring anew", file=sys.stderr)
        return {}, []
    return found, list(found["rows"])


def measure(match: Match, trials: Sequence[Trial], notes: Sequence[str], command: str) -> dict[str, Any]:
    """Play what is missing; after every disturbance the result is written.

    Args:
        match: who plays.
        trials: all that is wanted, without the undisturbed one.
        notes: remarks for the reader.
        command: what makes the missing ones.

    Returns:
        The content of ``stress.json``, see docs/reference/formats/stress.md.
    """
    file = match.run.folder / FILE
    facts = identity(match)
    found, rows = measured_rows(file, facts)
    present = {entry["name"] for entry in rows}
    missing = [trial for trial in trials if trial.name not in present]
    start = plan.undisturbed(match.args.map_name)
    order = {trial.name: trial.order for trial in (start, *trials)}
    summary = match.run.summary
    complete = start.name in present and not missing
    result = {
        "format": FORMAT,
        "version": VERSION,
        "commands": list(dict.fromkeys([*found.get("commands", ()), *([] if complete else [command])])),
        **facts,
        "limits": summary["limits"],
        "masks_preset": summary["masks_preset"],
        "run": match.run.record,
        "teacher": str(match.teacher.artifact.folder),
        "measures": found.get("measures"),
        "random_mean": found.get("random_mean"),
        # With those of earlier calls, whose rows stay.
        "notes": list(dict.fromkeys([*found.get("notes", []), *notes])),
        "rows": rows,
    }
    if complete:
        return result
    done = len(trials) - len(missing)
    with progress.bar("disturbances", 1 + len(trials), "disturbance", done=done) as bar:
        spread = Spread(match.layout.n_agents, match.layout.obs_size)
        whole = match.play(match.teacher_mac, Trouble(), "teacher, undisturbed", watch=spread.add)
        if start.name not in present:
            student = match.play(match.student_mac, Trouble(), "student, undisturbed")
            random = match.play(lambda scheme, options: RandomMAC(options), Trouble(), "random")
            result |= {"measures": "win rate" if whole.has_wins else "return", "random_mean": random.mean}
            rows.append(row(start, whole, student, whole))
            files.write_json(file, result)
        bar.update()
        scale = spread.std()
        for trial in missing:
            trouble = plan.trouble(trial, match.args, match.layout, scale)
            teacher = whole
            if trial.kind not in plan.RADIO_KINDS:
                teacher = match.play(match.teacher_mac, trouble, f"teacher, {trial.name}", trial.task)
            student = match.play(match.student_under(trouble), trouble, f"student, {trial.name}", trial.task)
            rows.append(row(trial, teacher, student, whole))
            rows.sort(key=lambda entry: order.get(entry["name"], _order(entry)))
            files.write_json(file, result)
            bar.update()
    return result


def _order(entry: Mapping[str, Any]) -> tuple[int, float, str]:
    """Return the place of a row of an earlier call."""
    return Trial(entry["kind"], entry["name"], entry["level"], entry["task"]).order
