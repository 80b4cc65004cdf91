"""The public Python API: teacher, student, evaluation, bundle and report from a program or a notebook.

Trainings and evaluations run in a child process of the plug-in's own command line, because EPyMARL and Sacred keep
state for a whole process. So a call computes what the same command computes, and its error is the command's one line.
What a run says goes to a log file in ``<results>/logs``.
"""

from __future__ import annotations

import ast
import logging
import numbers
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kd_core import checkpoints, files, stages
from kd_core.artifacts import teacher as artifacts
from kd_core.artifacts.teacher import TeacherArtifact
from kd_core.config import assemble, parse_command, task_key
from kd_core.errors import UserError
from kd_core.host import Host, get_host
from kd_core.places import MAIN, PROGRAM
from kd_marl import retrain
from kd_marl.processes import process
from kd_marl.runs import student_run
from kd_marl.runs.folders import results_folders
from kd_marl.runs.student_run import EXPORTED_AGENT, StudentRun
from kd_marl.work import Work
from kd_onboard.bundle import Bundle, read_bundle

# Keys that have a parameter, or that would make another run than the one that is returned.
_SET_HERE = {
    "local_results_path": "give results=",
    "evaluate": "call evaluate() with the student",
    "checkpoint_path": "call load_student() or load_teacher()",
    "load_step": "call load_student() or load_teacher()",
}

# Imported when they are called: they need packages of an extra.
_EXPORT = Work("kd_marl.deploy.command_export:export_student", host=True, extra="onboard")
_OPTIONS = Work("kd_marl.deploy.export:Options", host=True, extra="onboard")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TeacherInfo:
    """What `teachers` says of a teacher, from its ``teacher.json`` (docs/reference/formats/teacher.md).

    Attributes:
        name: what `load_teacher` and ``teacher=`` take: a bundled teacher's name, else its folder.
        folder: where it is.
        bundled: whether it comes with the package.
        task: the task it was trained on.
        steps: environment steps of its training; None if unknown.
        hidden_dim: width of its recurrent layer.
        seed: of its training; None if unknown.
        return_mean: mean return of its greedy policy over the episodes of its last test; None if it has had none.
        return_std: standard deviation of that return over episodes; None if it has had no test.
    """

    name: str
    folder: Path
    bundled: bool
    task: str
    steps: int | None
    hidden_dim: int
    seed: int | None
    return_mean: float | None
    return_std: float | None


def teachers(*results: Path | str) -> list[TeacherInfo]:
    """List the teachers that a run can use: those in results folders, newest first, then the bundled ones.

    A damaged ``teacher.json`` is passed over with a logged warning. Source: `kd_core.artifacts.teacher`.

    Args:
        *results: results folders; none: ``results`` of the current folder, of the project and of the EPyMARL checkout.
    """
    folders = [Path(folder).expanduser() for folder in results] or results_folders()
    found = artifacts.teacher_folders([folder / "models" for folder in folders])
    listed = []
    for folder in [*found, *artifacts.teacher_folders([stages.ZOO])]:
        try:
            listed.append(_teacher_info(folder))
        except UserError as error:
            _log.warning("passing over: %s", error)
    return listed


def load_teacher(
    name_or_path: Path | str, *, config: Path | str | None = None, n_agents: int | None = None
) -> TeacherArtifact:
    """Load a teacher and verify the sha256 of its weights. Source: `kd_core.artifacts.teacher`.

    Args:
        name_or_path: a bundled teacher's name, the folder of a teacher, or that of an EPyMARL mappo or ippo checkpoint.
        config: for an EPyMARL checkpoint, the ``config.json`` of its Sacred run, if it is not found near it.
        n_agents: for an EPyMARL checkpoint, the number of agents, if its config does not tell.

    Returns:
        Its facts, and the state dicts of actor and critic: float32 tensors on the CPU.

    Raises:
        UserError: there is no such teacher, its weights are damaged or altered, or a fact cannot be found.
    """
    folder = artifacts.named_teacher(str(name_or_path), stages.ZOO)
    return artifacts.load_teacher(folder, config=config, n_agents=n_agents, results_dirs=results_folders())


def train_teacher(
    task: str, env: str, *, seed: int = 1, results: Path | str = "results", config: str = "kd_teacher", **keys: Any
) -> TeacherArtifact:
    """Train a teacher (stage 1, recurrent MAPPO) as ``python src/main.py --config=kd_teacher`` does.

    Args:
        task: e.g. ``pz-mpe-simple-spread-v3``, or a map such as ``3m``.
        env: as ``--env-config``: ``mpe``, ``smax``, ``gymma``, ... or a YAML file.
        seed: of the run.
        results: results folder, made if missing.
        config: as ``--config``: ``kd_teacher`` or a variant of it.
        **keys: any key of the YAML files, as after ``with``; those of the environment as ``env_args={...}``.

    Returns:
        The finished teacher.

    Raises:
        UserError: an unknown name or key, or the run failed; the message is the run's own.
    """
    host = get_host()
    words = _words(host, config, env, task, Path(results), seed=seed, **keys)
    made = _made(host, words, seed, Path(results))
    return artifacts.load_teacher(made.folder)


def distil(
    task: str,
    env: str,
    limits: Literal["fo", "lh", "lha"] = "lh",
    *,
    teacher: TeacherArtifact | Path | str = "",
    seed: int = 1,
    results: Path | str = "results",
    config: str = "kd_student",
    **keys: Any,
) -> StudentRun:
    """Distil students (stage 2) as ``python src/main.py --config=kd_student`` does, and whatever they need first.

    The expert buffer is exported unless the results folder holds it. Source: Algorithm 1 and Eqs. 2 to 20, as
    implemented by `kd_learners.student_learner`.

    Args:
        task: e.g. ``pz-mpe-simple-spread-v3``, or a map such as ``3m``.
        env: as ``--env-config``: ``mpe``, ``smax``, ``gymma``, ... or a YAML file.
        limits: ``fo`` (agents observe everything), ``lh`` (limited, different observations) or ``lha`` (different
            widths too).
        teacher: a loaded teacher, a folder or a bundled teacher's name; "": the newest of the task in ``results``, else
            the bundled one; ``train``: train one first.
        seed: of the run.
        results: results folder, made if missing.
        config: as ``--config``: ``kd_student`` or a variant of it whose students are recurrent.
        **keys: any key of the YAML files, as after ``with``; those of the environment as ``env_args={...}``.

    Returns:
        The finished run: its students, and in ``summary`` the numbers of its ``summary.json``.

    Raises:
        UserError: an unknown name or key, students that cannot be loaded again, or the run failed; the message is the
            run's own.
    """
    host = get_host()
    own = {"limits": limits, "teacher": _spec(teacher), "seed": seed}
    words = _words(host, config, env, task, Path(results), **own, **keys)
    agent = str(keys.get("agent", assemble(host, parse_command(words)).get("agent")))
    if agent != EXPORTED_AGENT:
        raise UserError(
            f"{config} has agent={agent}, and only students with agent={EXPORTED_AGENT} are loaded again: use "
            "python src/main.py for it"
        )
    if keys.get("save_model", True) is not True:
        raise UserError("the student is loaded from what its run saves: leave save_model out")
    return load_student(_made(host, words, seed, Path(results)).folder)


def load_student(path: Path | str) -> StudentRun:
    """Load a trained student and the result of its run. Source: `kd_marl.runs.student_run`.

    Args:
        path: the run's Sacred folder, its folder below ``models``, or one folder of steps in that.

    Returns:
        The run; ``network`` is on the CPU in float32, ``roles`` has the shape (roles, width of the widest agent).

    Raises:
        UserError: there is no finished student with a result, or something is damaged.
    """
    return student_run.load_student(path)


def evaluate(
    student: StudentRun, episodes: int | None = None, *, teacher: TeacherArtifact | Path | str = ""
) -> dict[str, Any]:
    """Play teacher, student and random policy in the same episodes, as ``evaluate=True`` does.

    The seed of the run fixes the episodes. Nothing is added to the results folder but a log.

    Args:
        student: a loaded student.
        episodes: how many each policy plays; None: as many as in the run's own evaluation.
        teacher: where its teacher is, if it is not where the run found it.

    Returns:
        The content of ``summary.json`` (docs/reference/formats/run.md). ``teacher``, ``student`` and ``random`` have
        ``return_mean``, ``return_std`` (over episodes), ``length_mean`` (steps) and ``win_rate``. Beside them stand
        ``retention``, ``agreement``, ``flops_per_decision_student`` and ``decision_us_student`` (microseconds).

    Raises:
        UserError: ``episodes`` is not positive, the teacher is another one or missing, or the run failed.
    """
    given = _spec(teacher) or student.facts["teacher"]["path"]
    folder = artifacts.named_teacher(given, stages.ZOO)
    if artifacts.weights_sha256(folder) != student.facts["teacher"]["sha256"]["agent.th"]:
        raise UserError(f"the teacher in {folder} is not the one that the student was distilled from: give that one")
    changes = {
        "evaluate": True,
        "checkpoint_path": student.checkpoint.parent,
        "load_step": int(student.checkpoint.name),
        "eval_episodes": student.config["eval_episodes"] if episodes is None else episodes,
        "seed": student.facts["seed"],
        # Several are named by the command itself.
        **({} if "more_teachers" in student.facts else {"teacher": folder}),
    }
    with tempfile.TemporaryDirectory(prefix="kd-marl-") as results:
        updates = [f"{key}={_text(value)}" for key, value in {**changes, "local_results_path": results}.items()]
        words = shlex.split(student.facts["command"])[2:]
        _run(retrain.merged(words, updates), student.results / "logs")
        (summary,) = Path(results).glob("sacred/**/summary.json")
        return files.read_json(summary)


def export(
    student: StudentRun,
    folder: Path | str,
    *,
    int8: bool | None = None,
    latency: bool = True,
    on_fault: Literal["raise", "hold", "noop"] = "raise",
    measure_sensors: int | None = None,
    buffer: Path | str | None = None,
    force: bool = False,
    c_weights: Literal["float32", "int8"] | None = None,
) -> Bundle:
    """Write a student's bundle as ``kd-marl export`` does: weights, ONNX and C99 of each agent, and their profile.

    Needs the extra ``onboard``. Source: `kd_marl.deploy.bundle`.

    Args:
        student: a loaded student.
        folder: where; it must not exist, unless ``force`` replaces the bundle in it.
        int8: try int8 weights too, which needs the expert buffer; None: for students that do not talk.
        latency: measure what a decision takes on this machine, in microseconds.
        on_fault: what agents do with input that they must not act on: raise an error, hold the last action, do nothing.
        measure_sensors: episodes of each measurement of the return with and without each block of features; None: none.
        buffer: the expert buffer, if it is not where the run left it.
        force: replace a bundle that is there.
        c_weights: form of the C; int8 needs the expert buffer, and is written where 99 % of the decisions are those of
            float32. None: what each agent's budget says, else float32.

    Returns:
        The bundle as read back from disk, every file checked.

    Raises:
        UserError: the folder is taken, the buffer is of another student, an agent has no action that does nothing,
            the disk is full, or a package of the extra is not installed.
    """
    target = Path(folder).expanduser().absolute()
    work, options = _EXPORT.load(), _OPTIONS.load()
    expert = student.find_buffer(None if buffer is None else Path(buffer).expanduser())
    work(student, target, expert, options(int8, latency, on_fault, None, c_weights), measure_sensors, force)
    return read_bundle(target)


def write_report(sources: Path | str | Sequence[Path | str], to: Path | str, *, keep: Path | str | None = None) -> Path:
    """Write the report of finished runs as ``kd-marl report`` does: HTML, Markdown, figures, marl-eval's JSON.

    Needs the extra ``report``. Source: `kd_marl.report`.

    Args:
        sources: results folders, searched for runs with a ``summary.json``, and evidence files; one or several.
        to: folder of the page, made if missing.
        keep: folder of the evidence files to which the runs are added; None: no evidence is written.

    Returns:
        The folder.

    Raises:
        UserError: there is no finished run, a file is damaged, or a package of the extra is not installed.
    """
    places = [sources] if isinstance(sources, Path | str) else sources
    write = Work("kd_marl.report.command:write", extra="report").load()
    write([Path(place) for place in places], Path(to), keep=None if keep is None else Path(keep))
    return Path(to)


def _teacher_info(folder: Path) -> TeacherInfo:
    facts = artifacts.read_facts(folder)
    greedy = (facts["test"] or {}).get("greedy") or {}
    bundled = folder.parent == stages.ZOO
    return TeacherInfo(
        name=folder.name if bundled else str(folder),
        folder=folder,
        bundled=bundled,
        return_mean=greedy.get("return_mean"),
        return_std=greedy.get("return_std"),
        **{key: facts[key] for key in ("task", "steps", "hidden_dim", "seed")},
    )


def _spec(teacher: TeacherArtifact | Path | str) -> str:
    """Write a teacher as ``teacher=`` takes it."""
    return str(teacher.folder if isinstance(teacher, TeacherArtifact) else teacher)


def _words(host: Host, config: str, env: str, task: str, results: Path, **keys: Any) -> list[str]:
    """Make a stage's command line.

    Raises:
        UserError: a key that the caller must not set, or an unknown name or key.
    """
    for key, instead in _SET_HERE.items():
        if key in keys:
            raise UserError(f"'{key}' is not for this call: {instead}")
    given = {task_key(host, env): task, "local_results_path": results.expanduser().absolute(), **keys}
    words = [f"--config={config}", f"--env-config={env}", "with", *_updates(given)]
    # Refuses what is unknown before anything is started.
    assemble(host, parse_command(words))
    return words


def _updates(keys: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in keys.items():
        if isinstance(value, Mapping) and key != "masks":
            yield from _updates(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={_text(value)}"


def _text(value: Any) -> str:
    """Write a value so that Sacred reads the same one."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str):
        try:
            ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return value
        return repr(value)
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return repr(int(value) if isinstance(value, numbers.Integral) else float(value))
    return repr(value)


def _made(host: Host, words: Sequence[str], seed: int, results: Path) -> checkpoints.Checkpoint:
    """Run a stage and find what it has made."""
    log = _run(words, results / "logs")
    made = stages.made_by(host, words, seed)
    if made is None or not made.finished:
        raise UserError(f"the run has ended without a finished checkpoint; what it said is in {log}")
    return made


def _run(words: Sequence[str], logs: Path) -> Path:
    """Run ``python src/main.py`` in a child process that ends with this one; returns its log.

    Raises:
        UserError: it failed; the message is its own.
    """
    log = logs.expanduser().absolute() / f"{Path(words[0].partition('=')[2]).stem}.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as said:
            start = said.tell()
            _log.info("%s; its log is %s", shlex.join([*PROGRAM, *words]), log)
            run = process.start([sys.executable, str(MAIN), *words], said, one_thread=False)
            try:
                status = run.wait()
            except BaseException:
                process.stop([run])
                raise
    except OSError as error:
        raise UserError(f"cannot write {log} ({error.strerror or error}): give another results folder") from None
    if status:
        raise UserError(process.last_line(log, start).removeprefix("error: "))
    return log
