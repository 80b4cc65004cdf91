"""``vector``: many environments stepped in one call, whole batches through the controller."""

from __future__ import annotations

from typing import Any

from epymarl_lite.envs.env_group import VectorEnv, env_factories
from epymarl_lite.runners.rollout import RolloutRunner
from epymarl_lite.runners.worker_pool import WorkerPool
from kd_core.host import Host, get_host
from kd_core.task import of_task, shares, task_names
from kd_runners.side_by_side import SideBySide


class VectorRunner(RolloutRunner):
    """EPyMARL runner that plays ``batch_size_run`` episodes a run, one in each environment, on either host.

    Environments with a batched back end (SMAX, MPE) are stepped together; all others run in a pool of processes.
    Environment i is seeded with ``env_args.seed + i`` either way. The episodes are the host's own ``EpisodeBatch``, so
    loop and learner cannot tell this runner from the parallel one.
    """

    def __init__(self, args: Any, logger: Any) -> None:
        host = get_host()
        self.batch_class = host.EpisodeBatch
        super().__init__(args, logger, _envs(host, args))


def _envs(host: Host, args: Any) -> VectorEnv:
    """Build the environments of a run; those of several tasks side by side."""
    names = task_names(args.map_name)
    if len(names) == 1:
        batched = batched_envs(host, args)
        return batched or WorkerPool(env_factories(args, host.envs), getattr(args, "runner_processes", 0))
    parts, start = [], args.env_args["seed"]
    for name, size in zip(names, shares(args.batch_size_run, len(names)), strict=True):
        one = of_task(args, name, batch_size_run=size)
        one.env_args["seed"] = start
        start += size
        parts.append(_envs(host, one))
    return SideBySide(parts)


def batched_envs(host: Host, args: Any) -> VectorEnv | None:
    """Build the environments of a run that are stepped in one call; None where there is no such back end."""
    entry = host.envs[args.env]
    rewards = {"common_reward": args.common_reward, "reward_scalarisation": args.reward_scalarisation}
    return entry.batched(args.batch_size_run, **args.env_args, **rewards) if hasattr(entry, "batched") else None
