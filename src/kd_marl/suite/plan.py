"""From a suite's grid to jobs: every run, and the teachers and expert buffers that are made once before it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kd_core import checkpoints, files, stages
from kd_core.artifacts import teacher as artifacts
from kd_core.artifacts.expert_buffer import ExpertBuffer
from kd_core.errors import UserError, nearest
from kd_core.host import Host
from kd_marl.runs.identity import identity
from kd_marl.suite.document import Cell, Suite, Task
from kd_marl.suite.job import Job
from kd_marl.suite.lines import Lines
from kd_marl.suite.proof import Exported, Proof, Summary, Trained

TEACHER, BUFFER = "teacher", "buffer"


@dataclass(frozen=True)
class Node:
    """A job by name, and the names of the jobs that it waits for; `cell` is None for what cells share."""

    label: str
    task: str
    method: str
    needs: tuple[str, ...] = ()
    cell: Cell | None = None

    @property
    def kind(self) -> str:
        """Return its kind: jobs of a kind take about as long."""
        return f"{self.task}/{self.method}"


@dataclass(frozen=True)
class _Teacher:
    folder: Path
    sha256: str
    steps: int


class Plan:
    """The jobs of a suite.

    Attributes:
        suite: the file.
        results: folder of all runs, as every run's ``results``.
        nodes: label -> job by name; what is needed comes before what needs it.
    """

    def __init__(self, host: Host, suite: Suite, results: Path) -> None:
        """Plan, and check every command line.

        Raises:
            UserError: a configuration, a key or a teacher that does not exist, or two cells that are the same run.
        """
        self.suite, self.results = suite, results.expanduser().absolute()
        self._lines = Lines(host, suite, self.results)
        self._given: dict[str, _Teacher | None] = {}
        self._episodes: dict[str, int] = {}
        self._buffer_steps: dict[tuple[Path, int], int] = {}
        # Folder of a buffer -> the task that it is exported for, and its environment.
        self._buffers: dict[Path, tuple[str, dict[str, Any]]] = {}
        self.nodes: dict[str, Node] = {}
        try:
            self._add_nodes(suite.cells())
        except UserError as error:
            raise UserError(f"{suite.path}: {error}") from None

    def teacher(self, task: str) -> Path | None:
        """Return the folder of the one teacher of a task's students; None if it is yet to be trained."""
        found = self._teacher(self.suite.tasks[task])
        return None if found is None else found.folder

    def job(self, label: str) -> Job | None:
        """Return the job of a name; None until what it needs is made."""
        node = self.nodes[label]
        if node.cell is not None:
            return self._cell_job(node, node.cell)
        task = self.suite.tasks[node.task]
        return self._teacher_job(task) if node.method == TEACHER else self._buffer_job(task)

    def _add_nodes(self, cells: list[Cell]) -> None:
        for task in self.suite.tasks.values():
            # Reads and checks every configuration.
            names = dict.fromkeys(cell.method for cell in cells if cell.task == task.name)
            if not any([self._needs_buffer(task, name) for name in names]):
                continue
            needs: tuple[str, ...] = ()
            if self._given_teacher(task) is None:
                needs = (f"{task.name}/{TEACHER}",)
                self.nodes[needs[0]] = Node(needs[0], task.name, TEACHER)
                self._lines.stage("kd_teacher", task)
            label = f"{task.name}/{BUFFER}"
            self.nodes[label] = Node(label, task.name, BUFFER, needs)
        rows: dict[tuple[str, str, str], list[Cell]] = {}
        for cell in cells:
            needed = self._needs_buffer(self.suite.tasks[cell.task], cell.method)
            self.nodes[cell.label] = Node(
                cell.label, cell.task, cell.method, (f"{cell.task}/{BUFFER}",) if needed else (), cell
            )
            rows.setdefault((cell.task, cell.method, cell.limits), []).append(cell)
        seen: dict[str, dict[int, Cell]] = {}
        for row in rows.values():
            self._check(row, seen)
        for task in self.suite.tasks.values():
            if f"{task.name}/{BUFFER}" in self.nodes and (teacher := self._given_teacher(task)) is not None:
                self._export(task, teacher)

    def _check(self, row: list[Cell], seen: dict[str, dict[int, Cell]]) -> None:
        """Refuse cells, alike but for the seed, that would fail only after others have been made, or were ``seen``."""
        cell = row[0]
        needed, student = bool(self.nodes[cell.label].needs), self._student(cell)
        for key in ("t_max", "buffer_episodes") if needed else ("t_max",):
            self._count(student, key)
        own, steps = {}, ""
        if student != cell:
            # Its own length is known once there is a buffer, and then the same for all that take one student's.
            own = {"t_max": 1}
            steps = f"{identity(self._lines.cell(replace(student, seed=0))[1])} {self._teacher_mark(student)}"
        config = self._lines.cell(replace(cell, seed=0), **own)[1]
        taken = seen.setdefault(f"{identity(config)} {self._teacher_mark(cell)} {steps}", {})
        for cell in row:
            twin = taken.setdefault(cell.seed, cell)
            if twin is not cell:
                raise UserError(f"{twin.label} and {cell.label} are the same run: leave one of the two out")

    def _needs_buffer(self, task: Task, name: str) -> bool:
        method = self.suite.methods[name]
        if method.steps_of and not self._lines.distils(task, self.suite.methods[method.steps_of]):
            raise UserError(f"methods.{name}.steps_of: {method.steps_of} has no teacher; name a student")
        return self._lines.distils(task, method) or bool(method.steps_of)

    def _teacher_mark(self, cell: Cell) -> str:
        """Tells a cell's teacher from others, made or not; "" if it has none."""
        task = self.suite.tasks[cell.task]
        if not self._lines.distils(task, self.suite.methods[cell.method]):
            return ""
        given = self._given_teacher(task)
        return given.sha256 if given is not None else self._teacher_job(task).key

    def _cell_job(self, node: Node, cell: Cell) -> Job | None:
        task, method = self.suite.tasks[cell.task], self.suite.methods[cell.method]
        own: dict[str, object] = {}
        sha256 = ""
        if node.needs:
            teacher = self._teacher(task)
            if teacher is None:
                return None
            if method.steps_of:
                steps = self._steps(cell, task, teacher)
                if steps is None:
                    return None
                own["t_max"] = steps
            else:
                own["teacher"], sha256 = teacher.folder, teacher.sha256
        words, config = self._lines.cell(cell, **own)
        proof = Summary(self._lines.sacred_folder(cell), identity(config), sha256)
        goes_on = self._lines.distils(task, method)
        # Whatever a student's result is measured over, it is one training, and so one lock.
        mark = f"{checkpoints.fingerprint(config)} {cell.seed}" if goes_on else proof.identity
        return self._job(node, words, proof, f"{mark} {sha256}", goes_on)

    def _steps(self, cell: Cell, task: Task, teacher: _Teacher) -> int | None:
        """Return the environment steps of teacher, student and its share of the buffer; None before there is one."""
        if self._export(task, teacher)[1].found() is None:
            return None
        student = self._student(cell)
        folder, episodes = self._buffer_folder(task, teacher), self._count(student, "buffer_episodes")
        buffer = files.read_json(folder / "buffer.json")
        steps = buffer["steps"]
        if buffer["episodes"] > episodes:
            if (folder, episodes) not in self._buffer_steps:
                self._buffer_steps[folder, episodes] = ExpertBuffer.open(folder).first(episodes).steps
            steps = self._buffer_steps[folder, episodes]
        return teacher.steps + steps + self._count(student, "t_max")

    def _student(self, cell: Cell) -> Cell:
        """Return the student whose steps a cell takes; itself, if it takes nobody's."""
        return replace(cell, method=self.suite.methods[cell.method].steps_of or cell.method)

    def _count(self, cell: Cell, key: str) -> int:
        """Return a key's value in the configuration of a cell, which must be a whole number of at least 1."""
        value = self._lines.cell(cell)[1][key]
        if not (isinstance(value, int) or (isinstance(value, float) and value.is_integer())) or value < 1:
            where = f"methods.{cell.method} on tasks.{cell.task} under {cell.limits}"
            raise UserError(f"{where}: {key} is {value!r}: expected a whole number of at least 1")
        return int(value)

    # ---- what cells share --------------------------------------------------------------------------------------------

    def _given_teacher(self, task: Task) -> _Teacher | None:
        """Return the teacher that need not be trained: the one that the file names, or the bundled one."""
        if task.name not in self._given:
            self._given[task.name] = self._find_teacher(task)
        return self._given[task.name]

    def _find_teacher(self, task: Task) -> _Teacher | None:
        if task.teacher == "train":
            return None
        env, name = self._lines.environment(task)
        where = f"tasks.{task.name}.teacher"
        try:
            if task.teacher not in ("", "zoo"):
                return _read_teacher(artifacts.named_teacher(task.teacher, stages.ZOO).absolute())
            return _read_teacher(artifacts.find_teacher("", name, [], stages.ZOO, env=env))
        except UserError as error:
            if not task.teacher:
                return None
            if task.teacher != "zoo":
                raise UserError(f"{where}: {error}") from None
            tasks = {artifacts.read_facts(folder)["task"] for folder in artifacts.teacher_folders([stages.ZOO])}
            hint = nearest(name, sorted(tasks))
            raise UserError(f"{where}: the zoo has no teacher for {name}; {hint}") from None

    def _teacher(self, task: Task) -> _Teacher | None:
        """Return the one teacher of all students of a task; None if it is yet to be trained."""
        given = self._given_teacher(task)
        if given is not None:
            return given
        made = self._teacher_job(task).proof.found()
        return None if made is None else _read_teacher(made)

    def _teacher_job(self, task: Task) -> Job:
        words, config = self._lines.stage("kd_teacher", task)
        # Its name for its checkpoints is that of the run itself, see kd_marl.plugin.lifecycle.
        mark, seed = checkpoints.fingerprint(config), config["seed"]
        proof = Trained(self.results, config["name"], mark, seed)
        # Whatever its result is measured over, it is one training, and so one lock.
        return self._job(self.nodes[f"{task.name}/{TEACHER}"], words, proof, f"{mark} {seed}")

    def _buffer_job(self, task: Task) -> Job | None:
        teacher = self._teacher(task)
        if teacher is None:
            return None
        words, proof = self._export(task, teacher)
        # One writer a folder, however many episodes it asks for.
        key = str(proof.folder.relative_to(self.results))
        return self._job(self.nodes[f"{task.name}/{BUFFER}"], words, proof, key)

    def _export(self, task: Task, teacher: _Teacher) -> tuple[tuple[str, ...], Exported]:
        """Return the command line of a task's export, and its proof: enough episodes for every student.

        Raises:
            UserError: the buffer's folder is that of a task with another environment.
        """
        if task.name not in self._episodes:
            students = {
                replace(self._student(node.cell), seed=0)
                for node in self.nodes.values()
                if node.cell is not None and node.task == task.name and node.needs
            }
            self._episodes[task.name] = max(self._count(cell, "buffer_episodes") for cell in students)
        episodes = self._episodes[task.name]
        own = {"teacher": teacher.folder, "buffer_episodes": episodes}
        words, config = self._lines.stage("kd_export", task, **own)
        folder = self._buffer_folder(task, teacher)
        environment = {
            "env_args": checkpoints.unseeded(config["env_args"]),
            **{key: config[key] for key in ("common_reward", "reward_scalarisation", "embedding_dtype")},
        }
        other, others = self._buffers.setdefault(folder, (task.name, environment))
        if others != environment:
            raise UserError(
                f"tasks {other} and {task.name} have one teacher, and so one expert buffer, but other env_args, "
                "rewards or embedding_dtype: put them into two files"
            )
        return words, Exported(folder, episodes, environment)

    def _buffer_folder(self, task: Task, teacher: _Teacher) -> Path:
        run = SimpleNamespace(
            expert_buffer="", local_results_path=self.results, map_name=self._lines.environment(task)[1]
        )
        return stages.buffer_folder(run, SimpleNamespace(sha256={"agent.th": teacher.sha256}))  # type: ignore[arg-type]

    def _job(
        self,
        node: Node,
        words: tuple[str, ...],
        proof: Proof,
        key: str,
        goes_on: bool = True,
    ) -> Job:
        return Job(
            label=node.label,
            kind=node.kind,
            key=hashlib.sha256(key.encode()).hexdigest()[:16],
            words=words,
            proof=proof,
            results=self.results,
            cpus=self.suite.cpus_of(node.method),
            retries=self.suite.retries,
            goes_on=goes_on,
            directory=Path.cwd(),
            checkout=os.environ.get("EPYMARL_HOME", ""),
        )


def _read_teacher(folder: Path) -> _Teacher:
    """Read a teacher's facts. EPyMARL's own checkpoints have none, and a folder named by its steps."""
    sha256 = artifacts.weights_sha256(folder)
    if (folder / artifacts.FACTS_FILE).is_file():
        return _Teacher(folder, sha256, artifacts.read_facts(folder)["steps"])
    return _Teacher(folder, sha256, int(folder.name) if folder.name.isdigit() else 0)
