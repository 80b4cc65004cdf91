"""How a team's value is made of its agents' action values (VDN, QMIX), and what each agent's value adds to it.

Pure functions. The mixer's weights are a state dict as EPyMARL saves it in ``mixer.th``; an empty one means VDN's sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

MixerState = Mapping[str, Tensor]


class Mixing(NamedTuple):
    """QMIX's weights under some states, ``embed`` hidden units.

    Attributes:
        w1: ``(..., agents, embed)``, not negative.
        b1: ``(..., embed)``.
        w2: ``(..., embed)``, not negative.
        v: ``(...)``, what the state is worth beside the agents' values.
    """

    w1: Tensor
    b1: Tensor
    w2: Tensor
    v: Tensor


def mixing(mixer: MixerState, state: Tensor, n_agents: int) -> Mixing:
    """Compute the weights that QMIX's hypernetworks, of one or two layers, give to states ``(..., state_size)``."""
    w1 = _hypernetwork(mixer, "hyper_w_1", state).abs().unflatten(-1, (n_agents, -1))
    w2 = _hypernetwork(mixer, "hyper_w_final", state).abs()
    return Mixing(w1, _linear(mixer, "hyper_b_1", state), w2, _hypernetwork(mixer, "V", state).squeeze(-1))


def team_value(values: Tensor, state: Tensor, mixer: MixerState) -> Tensor:
    """Mix the agents' values into Q_tot.

    Args:
        values: ``(..., agents)`` float32, Q_i of one action of each agent.
        state: ``(..., state_size)``.
        mixer: QMIX's weights, or empty.

    Returns:
        ``(...)`` float32: ``ELU(q |W1(s)| + b1(s)) |w2(s)| + V(s)``, or the sum.
    """
    if not mixer:
        return values.sum(-1)
    part = mixing(mixer, state, values.shape[-1])
    return (F.elu(_before_elu(values, part)) * part.w2).sum(-1) + part.v


def agent_weights(values: Tensor, state: Tensor, mixer: MixerState) -> Tensor:
    """Compute the partial derivatives of `team_value` by the agents' values: the mixer's own monotone weights.

    Returns:
        ``(..., agents)`` float32, not negative; ones for VDN's sum.
    """
    if not mixer:
        return torch.ones_like(values)
    part = mixing(mixer, state, values.shape[-1])
    slope = _before_elu(values, part).clamp(max=0.0).exp()
    return (part.w1 * (slope * part.w2).unsqueeze(-2)).sum(-1)


def _before_elu(values: Tensor, part: Mixing) -> Tensor:
    return (values.unsqueeze(-2) @ part.w1).squeeze(-2) + part.b1


def _hypernetwork(mixer: MixerState, name: str, state: Tensor) -> Tensor:
    """Apply one linear layer, or two with a ReLU between them."""
    if f"{name}.weight" in mixer:
        return _linear(mixer, name, state)
    return _linear(mixer, f"{name}.2", torch.relu(_linear(mixer, f"{name}.0", state)))


def _linear(mixer: MixerState, name: str, x: Tensor) -> Tensor:
    return F.linear(x, mixer[f"{name}.weight"], mixer[f"{name}.bias"])
