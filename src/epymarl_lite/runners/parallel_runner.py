"""Runner of many environments in worker processes."""

from __future__ import annotations

from types import SimpleNamespace

from epymarl_lite.envs.env_group import env_factories
from epymarl_lite.runners.rollout import RolloutRunner
from epymarl_lite.runners.worker_pool import WorkerPool
from epymarl_lite.utils.logging import Logger


class ParallelRunner(RolloutRunner):
    """Runner that plays ``batch_size_run`` episodes per run, one in each environment."""

    def __init__(self, args: SimpleNamespace, logger: Logger) -> None:
        super().__init__(args, logger, WorkerPool(env_factories(args), getattr(args, "runner_processes", 0)))
