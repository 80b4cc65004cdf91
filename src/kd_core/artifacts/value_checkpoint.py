"""A plain EPyMARL `qmix`, `vdn` or `iql` checkpoint as a teacher: the facts that its weights and its config tell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from kd_core.artifacts.teacher_weights import AGENTS, MIXER_FILE, VALUE_CRITICS, StateDict, networks
from kd_core.errors import UserError

_NEEDED = ("name", "env_args", "agent", "gamma", "use_rnn", "obs_agent_id", "obs_last_action")


def learnt_values(settings: Mapping[str, Any]) -> bool:
    """Tell whether a run's settings are those of EPyMARL's Q learner."""
    return settings.get("learner") == "q_learner"


def critic_of(folder: Path, config_path: Path, settings: Mapping[str, Any]) -> str:
    """Return the `critic_type` of a Q learner's run, after checking what its teacher needs.

    Raises:
        UserError: the config lacks a key, or names an agent or a mixer that no teacher has.
    """
    if missing := [key for key in _NEEDED if key not in settings]:
        raise UserError(f"{config_path} is no config of an EPyMARL qmix, vdn or iql run: it lacks {', '.join(missing)}")
    kind = settings.get("mixer") or "iql"
    if settings["agent"] not in AGENTS or kind not in VALUE_CRITICS:
        raise UserError(
            f"the checkpoint in {folder} has agent {settings['agent']} and mixer {settings.get('mixer')}: a teacher of "
            f"values needs agent {' or '.join(AGENTS)} and mixer qmix, vdn or null (EPyMARL's qmix, vdn or iql)"
        )
    return kind


def sizes(
    folder: Path, agent: StateDict, critic: StateDict, settings: Mapping[str, Any], n_agents: int
) -> dict[str, int | None]:
    """Derive the sizes of agent and mixer from their first and last layers.

    Args:
        folder: of the checkpoint.
        agent: its agents' weights.
        critic: its mixer's weights, or empty.
        settings: of its run.
        n_agents: of its task.

    Raises:
        UserError: a tensor is missing or holds a value that is not finite, or the shapes do not fit.
    """
    for name, state in (("agent.th", agent), (MIXER_FILE, critic)):
        if wrong := [key for key, value in state.items() if not torch.isfinite(value).all()]:
            raise UserError(
                f"{folder / name} holds a value that is not finite in {wrong[0]}: its training has diverged; give an "
                "earlier checkpoint"
            )
    own = settings["agent"] == "rnn_ns"
    first = "agents.0." * own
    try:
        hidden_dim, agent_input = agent[f"{first}fc1.weight"].shape
        n_actions = agent[f"{first}fc2.weight"].shape[0]
        state_size: int | None = None
        if critic:
            embed, state_size = critic["hyper_b_1.weight"].shape
            mixed = critic["hyper_w_1.weight" if "hyper_w_1.weight" in critic else "hyper_w_1.2.weight"].shape[0]
            if mixed != embed * n_agents:
                raise UserError(
                    f"{folder / MIXER_FILE} mixes the values of {mixed / embed:g} agents, this task has {n_agents}: "
                    "was it trained on another task?"
                )
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{folder} holds no EPyMARL rnn agent and mixer: {error} is missing or of another shape"
        ) from None
    obs_size = agent_input - (n_actions if settings["obs_last_action"] else 0)
    obs_size -= n_agents if settings["obs_agent_id"] else 0
    if obs_size <= 0 or (own and networks(agent) != n_agents):
        raise UserError(
            f"the shapes in {folder} do not fit {n_agents} agents and the switches of its config: "
            "was it trained on another task or with another config?"
        )
    return {
        "obs_size": obs_size,
        "state_size": state_size,
        "n_agents": n_agents,
        "n_actions": n_actions,
        "hidden_dim": hidden_dim,
    }
