"""The teacher's centralised critic V_T(s), an MLP of the host's registry, evaluated on whole episodes at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from kd_core.errors import UserError
from kd_core.host import get_host

CRITIC_TYPES = ("cv_critic", "ac_critic")
# States evaluated in one call where no gradient is needed. More make the products faster, but the activations would
# no longer fit into memory that is reused from call to call.
STATES_AT_ONCE = 1024


@dataclass(frozen=True)
class CriticSizes:
    """Sizes and options that fix the shape of a critic that EPyMARL can save as ``critic.th``.

    Attributes:
        critic_type: ``cv_critic`` reads the state, ``ac_critic`` the agent's own observation.
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

    def build(self) -> nn.Module:
        """Build a critic with random weights from the host's registry."""
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
        if self.critic_type == "cv_critic":
            shared.append(state)
            if self.obs_individual_obs:
                shared.append(steps["obs"].flatten(2))
            if self.obs_last_action:
                taken = nn.functional.one_hot(steps["actions"].long(), self.n_actions).float().flatten(2)
                shared.append(nn.functional.pad(taken, (0, 0, 1, 0))[:, : state.shape[1]])
            return torch.cat(shared, dim=-1).unsqueeze(2)
        return steps["obs"]


def evaluate(critic: Any, inputs: Tensor) -> Tensor:
    """Compute V for every step and agent, in the unit in which the critic was trained.

    Args:
        critic: MLP with ``fc1``, ``fc2``, ``fc3``; the last inputs of ``fc1`` are the agent's identity.
        inputs: ``(..., 1 or agents, input)`` from :meth:`CriticSizes.inputs`.

    Returns:
        ``(..., agents)`` float32.
    """
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
