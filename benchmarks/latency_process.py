"""What a policy takes besides time: cold start, memory, bytes, instructions, and energy where it is readable."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import latency_c
import numpy as np
from latency_teams import TEACHER_WIDTH, Students, Timed

from kd_onboard.bundle import Bundle

BENCHMARKS = Path(__file__).resolve().parent
SOURCES = BENCHMARKS.parent / "src"
RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
_ENERGY_S = 0.5

_ONBOARD = """
import numpy, sys
from kd_onboard import OnboardAgent
agent = OnboardAgent.load(sys.argv[1], int(sys.argv[2]), sys.argv[3])
agent.act(numpy.zeros(agent.profile.inputs, numpy.float32), numpy.ones(agent.profile.n_actions, bool))
print("decided", flush=True)
sys.stdin.read()
"""
_TORCH = """
import sys
import torch
from latency_teams import SIZES, host_timed, student_timed, students
torch.set_num_threads(1)
name, limits, width = sys.argv[1], sys.argv[2], int(sys.argv[3])
size = next(size for size in SIZES if size.name == name)
if limits == "host":
    host_timed(size, width, size.n_agents)(1)
else:
    student_timed(students(size, limits, width), range(size.n_agents))(1)
print("decided", flush=True)
sys.stdin.read()
"""


def takes(team: Students, width: int, bundle: Bundle, folder: Path, starts: int) -> dict[str, Any]:
    """Cold start, memory, bytes and instructions of a task's students: of the widest agent, in torch of the team."""
    agent, name = bundle.agents[team.widest], team.size.name
    onboard = [sys.executable, "-c", _ONBOARD, str(bundle.folder), str(agent.index)]
    main = latency_c.program(bundle, agent, latency_c.SIZED, folder)
    commands = {
        "epymarl_teacher": [sys.executable, "-c", _TORCH, name, "host", str(TEACHER_WIDTH)],
        "torch": [sys.executable, "-c", _TORCH, name, team.limits, str(width)],
        **{backend: [*onboard, backend] for backend in ("numpy", "onnx", "c")},
        "c_program": [str(main)],
    }
    counted = {level: latency_c.instructions(bundle, agent, f, folder) for level, f in latency_c.COUNTED.items()}
    return {
        "process": {name: process(command, folder, starts) for name, command in commands.items() if starts},
        "size_bytes": {
            "agent_os": latency_c.object_bytes(bundle, agent, folder),
            "program_os": latency_c.program_bytes(main),
        },
        "instructions": counted,
    }


def process(command: Sequence[str], cache: Path, starts: int) -> dict[str, float | None]:
    """Start a program that says a line once it has decided, and then waits.

    Args:
        command: its command line.
        cache: for compiled C, so that the first start compiles and the others do not.
        starts: how many are timed.

    Returns:
        ``start_ms``, median of ``starts`` after one that warms the disk's cache, and ``memory_mib``, its peak.
    """
    paths = os.pathsep.join((str(BENCHMARKS), str(SOURCES)))
    env = {**os.environ, "PYTHONPATH": paths, "KD_ONBOARD_CACHE": str(cache / "compiled"), "OMP_NUM_THREADS": "1"}
    times, peaks = [], []
    for _ in range(1 + starts):
        started = time.perf_counter()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, env=env, text=True, **pipes) as child:
            said = child.stdout.readline()
            times.append(time.perf_counter() - started)
            if said:
                peaks.append(_peak_kib(child.pid))
            child.stdin.close()
        if not said or child.returncode:
            raise SystemExit(f"error: {' '.join(command[:2])} ... ended with status {child.returncode}")
    known = [peak for peak in peaks if peak is not None]
    return {
        "start_ms": 1e3 * float(np.median(times[1:])),
        "memory_mib": float(np.median(known)) / 1024 if known else None,
    }


def _peak_kib(pid: int) -> int | None:
    """The most memory that a process has had, as Linux says; None elsewhere. `getrusage` would count its parent's."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)


def energy_uj(run: Timed, meter: Path = RAPL) -> float | None:
    """Microjoules of one decision, the whole package's; None where the meter cannot be read."""
    try:
        before = int(meter.read_text())
    except (OSError, ValueError):
        return None
    once, decisions, started = max(run(10) / 10, 1e-9), 0, time.perf_counter()
    before = int(meter.read_text())
    while time.perf_counter() - started < _ENERGY_S:
        block = max(1, round(0.05 / once))
        run(block)
        decisions += block
    used = int(meter.read_text()) - before
    # The counter starts again from zero now and then.
    return used / decisions if used > 0 else None
