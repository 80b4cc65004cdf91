"""The grid of runs behind docs/results.md: their command lines, and which runs on disk count as made by them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from results_families import SEEDS, Family

from kd_marl import resume, stages
from kd_marl.host import get_host
from kd_marl.launch import assemble, parse_command
from kd_marl.suite import records as records_of_suites

ROOT = Path(__file__).resolve().parents[1]
STUDENT, BASELINE, EXPORT = "kd_student", "mappo", "kd_export"
# A run's seed is its cell's.
NOT_COMPARED = records_of_suites.NOT_COMPARED | {"seed"}


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    algorithm: str
    task: str
    setting: str
    seed: int

    @property
    def label(self) -> str:
        """A name for people and for the log file."""
        return f"{self.task}-{self.setting}-{self.algorithm}-seed{self.seed}"


@dataclass(frozen=True)
class Record:
    """A finished run on disk."""

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    commit: str | None
    machine: str

    @property
    def shares_episodes(self) -> bool:
        """Whether it was evaluated in nearly the same episodes as runs with other seeds, as earlier versions did."""
        return "length_mean" not in self.summary.get("student", self.summary.get("policy", {}))


@dataclass
class Grid:
    """What is to be run of a family, where the results are, and which of them count.

    Attributes:
        only: of the family's seeds, those that are meant; None: all of them.
    """

    family: Family
    tasks: tuple[str, ...]
    settings: tuple[str, ...]
    only: tuple[int, ...] | None = None
    results: Path = Path("results")
    zoo: Path = Path("src/zoo")
    _configs: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)

    def cells(self, task: str) -> list[Cell]:
        """Every run of a task: the students, then the baselines if the family has any."""
        baseline_of = self.family.baseline_of
        sights = dict.fromkeys(baseline_of[setting] for setting in self.settings if setting in baseline_of)
        rows = [(STUDENT, setting) for setting in self.settings] + [(BASELINE, sight) for sight in sights]
        return [
            Cell(algorithm, task, setting, seed)
            for algorithm, setting in rows
            for seed in self.seeds(algorithm, setting)
        ]

    def seeds(self, algorithm: str, setting: str) -> tuple[int, ...]:
        """The seeds of one row of a task."""
        row = self.family.seeds[setting] if algorithm == STUDENT else SEEDS
        return tuple(seed for seed in row if self.only is None or seed in self.only)

    def first(self, algorithm: str, task: str, setting: str) -> Cell:
        """The first run of a row."""
        return Cell(algorithm, task, setting, self.seeds(algorithm, setting)[0])

    def teacher(self, task: str) -> dict[str, Any] | None:
        """The facts of the task's bundled teacher, or None if there is none."""
        file = ROOT / self.zoo / task / "teacher.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def buffer(self, task: str) -> Path:
        """The folder of the expert buffer that all students of a task share."""
        teacher = self.teacher(task)
        assert teacher is not None, "a task without a teacher has no buffer"
        args = SimpleNamespace(expert_buffer="", local_results_path=ROOT / self.results, map_name=task)
        return stages.buffer_folder(args, SimpleNamespace(sha256=teacher["sha256"]))  # type: ignore[arg-type]

    def exported(self, task: str) -> bool:
        """Whether that buffer is there whole."""
        wanted = self.config(self.export_words(task))["buffer_episodes"]
        return stages.stored_episodes(self.buffer(task)) >= wanted

    def budget(self, task: str) -> int | None:
        """Environment steps of Stage 2: the buffer's and the student's own; None before the export."""
        if self.teacher(task) is None or not self.exported(task):
            return None
        facts = json.loads((self.buffer(task) / "buffer.json").read_text(encoding="utf-8"))
        return facts["steps"] + self.config(self.words(self.first(STUDENT, task, self.settings[0])))["t_max"]

    def export_words(self, task: str) -> tuple[str, ...]:
        """The command line that exports a task's buffer, or finishes an interrupted export."""
        return self._line(EXPORT, task, f"teacher={self.zoo / task}", "seed=1", "resume=True")

    def words(self, cell: Cell) -> tuple[str, ...]:
        """The command line of a run."""
        family = self.family
        sight = (*family.settings[cell.setting], f"seed={cell.seed}")
        if cell.algorithm == STUDENT:
            return self._line(STUDENT, cell.task, f"teacher={self.zoo / cell.task}", *sight, *family.student_words)
        return self._line(BASELINE, cell.task, *sight, *family.baseline_words, f"t_max={self.budget(cell.task)}")

    def shell_line(self, cell: Cell) -> str:
        """That command line as a reader types it."""
        return " ".join(["python src/main.py", *self.words(cell)])

    def _line(self, algorithm: str, task: str, *words: str) -> tuple[str, ...]:
        where = (f"{self.family.task_key}={task}", f"local_results_path={self.results}")
        return (f"--config={algorithm}", f"--env-config={self.family.name}", "with", *where, *words)

    def config(self, words: Sequence[str]) -> dict[str, Any]:
        """The whole configuration that a command line means today."""
        from sacred.arg_parser import get_config_updates

        if tuple(words) not in self._configs:
            host = get_host()
            merged = assemble(host, parse_command(list(words)))
            updates, _ = get_config_updates(words[words.index("with") + 1 :])
            self._configs[tuple(words)] = host.main.recursive_dict_update(merged, updates)
        return self._configs[tuple(words)]

    def find(self, cell: Cell) -> tuple[Record | None, list[str]]:
        """The newest finished run of a cell, and why others that look like it do not count."""
        if cell.algorithm == BASELINE and self.budget(cell.task) is None:
            return None, []
        wanted, reasons, found = self.config(self.words(cell)), [], None
        for record in records(ROOT / self.results, cell.algorithm, cell.task):
            same = ("limits", "masks_preset", "seed")
            if any(record.config.get(key) != wanted.get(key) for key in same):
                continue
            faults = differences(record.config, wanted) + self._other_teacher(cell, record)
            if faults:
                reasons.append(f"{cell.label}: {record.folder} is not counted: {'; '.join(faults)}")
            else:
                found = record
        return found, reasons

    def done(self, cell: Cell) -> bool:
        """Whether a finished run of a cell counts."""
        return self.find(cell)[0] is not None

    def _other_teacher(self, cell: Cell, record: Record) -> list[str]:
        if cell.algorithm != STUDENT:
            return []
        teacher = self.teacher(cell.task)
        had = record.summary["teacher_artifact"]["sha256"]["agent.th"]
        return [] if teacher and teacher["sha256"]["agent.th"] == had else ["it had another teacher"]


def records(results: Path, algorithm: str, task: str) -> Iterator[Record]:
    """The finished runs of an algorithm on a task, oldest first; a run without a summary was cut short."""
    folders = (results / "sacred" / algorithm / task).glob("*/summary.json")
    for file in sorted(folders, key=lambda file: int(file.parent.name)):
        recorded = {
            name: json.loads((file.parent / f"{name}.json").read_text(encoding="utf-8"))
            for name in ("summary", "config", "run")
        }
        commit, machine = _provenance(recorded["run"])
        yield Record(file.parent, recorded["config"], recorded["summary"], commit, machine)


def _provenance(run: Mapping[str, Any]) -> tuple[str | None, str]:
    """What Sacred noted of a run's source (``+``: with local changes) and machine."""
    experiment, host = run.get("experiment", {}), run.get("host", {})
    repositories = experiment.get("repositories", [])
    commit = repositories[0]["commit"][:7] + ("+" if repositories[0]["dirty"] else "") if repositories else None
    torch = [
        package.replace("==", " ") for package in experiment.get("dependencies", []) if package.startswith("torch=")
    ]
    return commit, ", ".join([host.get("cpu") or "unknown", f"Python {host.get('python_version', 'unknown')}", *torch])


def differences(config: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What makes two configurations compute different things, a line for each key; empty if they are the same."""
    absent = "(absent)"
    lines = []
    config, wanted = resume.telling(config), resume.telling(wanted)
    for key in sorted((set(config) | set(wanted)) - NOT_COMPARED):
        had, has = (settings.get(key, resume.SINCE_ADDED.get(key, absent)) for settings in (config, wanted))
        if key == "env_args":
            had, has = ({name: value for name, value in args.items() if name != "seed"} for args in (had, has))
        if had != has:
            lines.append(f"{key} was {had!r} and is {has!r} now")
    return lines
