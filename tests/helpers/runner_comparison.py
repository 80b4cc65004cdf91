"""Plays the same episodes with a host's parallel runner and with ours: a program, as JAX must not run before a fork.

Usage: python runner_comparison.py smax|pool, on the host that EPYMARL_HOME names. Prints as JSON what it compared.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from kd_core.host import get_host
from kd_marl.plugin.register import register
from kd_marl.plugin.registries import replaced
from kd_marl.processes.workers import workers_watched
from kd_runners import environments

EPISODES = 4
FIRST_ATTACK = 5
TASKS = {
    "smax": ("smax", {"map_name": "3m", "episode_limit": 26}),
    # Three agents are the default: said aloud, JaxMARL's worlds do not stand in, and processes play.
    "pool": (
        "gymma",
        {"key": "pz-mpe-simple-spread-v3", "time_limit": 5, "max_cycles": 26, "pretrained_wrapper": None, "N": 3},
    ),
}


class FixedPolicy:
    """Actions are a fixed function of the observation: available, an attack where there is one."""

    def __init__(self, obs_size: int, n_actions: int) -> None:
        self.weights = torch.from_numpy(np.random.default_rng(0).normal(size=(obs_size, n_actions))).float()
        self.action_selector = SimpleNamespace()

    def init_hidden(self, batch_size: int) -> None:
        """No memory."""

    def select_actions(self, ep_batch, t_ep, t_env, bs=slice(None), test_mode=False):
        scores = ep_batch["obs"][:, t_ep][bs] @ self.weights
        scores[..., FIRST_ATTACK:] += 100.0
        return scores.masked_fill(ep_batch["avail_actions"][:, t_ep][bs] == 0, -1e9).argmax(-1)


class Log:
    """Which names a runner logs."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.console_logger = self

    def log_stat(self, key, value, t, to_sacred=True) -> None:
        self.names.add(key)

    def info(self, *words) -> None:
        """Nobody listens."""


def play(host, name: str, env: str, env_args: dict) -> tuple[list[dict], set[str], int]:
    """Two training runs and a test of one runner: what the batches hold, what is logged, and ``t_env``."""
    args = SimpleNamespace(
        env=env,
        env_args={**env_args, "seed": 3},
        **{"batch_size_run": EPISODES, "test_nepisode": EPISODES, "runner_log_interval": 1, "device": "cpu"},
        **{"common_reward": True, "reward_scalarisation": "sum", "render": False, "use_cuda": False},
        **{"treat_truncation_as_terminal": False, "map_name": env},
    )
    log = Log()
    with replaced(host.envs, env, environments.Factory(host, args, None)):
        runner = host.runners[name](args=args, logger=log)
    info = runner.get_env_info()
    args.n_agents = info["n_agents"]
    scheme = {
        "state": {"vshape": info["state_shape"]},
        "obs": {"vshape": info["obs_shape"], "group": "agents"},
        "actions": {"vshape": (1,), "group": "agents", "dtype": torch.long},
        "avail_actions": {"vshape": (info["n_actions"],), "group": "agents", "dtype": torch.int},
        "reward": {"vshape": (1,)},
        "terminated": {"vshape": (1,), "dtype": torch.uint8},
    }
    preprocess = {"actions": ("actions_onehot", [host.OneHot(out_dim=info["n_actions"])])}
    policy = FixedPolicy(info["obs_shape"], info["n_actions"])
    runner.setup(scheme=scheme, groups={"agents": info["n_agents"]}, preprocess=preprocess, mac=policy)
    batches = [runner.run(test_mode=test_mode) for test_mode in (False, False, True)]
    for batch in batches:
        assert type(batch) is host.EpisodeBatch, "the loop was given another class of batch"
    runner.close_env()
    stored = [{key: value.numpy().copy() for key, value in batch.data.transition_data.items()} for batch in batches]
    return stored, log.names, runner.t_env


def main(task: str) -> None:
    host = get_host()
    register(host)
    env, env_args = TASKS[task]
    with workers_watched():
        theirs, their_names, their_steps = play(host, "parallel", env, env_args)
    assert "jax" not in sys.modules, "JAX ran before the workers were forked"
    ours, our_names, our_steps = play(host, "vector", env, env_args)
    assert ("jax" in sys.modules) == (task == "smax"), "the environments were stepped by another back end"
    assert our_steps == their_steps
    # Only a checkout's runners need that sign of a time limit, and log it.
    sign = {"episode_limit_mean", "test_episode_limit_mean"}
    assert our_names - sign == their_names - sign
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for key in mine:
            assert mine[key].dtype == other[key].dtype, key
            np.testing.assert_allclose(mine[key], other[key], atol=1e-5, err_msg=key)
    lengths = [int(steps) - 1 for batch in ours for steps in batch["filled"].sum((1, 2))]
    ends = [int(count) for batch in ours for count in batch["terminated"].sum((1, 2))]
    print(json.dumps({"host": host.name, "lengths": lengths, "terminated": ends, "logged": sorted(our_names)}))


if __name__ == "__main__":
    main(sys.argv[1])
