"""What every test shares: one thread, no window, repeatable random numbers, and the paths of the tree."""

from __future__ import annotations

import logging
import os
import random
import signal
from pathlib import Path

# Before torch, numpy and pygame are imported: tests run side by side, and no machine of ours has a screen.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

import cores

torch.set_num_threads(1)

if "PYTEST_XDIST_WORKER" in os.environ:
    cores.keep_to_one(os.environ["PYTEST_XDIST_WORKER"])

# A script's background jobs ignore SIGINT, and so would every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: the first call of a torch operation is slow. Derandomised: a failure is the same on every machine.
settings.register_profile(
    "kd-marl", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], max_examples=50
)
settings.load_profile("kd-marl")

pytest_plugins = ("stage_fixtures", "student_fixtures", "export_fixtures", "runtime_fixtures")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def source_root() -> Path:
    """The folder that holds main.py and the packages."""
    return ROOT / "src"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Each test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _loggers_propagate(monkeypatch: pytest.MonkeyPatch) -> None:
    """What our loggers say reaches pytest, though a run in this process had its own handlers."""
    for name in ("kd_core", "kd_learners", "kd_marl", "kd_runners"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        monkeypatch.setattr(logging.getLogger(name), "disabled", False)
