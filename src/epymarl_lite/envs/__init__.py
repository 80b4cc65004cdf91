"""Environments by the name that the config key ``env`` takes."""

from __future__ import annotations

from collections.abc import Callable

from epymarl_lite.envs.gymma import GymmaWrapper, gymma_fn
from epymarl_lite.envs.multiagentenv import MultiAgentEnv
from epymarl_lite.envs.starcraft import sc2_fn, sc2v2_fn, smaclite_fn

REGISTRY: dict[str, Callable[..., MultiAgentEnv]] = {
    "gymma": gymma_fn,
    "sc2": sc2_fn,
    "sc2v2": sc2v2_fn,
    "smaclite": smaclite_fn,
}

__all__ = ["REGISTRY", "GymmaWrapper", "MultiAgentEnv", "gymma_fn", "sc2_fn", "sc2v2_fn", "smaclite_fn"]
