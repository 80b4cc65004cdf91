"""Checkpoints of Q learners on the toy task, laid out as EPyMARL leaves them, and QMIX's mixer in numpy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tiny_stages import AGENTS, STATE, TASK
from tiny_students import networks

EMBED, INNER = 4, 5


def mixer_state(layers=2, agents=AGENTS, state=STATE, embed=EMBED, seed=0):
    """The state dict of a mixer with random weights, under EPyMARL's names."""
    torch.manual_seed(seed)

    def network(out, depth, inner):
        if depth == 1:
            return nn.Linear(state, out)
        return nn.Sequential(nn.Linear(state, inner), nn.ReLU(), nn.Linear(inner, out))

    parts = {
        "hyper_w_1": network(embed * agents, layers, INNER),
        "hyper_w_final": network(embed, layers, INNER),
        "hyper_b_1": network(embed, 1, INNER),
        "V": network(1, 2, embed),
    }
    return nn.ModuleDict(parts).state_dict()


def numpy_team_value(q, state, mixer):
    """QMIX's Q_tot of one state in float64, by loops over agents and hidden units."""
    weights = {name: value.double().numpy() for name, value in mixer.items()}

    def network(name):
        if f"{name}.weight" in weights:
            return weights[f"{name}.weight"] @ state + weights[f"{name}.bias"]
        hidden = np.maximum(weights[f"{name}.0.weight"] @ state + weights[f"{name}.0.bias"], 0.0)
        return weights[f"{name}.2.weight"] @ hidden + weights[f"{name}.2.bias"]

    w1, w2, b1, total = np.abs(network("hyper_w_1")), np.abs(network("hyper_w_final")), network("hyper_b_1"), 0.0
    for unit in range(len(w2)):
        x = b1[unit] + sum(q[agent] * w1[agent * len(w2) + unit] for agent in range(len(q)))
        total += w2[unit] * (x if x > 0 else np.expm1(x))
    return total + network("V")[0]


def value_run(results: Path, mixer: str | None = "qmix", layers: int = 2, **changes) -> Path:
    """A checkpoint and its Sacred run below ``results``; returns the folder of its steps."""
    settings = {
        "name": mixer or "iql",
        "seed": 1,
        "env_args": {"key": TASK},
        "agent": "rnn",
        "learner": "q_learner",
        "mixer": mixer,
        "use_rnn": True,
        "gamma": 0.9,
        "obs_agent_id": True,
        "obs_last_action": False,
        "standardise_rewards": False,
        "standardise_returns": False,
        **changes,
    }
    sacred = results / "sacred" / settings["name"] / TASK / "1"
    sacred.mkdir(parents=True, exist_ok=True)
    (sacred / "config.json").write_text(json.dumps(settings))
    folder = results / "models" / f"{settings['name']}_seed1_{TASK}_2026-01-02 03:04:05.6" / "50000"
    folder.mkdir(parents=True)
    torch.save(networks()[0].state_dict(), folder / "agent.th")
    if mixer == "qmix":
        torch.save(mixer_state(layers), folder / "mixer.th")
    return folder
