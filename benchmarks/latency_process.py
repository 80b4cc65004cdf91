"""What a program takes until its first decision: time from a cold start, and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from latency_teams import TEACHER_WIDTH, Students
from measured import BENCHMARKS, ROOT
from speed_process import kib

from kd_core.errors import UserError
from kd_onboard.bundle import Bundle

PATHS = os.pathsep.join((str(BENCHMARKS), str(ROOT / "src")))

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


def starts(team: Students, width: int, bundle: Bundle, folder: Path, count: int) -> dict[str, Any]:
    """Measure the start and memory of the widest agent's programs, in torch of the whole team's."""
    name = team.size.name
    onboard = [sys.executable, "-c", _ONBOARD, str(bundle.folder), str(team.widest)]
    commands = {
        "epymarl_teacher": [sys.executable, "-c", _TORCH, name, "host", str(TEACHER_WIDTH)],
        "torch": [sys.executable, "-c", _TORCH, name, team.limits, str(width)],
        **{backend: [*onboard, backend] for backend in ("numpy", "onnx", "c")},
    }
    return {name: process(command, folder, count) for name, command in commands.items() if count}


def process(command: Sequence[str], cache: Path, starts: int) -> dict[str, float]:
    """Start a program that says a line once it has decided, and then waits.

    Args:
        command: its command line.
        cache: for compiled C, so that the first start compiles and the others do not.
        starts: how many are timed.

    Returns:
        ``start_ms``, median of ``starts`` after one that warms the disk's cache, and ``memory_mib``, its peak.
    """
    env = {**os.environ, "PYTHONPATH": PATHS, "KD_ONBOARD_CACHE": str(cache / "compiled"), "OMP_NUM_THREADS": "1"}
    times, peaks = [], []
    for _ in range(1 + starts):
        started = time.perf_counter()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, env=env, text=True, **pipes) as child:
            said = child.stdout.readline()
            times.append(time.perf_counter() - started)
            # Not of `getrusage`, which would count the parent's.
            peaks.append(kib(child.pid) / 1024)
            child.stdin.close()
        if not said or child.returncode:
            raise UserError(f"{' '.join(command[:2])} ... ended with status {child.returncode}")
    return {"start_ms": 1e3 * float(np.median(times[1:])), "memory_mib": float(np.median(peaks))}
