"""The tiny environment of `runtime_env` under its name."""

from __future__ import annotations

import pytest


@pytest.fixture
def counting_env(monkeypatch: pytest.MonkeyPatch) -> None:
    """``env=counting`` is the tiny environment, for one test."""
    from epymarl_lite.envs import REGISTRY
    from runtime_env import CountingEnv

    monkeypatch.setitem(REGISTRY, "counting", CountingEnv)
