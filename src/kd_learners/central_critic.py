"""The teacher's centralised critic V_T(s), an MLP as the host's, evaluated on whole episodes at once.

A teacher of EPyMARL may have one MLP for each agent, without the agent's identity among its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from kd_core.errors import UserError
from kd_core.host import get_host

CRITIC_TYPES = ("cv_critic", "ac_critic", "cv_critic_ns", "ac_critic_ns")
# States evaluated in one call where no gradient is needed. More make the products faster, but the activations would
# no longer fit into memory that is reused from call to call.
STATES_AT_ONCE = 1024


@dataclass(frozen=True)
class CriticSizes:
    """Sizes and options that fix the shape of a critic that EPyMARL can save as ``critic.th``.

    Attributes:
        critic_type: ``cv_critic`` reads the state, ``ac_critic`` the agent's own observation; ``_ns``: a network for
            each agent.
        obs_individual_obs: whether ``cv_critic`` also reads all agents' observations.
        obs_last_action: whether ``cv_critic`` also reads all agents' previous actions.

    Raises:
        UserError: an unknown ``critic_type``.
    """

    critic_type: str
    n_agents: int
    n_actions: int
    obs_size: int
    state_size: int
    hidden_dim: int
    obs_individual_obs: bool
    obs_last_action: bool

    def __post_init__(self) -> None:
        if self.critic_type not in CRITIC_TYPES:
            raise UserError(f"critic_type is '{self.critic_type}': a teacher needs one of {', '.join(CRITIC_TYPES)}")

    @property
    def central(self) -> bool:
        """Whether it reads the state."""
        return self.critic_type.startswith("cv_")

    def build(self) -> nn.Module:
        """Build a critic with random weights, a shared one from the host's registry."""
        if self.critic_type.endswith("_ns"):
            # A checkout's own critics of this kind are no module: their weights could not be frozen.
            width = self.n_agents * self.obs_size if self.obs_individual_obs else 0
            width += self.n_agents * self.n_actions if self.obs_last_action else 0
            return OwnCritics(
                self.state_size + width if self.central else self.obs_size, self.n_agents, self.hidden_dim
            )
        scheme = {
            "state": {"vshape": self.state_size},
            "obs": {"vshape": self.obs_size},
            "actions_onehot": {"vshape": (self.n_actions,)},
        }
        options = SimpleNamespace(
            n_agents=self.n_agents,
            n_actions=self.n_actions,
            hidden_dim=self.hidden_dim,
            obs_individual_obs=self.obs_individual_obs,
            obs_last_action=self.obs_last_action,
        )
        return get_host().critics[self.critic_type](scheme, options)

    def inputs(self, steps: Mapping[str, Tensor]) -> Tensor:
        """Assemble the critic's input, without the agents' identities, which :func:`evaluate` adds.

        Args:
            steps: ``state`` ``(batch, time, state_size)``, ``obs`` ``(batch, time, agents, obs_size)`` and, with
                ``obs_last_action``, ``actions`` ``(batch, time - 1 or more, agents)``.

        Returns:
            ``(batch, time, 1 or agents, input)`` float32, in EPyMARL's order. What the agents share is there once.
        """
        state = steps["state"]
        shared: list[Tensor] = []
        if self.central:
            shared.append(state)
            if self.obs_individual_obs:
                shared.append(steps["obs"].flatten(2))
            if self.obs_last_action:
                taken = nn.functional.one_hot(steps["actions"].long(), self.n_actions).float().flatten(2)
                shared.append(nn.functional.pad(taken, (0, 0, 1, 0))[:, : state.shape[1]])
            return torch.cat(shared, dim=-1).unsqueeze(2)
        return steps["obs"]


class OwnCritics(nn.Module):
    """An MLP for each agent, with the names of EPyMARL's layers."""

    def __init__(self, width: int, n_agents: int, hidden_dim: int) -> None:
        super().__init__()
        sizes = {"fc1": (width, hidden_dim), "fc2": (hidden_dim, hidden_dim), "fc3": (hidden_dim, 1)}
        self.critics = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(*size) for name, size in sizes.items()}) for _ in range(n_agents)
        )


def _own_value(layers: Any, inputs: Tensor) -> Tensor:
    return layers["fc3"](torch.relu(layers["fc2"](torch.relu(layers["fc1"](inputs)))))


def evaluate(critic: Any, inputs: Tensor) -> Tensor:
    """Compute V for every step and agent, in the unit in which the critic was trained.

    Args:
        critic: MLP with ``fc1``, ``fc2``, ``fc3``, of which the last inputs of ``fc1`` are the agent's identity; or
            :class:`OwnCritics`.
        inputs: ``(..., 1 or agents, input)`` from :meth:`CriticSizes.inputs`.

    Returns:
        ``(..., agents)`` float32.
    """
    if isinstance(critic, OwnCritics):
        own = inputs.expand(*inputs.shape[:-2], len(critic.critics), -1).unbind(-2)
        return torch.cat([_own_value(*pair) for pair in zip(critic.critics, own, strict=True)], dim=-1)
    known = inputs.shape[-1]
    weight = critic.fc1.weight
    # What the agents share goes through the first layer once; an identity only picks a column of its weights. Without
    # `contiguous` the sum has the columns' strides, which make the next layer nine times slower.
    first = nn.functional.linear(inputs, weight[:, :known], critic.fc1.bias) + weight[:, known:].T.contiguous()
    hidden = torch.relu(critic.fc2(torch.relu(first)))
    return critic.fc3(hidden).squeeze(-1)


def evaluate_where(critic: Any, inputs: Tensor, where: Tensor) -> Tensor:
    """Compute :func:`evaluate` at some steps only, a few states at a time; the other steps get 0.

    Args:
        critic: as for :func:`evaluate`.
        inputs: ``(batch, time, 1 or agents, input)`` float32.
        where: the steps to evaluate, bool ``(batch, time)``.

    Returns:
        ``(batch, time, agents)`` float32.
    """
    some = torch.cat([evaluate(critic, part) for part in inputs[where].split(STATES_AT_ONCE)])
    value = some.new_zeros(*where.shape, some.shape[-1])
    value[where] = some
    return value
