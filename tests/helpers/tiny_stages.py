"""The three stages on a toy task, in this process: seconds instead of minutes, on whichever host is under test."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from kd_core.host import get_host

HOST = get_host()  # before anything of `envs`: on a checkout the host decides what that package is

from kd_core.config import assemble, parse_command  # noqa: E402
from kd_learners.stage import RunContext  # noqa: E402
from kd_marl.plugin import lifecycle, register  # noqa: E402
from kd_marl.plugin.registries import replaced  # noqa: E402
from kd_runners import environments  # noqa: E402

register.register(HOST)

TASK = "toy-signals-v0"
LIMIT, AGENTS, ACTIONS, OBS, STATE = 4, 2, 3, 5, 6

ENV_YAML = f"""
env: "tiny_signals"
env_args:
  key: "{TASK}"
common_reward: True
reward_scalarisation: "sum"
test_greedy: True
"""

# What makes every stage small.
SMALL = {
    "hidden_dim": 16,
    "batch_size_run": 4,
    "batch_size": 4,
    "buffer_size": 4,
    "test_nepisode": 4,
    "test_interval": 10**9,
    "use_cuda": False,
    "use_tensorboard": False,
    "buffer_episodes": 24,
    "shard_episodes": 10,
    "eval_episodes": 6,
}


class SignalEnv(HOST.MultiAgentEnv):
    """Each agent is shown a signal (one of three) and earns 1 for the action of the same number.

    An observation is the signal as a one-hot, a number that means nothing, and the time. Episodes last two to `LIMIT`
    steps: those that reach the limit are cut by it, the others end for good. From its third step on agent 1 is dead in
    every other episode: action 0 is all that it has. Agent 0 cannot take action 2 while its signal is 0.
    """

    n_agents = AGENTS
    episode_limit = LIMIT

    def __init__(self, key="", seed=0, common_reward=True, reward_scalarisation="sum"):
        self.common_reward = common_reward
        self.rng = np.random.default_rng(seed)
        self.episode = -1
        self._begin()

    def _begin(self):
        self.t, self.length = 0, int(self.rng.integers(2, LIMIT + 2))
        self._signal()

    def _signal(self):
        self.signals, self.noise = self.rng.integers(3, size=AGENTS), self.rng.standard_normal(AGENTS)

    def reset(self, seed=None, options=None):
        self.episode += 1
        self._begin()
        return self.get_obs(), {}

    def step(self, actions):
        rewards = [float(int(a) == s) for a, s in zip(actions, self.signals, strict=True)]
        self.t += 1
        terminated, truncated = self.t == self.length, self.t == LIMIT and self.t != self.length
        self._signal()
        reward = sum(rewards) if self.common_reward else rewards
        return self.get_obs(), reward, terminated, truncated, {}

    def get_obs(self):
        rows = [[*np.eye(3)[s], n, self.t / LIMIT] for s, n in zip(self.signals, self.noise, strict=True)]
        return [np.array(row, np.float32) for row in rows]

    def get_obs_agent(self, agent_id):
        return self.get_obs()[agent_id]

    def get_obs_size(self):
        return OBS

    def get_state(self):
        return np.array([*np.eye(3)[self.signals[0]], *self.noise, self.t / LIMIT], np.float32)

    def get_state_size(self):
        return STATE

    def get_avail_actions(self):
        dead = self.episode % 2 == 1 and self.t >= 2
        return [[1, 1, int(self.signals[0] != 0)], [1, 0, 0] if dead else [1, 1, 1]]

    def get_avail_agent_actions(self, agent_id):
        return self.get_avail_actions()[agent_id]

    def get_total_actions(self):
        return ACTIONS

    def get_env_info(self):
        return {
            "state_shape": STATE,
            "obs_shape": OBS,
            "n_actions": ACTIONS,
            "n_agents": AGENTS,
            "episode_limit": LIMIT,
        }

    def get_stats(self):
        return {}

    def close(self):
        pass


HOST.envs["tiny_signals"] = SignalEnv


class Logger:
    """The host's logger without a console."""

    def __init__(self) -> None:
        self.stats: dict[str, list[tuple[int, float]]] = {}
        self.console_logger = logging.getLogger("tiny_stages")

    def log_stat(self, key, value, t, to_sacred=True):
        self.stats.setdefault(key, []).append((t, float(value)))

    def print_recent_stats(self):
        pass


def stage_args(algorithm: str, results: Path, env_config: str | None = None, **updates: Any) -> SimpleNamespace:
    """A run's namespace as the host's ``run`` makes it; by default on the toy task, small."""
    results.mkdir(parents=True, exist_ok=True)
    environment = results / "signals.yaml"
    environment.write_text(ENV_YAML)
    name = env_config or str(environment)
    env_args = updates.pop("env_args", {})
    words = [f"env_args.{key}={value}" for key, value in env_args.items()]
    config = assemble(HOST, parse_command([f"--config={algorithm}", f"--env-config={name}", "with", *words]))
    changes = {key: value for key, value in SMALL.items() if key in config} | {"seed": 1} | updates
    unknown = set(changes) - {*config, "seed"}
    assert not unknown, f"unknown keys {unknown}"
    config.update(changes, local_results_path=str(results), device="cpu", unique_token=f"{algorithm}_seed1_toy")
    config["env_args"] = {**config["env_args"], **env_args, "seed": config["seed"]}
    return SimpleNamespace(**config, fingerprint="tiny", run_folder=str(results))


_run_sequential = HOST.run.run_sequential


def run_stage(args: SimpleNamespace) -> Any:
    """Run a stage to its end and return its learner."""
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    learners = []

    class Remembered(HOST.learners[args.learner]):
        def __init__(self, *positional, **named):
            super().__init__(*positional, **named)
            learners.append(self)

    with replaced(HOST.learners, args.learner, Remembered):
        lifecycle.run_sequential(HOST, _run_sequential, args, Logger())
    return learners[0]


def described(args: SimpleNamespace) -> RunContext:
    """What a run learns from its environment before it starts; the namespace gets its sizes."""
    task = environments.prepare(HOST, args)
    args.obs_size = task.obs_size
    mask = environments.task_mask(args, task.facts)
    return RunContext(task, mask, environments.is_limited(args), Path(args.run_folder))


def scheme_of(args: SimpleNamespace, obs_size: int | None = None) -> dict[str, Any]:
    """The scheme that the host's loop would make."""
    agents = {"group": "agents"}
    return {
        "state": {"vshape": args.state_shape},
        "obs": {"vshape": obs_size or args.obs_size, **agents},
        "actions": {"vshape": (1,), **agents, "dtype": torch.long},
        "avail_actions": {"vshape": (args.n_actions,), **agents, "dtype": torch.int},
        "terminated": {"vshape": (1,), "dtype": torch.uint8},
        "reward": {"vshape": (1,) if args.common_reward else (args.n_agents,)},
    }


def teacher_facts(**changes: Any) -> dict[str, Any]:
    """`teacher.json` of a toy teacher."""
    facts = {
        "task": TASK,
        "env": "tiny_signals",
        "layout": TASK,
        "obs_size": OBS,
        "state_size": STATE,
        "n_agents": AGENTS,
        "n_actions": ACTIONS,
        "hidden_dim": 16,
        "use_rnn": True,
        "obs_agent_id": True,
        "obs_last_action": False,
        "obs_individual_obs": False,
        "agent": "rnn",
        "critic_type": "cv_critic",
        "teacher_input": "obs",
        "gamma": 0.9,
        "shaping": 0.0,
        "masked": False,
        "common_reward": True,
        "reward_scalarisation": "sum",
        "normalisers": {"reward": {"mean": [0.5], "std": [2.0]}, "value": {"mean": [1.5], "std": [3.0]}},
        "host": HOST.name,
        "host_commit": None,
        "seed": 0,
        "steps": 0,
        "begun_with": None,
        "finished": True,
        "train_seconds": None,
        "tests": [],
        "command": "",
        "test": {},
    }
    return {**facts, **changes}
