"""What a decision costs: EPyMARL's teacher and students, and ours in torch, numpy, ONNX Runtime and C, in one run.

    python benchmarks/latency.py --json latency.json                       # beside the bundled runtime
    EPYMARL_HOME=~/epymarl python benchmarks/latency.py --json latency.json  # beside a real EPyMARL

Every subject is timed once a round, in an order drawn anew, and each ratio is taken within a round, so that whatever
else the machine does meets both alike. One thread throughout, and its CPU time, so that what others compute meanwhile
does not count. Networks are untrained: the arithmetic is the same. `--limits` says what the students see; the teacher
sees everything.

A table is of one decision of one agent, the widest, or of the whole team, one agent after the other on one core. Rows:
EPyMARL's controller with its teacher and with a network of the students' width, which decides for the team in one call;
torch, our controller; numpy, onnx, int8 and ctypes (C -O3), `act` of the robot's runtime with its checks, and beside
each its `_session`, the network alone; teacher_onnx, the teacher's network alone; c_o2 and c_o3, timed inside the C.
"Alone" is EPyMARL's call in a team of one. `outside_c_us` is what ctypes takes beyond c_o3, the same C: the checks and
the way into it. `cache_share` is how fast c_o3 reads an agent's weights, each once a decision, as a share of how fast 8
KB are read over and over: of what the first-level cache gives.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1] / "src")]

import latency_c  # noqa: E402
import latency_teams  # noqa: E402
import measured  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from latency_teams import EPISODE, HOST, SIZES, TEACHER_WIDTH, Size, Students, Timed  # noqa: E402
from measured import spread  # noqa: E402

from kd_core.costs.flops import closed_formula  # noqa: E402
from kd_core.costs.footprint import parameter_count  # noqa: E402
from kd_envs.hetero_mask.presets import LIMITS  # noqa: E402
from kd_marl.deploy import export as exporting  # noqa: E402
from kd_marl.deploy import int8, onnx_graph  # noqa: E402
from kd_marl.deploy.weights import agent_weights  # noqa: E402
from kd_onboard.agent import OnboardAgent  # noqa: E402
from kd_onboard.backend import Backend  # noqa: E402
from kd_onboard.bundle import Bundle, read_bundle  # noqa: E402
from kd_onboard.c_backend import CBackend  # noqa: E402
from kd_onboard.numpy_backend import NumpyBackend  # noqa: E402
from kd_onboard.onnx_backend import OnnxBackend  # noqa: E402
from kd_onboard.profile import AgentProfile  # noqa: E402

# Of one subject in one round: long against the clock, short against what else the machine does.
BLOCK_S = 0.002
BASE, TEACHER_ONNX = "epymarl_teacher", "teacher_onnx"


@dataclasses.dataclass(frozen=True)
class Subject:
    """Something that decides.

    Attributes:
        scope: ``agent`` (one decision of the widest agent) or ``team`` (one of each, one after the other or jointly).
        name: key in the JSON.
        flops: of that decision.
        run: times it.
    """

    scope: str
    name: str
    flops: int
    run: Timed


def subjects(team: Students, width: int, bundle: Bundle, folder: Path) -> list[Subject]:
    """Build all that is timed at one task's sizes; ``width`` is that of EPyMARL's narrow network."""
    size = team.size
    teacher = closed_formula(size.teacher_inputs, TEACHER_WIDTH, size.n_actions)
    narrow = closed_formula(size.teacher_inputs, width, size.n_actions)
    shown = latency_teams.recorded(size)
    found = []
    boards = _boards(bundle, folder)
    teacher_board = _teacher_board(size, bundle)
    for scope, chosen in (("agent", [team.widest]), ("team", list(range(size.n_agents)))):
        agents, count, student = [bundle.agents[i] for i in chosen], len(chosen), team.flops(chosen)
        features, available = [team.seen(shown, i) for i in chosen], shown.available.take(chosen, axis=1)

        def add(name: str, flops: int, run: Timed, scope: str = scope) -> None:
            found.append(Subject(scope, name, flops, run))

        add(BASE, count * teacher, latency_teams.host_timed(size, TEACHER_WIDTH, count))
        add("epymarl_student_width", count * narrow, latency_teams.host_timed(size, width, count))
        add("torch", student, latency_teams.student_timed(team, chosen))
        for name, every in boards.items():
            backends = [every[i] for i in chosen]
            add(name, student, _acting(agents, backends, features, available))
            add(f"{name}_session", student, _deciding(backends))
        # One network for all agents, as EPyMARL's teacher is.
        add(TEACHER_ONNX, count * teacher, _deciding([teacher_board] * count))
        for level in latency_c.LEVELS:
            made = latency_c.library(bundle, agents, level, folder)
            add(f"c_{level}", student, latency_c.timed(made, features, available))
    return found


def _teacher_board(size: Size, bundle: Bundle) -> Backend:
    """Build the teacher in ONNX Runtime, exported as the students are."""
    wide = dataclasses.replace(bundle.agents[0], inputs=size.teacher_inputs, width=TEACHER_WIDTH)
    model = onnx_graph.policy_model(agent_weights(latency_teams.teacher_network(size))).SerializeToString()
    return OnnxBackend(model, wide, "the teacher")


def _boards(bundle: Bundle, folder: Path) -> dict[str, list[Backend]]:
    """Build for each name a backend of each agent, as `kd_onboard` does."""
    found: dict[str, list[Backend]] = {"numpy": [], "onnx": [], "int8": [], "ctypes": []}
    for agent in bundle.agents:
        assert agent.onnx is not None and agent.c is not None, "an export has both"
        weights = bundle.weights(agent)
        found["numpy"].append(NumpyBackend(weights, agent))
        found["onnx"].append(OnnxBackend(bundle.read(agent.onnx), agent, agent.onnx))
        found["int8"].append(OnnxBackend(int8.quantise(weights), agent, "int8"))
        found["ctypes"].append(CBackend(latency_c.library(bundle, [agent], "o3", folder), agent.c.prefix, agent))
    return found


def _acting(
    agents: Sequence[AgentProfile], backends: Sequence[Backend], features: Sequence[np.ndarray], available: np.ndarray
) -> Timed:
    """Time `OnboardAgent.act` of each agent, checks included: what a robot's Python calls.

    Args:
        agents: who acts.
        backends: theirs.
        features: of each agent its own, ``(rows, its inputs)``.
        available: ``(rows, agents, actions)``.
    """
    team = [OnboardAgent(agent, backend, "raise") for agent, backend in zip(agents, backends, strict=True)]
    rows = [
        [(agent.act, features[i][row], available[row, i]) for i, agent in enumerate(team)]
        for row in range(len(available))
    ]

    def run(decisions: int) -> float:
        started = time.thread_time()
        for k in range(decisions):
            for act, seen, allowed in rows[k % len(rows)]:
                act(seen, allowed)
        return time.thread_time() - started

    return run


def _deciding(backends: Sequence[Backend]) -> Timed:
    """Time the backends alone, on what their buffers hold: no checks, and of ONNX Runtime nothing but its own call."""
    rng = np.random.default_rng(0)
    # With the backend, whose buffers the call reads and writes.
    calls: list[tuple[Callable[[], Any], Backend]] = []
    for backend in backends:
        backend.features[:] = rng.standard_normal(backend.features.shape)
        backend.available[:] = True
        calls.append((backend.steps[0][0] if isinstance(backend, OnnxBackend) else backend.decide, backend))

    def run(decisions: int) -> float:
        started = time.thread_time()
        for _ in range(decisions):
            for call, _ in calls:
                call()
        return time.thread_time() - started

    return run


def interleave(runs: Sequence[Timed], rounds: int, block_s: float = BLOCK_S, seed: int = 0) -> np.ndarray:
    """Time every run once a round, in an order drawn anew each round.

    Returns:
        Seconds of one decision, ``(rounds, runs)``.
    """
    counts = []
    for run in runs:
        run(2)
        once = min(run(2) / 2 for _ in range(3))
        counts.append(max(1, round(block_s / max(once, 1e-9))))
    order, rng = list(range(len(runs))), random.Random(seed)
    seconds = np.empty((rounds, len(runs)))
    for row in seconds:
        rng.shuffle(order)
        for i in order:
            row[i] = runs[i](counts[i]) / counts[i]
    return seconds


def measure_task(size: Size, limits: str, width: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Measure everything at one task's sizes."""
    team = latency_teams.students(size, limits, width)
    run = latency_teams.untrained_run(size.task, size.env, team.mask, team.widths, size.n_actions, limits=limits)
    exporting.export(run, folder / "bundle", EPISODE, None, exporting.Options(int8=False, latency=False))
    bundle = read_bundle(folder / "bundle")
    timed = subjects(team, width, bundle, folder)
    read, read_bytes = latency_c.read_cache(folder)
    with torch.enable_grad():
        seconds = interleave([*(subject.run for subject in timed), read], rounds)
    place = {(subject.scope, subject.name): i for i, subject in enumerate(timed)}
    found: dict[str, Any] = {
        "sizes": dataclasses.asdict(size),
        "limits": limits,
        "student_width": width,
        "students": {"inputs": team.inputs, "widths": team.widths, "one_agent": team.widest},
        "agent": {},
        "team": {},
    }
    # EPyMARL's call decides for the whole team; `alone` is the same call in a team of one.
    joint, alone = place["team", BASE], place["agent", BASE]
    for i, subject in enumerate(timed):
        entry = {
            "us": spread(1e6 * seconds[:, i]),
            "flops": subject.flops,
            "speedup_vs_epymarl": spread(seconds[:, joint] / seconds[:, i]),
            "flops_ratio": timed[joint].flops / subject.flops,
            "speedup_vs_teacher_onnx": spread(seconds[:, place[subject.scope, TEACHER_ONNX]] / seconds[:, i]),
        }
        if subject.scope == "agent":
            entry["speedup_vs_epymarl_alone"] = spread(seconds[:, alone] / seconds[:, i])
            entry["flops_ratio_alone"] = timed[alone].flops / subject.flops
        found[subject.scope][subject.name] = entry
    found["outside_c_us"] = {
        scope: spread(1e6 * (seconds[:, place[scope, "ctypes"]] - seconds[:, place[scope, "c_o3"]]))
        for scope in ("agent", "team")
    }
    # Of the two biases of a gate the program has one.
    weights = 4 * parameter_count(team.inputs[team.widest], wide := team.widths[team.widest], size.n_actions) - 8 * wide
    rate = weights / seconds[:, place["agent", "c_o3"]]
    found["cache_share"] = spread(rate / (read_bytes / seconds[:, -1]))
    return found


def text(result: Mapping[str, Any]) -> str:
    """Write for each task the tables of one agent's decision and of the team's."""
    lines = [f"Medians of {result['rounds']} interleaved rounds, quartiles in brackets; ratios within a round."]
    for name, task in result["tasks"].items():
        students = task["students"]
        lines.append(
            f"### {name}, limits {task['limits']}: students of {students['inputs']} features and widths "
            f"{students['widths']}, one agent is agent {students['one_agent']}"
        )
        for scope in ("agent", "team"):
            lines.append(measured.table([{scope: subject, **entry} for subject, entry in task[scope].items()]))
        outside = ", ".join(f"{scope} {measured.cell(us)}" for scope, us in task["outside_c_us"].items())
        lines.append(f"Microseconds that backend c spends outside the C: {outside}")
        share = measured.cell(task["cache_share"])
        lines.append(f"An agent's C -O3 reads its weights at this share of what the first-level cache gives: {share}")
    return "\n\n".join(lines)


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the host, then all tasks so far."""
    torch.set_num_threads(1)
    host, tasks = {"name": HOST.name, "commit": HOST.commit}, {}
    yield {"host": host, "rounds": args.rounds, "limits": args.limits}
    for size in SIZES:
        if args.size is None or size.name in args.size:
            with tempfile.TemporaryDirectory() as folder:
                tasks[size.name] = measure_task(size, args.limits, args.width, args.rounds, Path(folder))
            yield {"tasks": tasks}


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = measured.options(__doc__)
    parser.add_argument("--width", type=int, default=32, help="of the students (the paper's widest: 32), but under lha")
    parser.add_argument("--limits", choices=LIMITS, default="fo", help="what the students see; lha: their widths too")
    parser.add_argument("--rounds", type=int, default=101, help="times that everything is timed")
    parser.add_argument("--size", choices=[size.name for size in SIZES], action="append", help="only these sizes")
    return measured.command(parser, words, measure, text)


if __name__ == "__main__":
    sys.exit(main())
