"""What the conformance tests share: both hosts' classes under the same names, and ragged batches of random episodes.

The contract's host is the checkout at `EPYMARL_HOME` where that is set, else the bundled runtime.
"""

from __future__ import annotations

import importlib
import os
from types import SimpleNamespace

import numpy as np
import torch as th

N_AGENTS, N_ACTIONS, OBS, STATE, LIMIT, BATCH = 3, 5, 6, 7, 6, 5

COMMON = {
    "n_agents": N_AGENTS,
    "n_actions": N_ACTIONS,
    "state_shape": STATE,
    "device": "cpu",
    "use_cuda": False,
    "agent": "rnn",
    "mac": "basic_mac",
    "hidden_dim": 16,
    "use_rnn": True,
    "obs_agent_id": True,
    "obs_last_action": False,
    "obs_individual_obs": False,
    "common_reward": True,
    "standardise_returns": False,
    "standardise_rewards": True,
    "add_value_last_step": True,
    "gamma": 0.9,
    "lr": 0.003,
    "grad_norm_clip": 10,
    "learner_log_interval": 1,
    "test_greedy": True,
    "epsilon_start": 1.0,
    "epsilon_finish": 0.05,
    "epsilon_anneal_time": 100,
    "evaluation_epsilon": 0.0,
}
PPO = {
    "learner": "ppo_learner",
    "agent_output_type": "pi_logits",
    "action_selector": "soft_policies",
    "mask_before_softmax": True,
    "target_update_interval_or_tau": 0.01,
    "critic_type": "cv_critic",
    "entropy_coef": 0.01,
    "q_nstep": 3,
    "epochs": 3,
    "eps_clip": 0.2,
}
Q = {
    "learner": "q_learner",
    "agent_output_type": "q",
    "action_selector": "epsilon_greedy",
    "target_update_interval_or_tau": 0.01,
    "mixer": None,
    "double_q": True,
    "mixing_embed_dim": 8,
    "hypernet_layers": 2,
    "hypernet_embed": 12,
}


def settings(base: dict, **changes) -> SimpleNamespace:
    """The `args` of a tiny run: `COMMON`, then `PPO` or `Q`, then a test's own changes."""
    return SimpleNamespace(**{**COMMON, **base, **changes})


def host_classes(prefix: str) -> SimpleNamespace:
    """The classes and registries of the host whose modules start with `prefix`."""

    def module(name: str):
        return importlib.import_module(prefix + name)

    buffer = module("components.episode_buffer")
    return SimpleNamespace(
        EpisodeBatch=buffer.EpisodeBatch,
        ReplayBuffer=buffer.ReplayBuffer,
        OneHot=module("components.transforms").OneHot,
        RunningMeanStd=module("components.standarize_stream").RunningMeanStd,
        Schedule=module("components.epsilon_schedules").DecayThenFlatSchedule,
        selectors=module("components.action_selectors").REGISTRY,
        agents=module("modules.agents").REGISTRY,
        critics=module("modules.critics").REGISTRY,
        VDNMixer=module("modules.mixers.vdn").VDNMixer,
        QMixer=module("modules.mixers.qmix").QMixer,
        macs=module("controllers").REGISTRY,
        learners=module("learners").REGISTRY,
    )


def contract_host() -> SimpleNamespace:
    """The host under test."""
    if not os.environ.get("EPYMARL_HOME"):
        return host_classes("epymarl_lite.")
    from kd_core.host import get_host

    get_host()  # puts the checkout on the import path
    return host_classes("")


class Recorder:
    """A logger that keeps the latest value of every key."""

    def __init__(self) -> None:
        self.stats: dict[str, float] = {}
        self.console_logger = self

    def log_stat(self, key, value, t, to_sacred=True) -> None:
        self.stats[key] = float(value)

    def info(self, *args) -> None:
        pass

    warning = info


def scheme(common_reward: bool = True) -> dict:
    """The scheme that `run_sequential` builds."""
    return {
        "state": {"vshape": STATE},
        "obs": {"vshape": OBS, "group": "agents"},
        "actions": {"vshape": (1,), "group": "agents", "dtype": th.long},
        "avail_actions": {"vshape": (N_ACTIONS,), "group": "agents", "dtype": th.int},
        "reward": {"vshape": (1,) if common_reward else (N_AGENTS,)},
        "terminated": {"vshape": (1,), "dtype": th.uint8},
    }


GROUPS = {"agents": N_AGENTS}


def empty_batch(host: SimpleNamespace, common_reward: bool = True, size: int = BATCH):
    """A batch of `size` episodes of at most `LIMIT` steps."""
    preprocess = {"actions": ("actions_onehot", [host.OneHot(out_dim=N_ACTIONS)])}
    return host.EpisodeBatch(scheme(common_reward), GROUPS, size, LIMIT + 1, preprocess=preprocess)


def empty_buffer(host: SimpleNamespace, size: int, common_reward: bool = True):
    """A ring of `size` episodes."""
    preprocess = {"actions": ("actions_onehot", [host.OneHot(out_dim=N_ACTIONS)])}
    return host.ReplayBuffer(scheme(common_reward), GROUPS, size, LIMIT + 1, preprocess=preprocess)


def random_batch(host: SimpleNamespace, seed: int, common_reward: bool = True, full: bool = False):
    """Episodes written as a runner writes them: lengths 2..LIMIT, one cut off by the time limit, the others ended.

    With `full` all of them have LIMIT steps.
    """
    rng = np.random.default_rng(seed)
    batch = empty_batch(host, common_reward)
    lengths = np.full(BATCH, LIMIT) if full else np.r_[LIMIT, LIMIT, rng.integers(2, LIMIT, BATCH - 2)]
    for t in range(LIMIT + 1):
        live = [b for b in range(BATCH) if t <= lengths[b]]
        if not live:
            break
        avail = rng.random((len(live), N_AGENTS, N_ACTIONS)) < 0.7
        avail[..., -1] |= ~avail.any(-1)
        actions = np.where(avail, rng.random(avail.shape), -1).argmax(-1)
        before = {
            "state": [row for row in rng.normal(size=(len(live), STATE))],
            "obs": [row for row in rng.normal(size=(len(live), N_AGENTS, OBS))],
            "avail_actions": [row for row in avail.astype(int)],
        }
        batch.update(before, bs=live, ts=t)
        batch.update({"actions": th.as_tensor(actions).unsqueeze(1)}, bs=live, ts=t, mark_filled=False)
        acting = [b for b in live if t < lengths[b]]
        if acting:
            width = 1 if common_reward else N_AGENTS
            after = {
                "reward": [tuple(row) for row in 3 * rng.normal(size=(len(acting), width)) + 1],
                "terminated": [(t == lengths[b] - 1 and b != 0,) for b in acting],
            }
            batch.update(after, bs=acting, ts=t, mark_filled=False)
    return batch


def learner_of(host: SimpleNamespace, args: SimpleNamespace, seed: int = 0):
    """A learner with its controller and a recording logger, freshly initialised from `seed`."""
    th.manual_seed(seed)
    buffer = empty_buffer(host, 1, args.common_reward)
    mac = host.macs[args.mac](buffer.scheme, GROUPS, args)
    return host.learners[args.learner](mac, buffer.scheme, Recorder(), args)


def networks(learner) -> dict[str, th.nn.Module]:
    """Every network of a learner by a name that both hosts share."""
    found = {"agent": learner.mac.agent}
    if hasattr(learner, "old_mac"):
        found["old_agent"] = learner.old_mac.agent
    if hasattr(learner, "target_mac"):
        found["target_agent"] = learner.target_mac.agent
    for name in ("critic", "target_critic", "mixer", "target_mixer"):
        if isinstance(getattr(learner, name, None), th.nn.Module):
            found[name] = getattr(learner, name)
    return found
