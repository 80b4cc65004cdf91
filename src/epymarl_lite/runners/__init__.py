"""Runners by the name that the config key ``runner`` takes."""

from __future__ import annotations

from epymarl_lite.runners.episode_runner import EpisodeRunner
from epymarl_lite.runners.parallel_runner import ParallelRunner
from epymarl_lite.runners.rollout import RolloutRunner

REGISTRY: dict[str, type[RolloutRunner]] = {"episode": EpisodeRunner, "parallel": ParallelRunner}

__all__ = ["REGISTRY", "EpisodeRunner", "ParallelRunner", "RolloutRunner"]
