"""The time that one decision takes here, through the runtime that a robot uses."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from kd_onboard.agent import OnboardAgent
from kd_onboard.backend import BACKENDS
from kd_onboard.bundle import Bundle
from kd_onboard.errors import BackendError

BLOCKS, DECISIONS = 21, 100


def measure(bundle: Bundle, agent: int, seed: int = 0) -> dict[str, Any]:
    """Measure `OnboardAgent.act` on random features in microseconds, for every back end that this machine can run.

    Args:
        bundle: a whole bundle.
        agent: index of the agent.
        seed: of the features.

    Returns:
        Back end -> ``median_us``, ``low_us`` and ``high_us`` (5th and 95th percentile) over `BLOCKS` blocks of
        `DECISIONS` decisions, and how many those were; back ends that cannot run here are left out.
    """
    profile = bundle.agent(agent)
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((DECISIONS, profile.inputs)).astype(np.float32)
    given: list[Any] = [np.ones(profile.n_actions, bool)]
    if profile.messages is not None:
        given.append([rng.bytes(profile.messages.payload_bytes) for _ in profile.messages.hears])
    found = {}
    for name in BACKENDS:
        try:
            runner = OnboardAgent.load(bundle, agent, backend=name, trust=True)
        except BackendError:
            continue
        blocks = []
        for _ in range(BLOCKS + 1):
            runner.reset()
            started = time.perf_counter()
            for row in features:
                runner.act(row, *given)
            blocks.append(1e6 * (time.perf_counter() - started) / DECISIONS)
        # The first block warms up.
        low, median, high = np.percentile(blocks[1:], [5, 50, 95])
        found[name] = {
            "median_us": round(float(median), 3),
            "low_us": round(float(low), 3),
            "high_us": round(float(high), 3),
            "decisions": BLOCKS * DECISIONS,
        }
    return found


def machine() -> dict[str, str]:
    """Describe the machine that the times were measured on."""
    names = []
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
