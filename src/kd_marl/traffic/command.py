"""The work of `kd-marl traffic`: who makes vehicles wait how long, in the same episodes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from kd_controllers.hetero_mac import HeteroMAC
from kd_controllers.policy_mac import PolicyMAC
from kd_controllers.random_mac import RandomMAC
from kd_core import files
from kd_core.artifacts import teacher as artifacts
from kd_core.artifacts.teacher import TeacherArtifact
from kd_core.config import assemble, parse_command
from kd_core.errors import UserError
from kd_core.host import Host, get_host
from kd_core.metrics.intervals import mean_interval
from kd_envs.hetero_mask.mask import ObservationMask
from kd_envs.traffic import CONTROLS
from kd_learners.frozen_teacher import FrozenTeacher
from kd_marl.evaluation.episodes import PairedEpisodes
from kd_marl.plugin import register
from kd_marl.processes.workers import workers_watched
from kd_marl.runs.folders import results_folders
from kd_marl.runs.student_run import StudentRun, load_student, run_arguments
from kd_marl.stress.measure import find_teacher
from kd_runners import environments

_BASELINES = CONTROLS[1:]
FORMAT, VERSION = "kd-marl/waiting", 1

Maker = Callable[[dict[str, Any], Any], PolicyMAC]
# Who controls -> seconds that a vehicle waited on average, an episode each.
Waited = dict[str, np.ndarray]


def traffic(args: argparse.Namespace) -> int:
    """Play, print the table and write it to a file; returns the exit status.

    Raises:
        UserError: there is nothing to play, a run is of another environment, or runs are of different networks.
    """
    host = get_host()
    register.register(host)
    if bool(args.runs) == bool(args.map_name):
        raise UserError("give students' runs, or --map-name NAME (for example --map-name cologne1) without any")
    results = [_run(host, load_student(folder), args) for folder in args.runs] or [_network(host, args)]
    tasks = sorted({task for task, _ in results})
    if len(tasks) > 1:
        raise UserError(f"the runs are of {' and '.join(tasks)}: give runs of one network")
    rows = summary_rows([waited for _, waited in results])
    Console().print(_table(tasks[0], rows, len(results), args.episodes))
    if args.out:
        content = {"format": FORMAT, "version": VERSION, "task": tasks[0], "episodes": args.episodes, "rows": rows}
        content["runs"] = [str(folder) for folder in args.runs]
        content["waited"] = [{name: list(map(float, each)) for name, each in waited.items()} for _, waited in results]
        files.write_json(args.out, content)
        print(f"written to {args.out}")
    return 0


def _run(host: Host, run: StudentRun, args: argparse.Namespace) -> tuple[str, Waited]:
    settings, task = run_arguments(host, run)
    if settings.env != "traffic":
        raise UserError(f"{run.record} is a run of env '{settings.env}': give runs of --env-config=traffic")
    teacher = find_teacher(run, args.teacher, [run.results, *results_folders()])
    artifacts.check_compatible(teacher, task)

    def student(scheme: dict[str, Any], options: Any) -> PolicyMAC:
        mac = HeteroMAC(scheme, None, options, run.mask)
        mac.agent.load_state_dict(run.network.state_dict())
        mac.greedy = True
        return mac

    return task.name, _play(host, settings, args.episodes, run.mask, {"teacher": teacher, "student": student})


def _network(host: Host, args: argparse.Namespace) -> tuple[str, Waited]:
    words = ["--config=mappo", "--env-config=traffic", "with", f"env_args.map_name={args.map_name}"]
    config = assemble(host, parse_command(words))
    config["env_args"]["map_name"] = args.map_name
    settings = SimpleNamespace(**config, seed=args.seed, device="cpu")
    task = environments.prepare(host, settings)
    policies: dict[str, Any] = {}
    if args.teacher:
        policies["teacher"] = artifacts.load_teacher(
            args.teacher, n_agents=task.n_agents, results_dirs=results_folders()
        )
        artifacts.check_compatible(policies["teacher"], task)
    return task.name, _play(host, settings, args.episodes, None, policies)


def _play(
    host: Host, args: SimpleNamespace, episodes: int, mask: ObservationMask | None, policies: dict[str, Any]
) -> Waited:
    """Play every control in the same episodes of the whole demand."""
    env_args = {**args.env_args, "episode_seconds": 0}
    waited: Waited = {}
    for name in (*_BASELINES, *policies):
        control = name if name in _BASELINES else "agents"
        options = SimpleNamespace(**{**vars(args), "env_args": {**env_args, "control": control}})
        policy = policies.get(name, lambda scheme, settings: RandomMAC(settings))
        if isinstance(policy, TeacherArtifact):
            policy = _greedy(FrozenTeacher(policy, options))
        paired = PairedEpisodes(host, options, mask, episodes)
        with workers_watched():
            waited[name] = -paired.play(policy, masked=name == "student", label=name.replace("_", " ")).returns
    return waited


def _greedy(teacher: FrozenTeacher) -> Maker:
    teacher.mac.greedy = True
    return lambda scheme, options: teacher.mac


def summary_rows(runs: list[Waited]) -> list[dict[str, Any]]:
    """Summarise what vehicles waited.

    Args:
        runs: of each run, for each control, seconds a vehicle, one number an episode.

    Returns:
        For each control ``control``, ``waiting_time`` [s per vehicle], ``low`` and ``high`` of its 95 % interval (over
        the runs' means, or over the episodes of a single run; null where there is one alone), and ``gain``: its share
        of the teacher's gain over fixed-time control, null without a teacher that gains.
    """
    means = {name: np.array([run[name].mean() for run in runs]) for name in runs[0]}
    fixed = means["fixed_time"].mean()
    gained = fixed - means["teacher"].mean() if "teacher" in means else 0.0
    rows = []
    for name, values in means.items():
        sample = values if len(runs) > 1 else runs[0][name]
        low, high = mean_interval(float(sample.mean()), float(sample.std()), len(sample))
        rows.append(
            {
                "control": name,
                "waiting_time": float(sample.mean()),
                "low": low if np.isfinite(low) else None,
                "high": high if np.isfinite(high) else None,
                "gain": float((fixed - values.mean()) / gained) if gained > 0 else None,
            }
        )
    return rows


def _table(task: str, rows: list[dict[str, Any]], runs: int, episodes: int) -> Table:
    over = f"{runs} runs of {episodes} episodes" if runs > 1 else f"{episodes} episodes"
    table = Table(title=f"{task}: mean waiting time in s per vehicle, 95 % intervals over {over}", title_justify="left")
    for heading in ("control", "waiting time", "interval", "share of the teacher's gain over fixed time"):
        table.add_column(heading, justify="left" if heading == "control" else "right")
    for row in rows:
        interval = "-" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
        gain = "-" if row["gain"] is None else f"{100 * row['gain']:.0f} %"
        table.add_row(row["control"].replace("_", " "), f"{row['waiting_time']:.2f}", interval, gain)
    return table
