"""A tiny environment whose numbers say where they come from, and the arguments of a tiny run with it."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch as th

from epymarl_lite.envs import MultiAgentEnv
from epymarl_lite.main import load_config


class CountingEnv(MultiAgentEnv):
    """Observation = 1000 * seed + 100 * episode + step (+ 0.25 for agent 1); lengths, endings and faults as told.

    Episode e lasts ``lengths[seed][e]`` steps (the last entries repeat) and ends by ``ending``: "terminated",
    "truncated", or "flag" (terminated with info["episode_limit"]).
    """

    n_agents = 2

    def __init__(
        self,
        seed: int = 0,
        lengths: tuple[tuple[int, ...], ...] = ((3,),),
        ending: str = "terminated",
        limit: int = 6,
        fault: str | None = None,
        fault_seed: int = 0,
        common_reward: bool = True,
        reward_scalarisation: str = "sum",
    ) -> None:
        self.fault = fault if seed == fault_seed else None
        if self.fault == "init":
            raise ImportError("this environment needs a package: pip install something")
        self.env_seed, self.lengths, self.ending, self.episode_limit = seed, lengths, ending, limit
        self.common_reward = common_reward
        self.rng = np.random.default_rng(seed)
        self.episode, self.t = -1, 0

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None):
        self.episode, self.t = self.episode + 1, 0
        return self.get_obs(), {}

    def step(self, actions):
        if self.fault == "step":
            raise ZeroDivisionError("the physics broke")
        if self.fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        self.t += 1
        own = self.lengths[min(self.env_seed, len(self.lengths) - 1)]
        last = self.t == own[min(self.episode, len(own) - 1)]
        info = {"won": last, "score": 2.0, "words": "not a number"}
        if last and self.ending == "flag":
            info["episode_limit"] = True
        reward = float(self.t) if self.common_reward else [float(self.t), -1.0]
        return self.get_obs(), reward, last and self.ending != "truncated", last and self.ending == "truncated", info

    def get_obs(self):
        number = 1000 * self.env_seed + 100 * self.episode + self.t
        return [np.array([number, 0, 0], np.float32), np.array([number + 0.25, 0, 0], np.float32)]

    def get_obs_size(self):
        return 3

    def get_state(self):
        return np.array([self.get_obs()[0][0], self.rng.standard_normal()], np.float32)

    def get_state_size(self):
        return 2

    def get_avail_actions(self):
        return [[1, 1, 0], [0, 1, 1]]

    def get_total_actions(self):
        return 3

    def close(self):
        pass


def run_args(algorithm: str = "mappo", env: str = "counting", **changes: Any) -> SimpleNamespace:
    """Arguments of a tiny run; keys of ``env_args`` are replaced as a whole."""
    config = load_config(["", f"--config={algorithm}", "--env-config=gymma"])
    config.update(
        env=env,
        env_args={"seed": 0},
        seed=0,
        device="cpu",
        use_cuda=False,
        unique_token="token",
        batch_size_run=2,
        batch_size=2,
        buffer_size=2,
        hidden_dim=8,
        t_max=20,
        test_nepisode=2,
        test_interval=10,
        log_interval=5,
        runner_log_interval=1,
        learner_log_interval=1,
    )
    unknown = set(changes) - set(config)
    assert not unknown, f"unknown keys {unknown}"
    return SimpleNamespace(**{**config, **changes})


class UniformMac:
    """Draws available actions; remembers which rows it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, Any]] = []
        self.action_selector = SimpleNamespace()

    def init_hidden(self, batch_size: int) -> None:
        self.asked = []

    def select_actions(self, ep_batch, t_ep, t_env, bs=slice(None), test_mode=False):
        self.asked.append((t_ep, bs))
        avail = ep_batch["avail_actions"][bs, t_ep].float()
        return th.distributions.Categorical(avail).sample()


def layout(env_info: dict[str, Any], common_reward: bool = True):
    """Scheme, groups and preprocess as a run makes them."""
    from epymarl_lite.components.transforms import OneHot

    n, actions = env_info["n_agents"], env_info["n_actions"]
    scheme = {
        "state": {"vshape": env_info["state_shape"]},
        "obs": {"vshape": env_info["obs_shape"], "group": "agents"},
        "actions": {"vshape": (1,), "group": "agents", "dtype": th.long},
        "avail_actions": {"vshape": (actions,), "group": "agents", "dtype": th.int},
        "reward": {"vshape": (1,) if common_reward else (n,)},
        "terminated": {"vshape": (1,), "dtype": th.uint8},
    }
    return scheme, {"agents": n}, {"actions": ("actions_onehot", [OneHot(out_dim=actions)])}
