"""Value critics: one from the whole team's information, one from each agent's own observation.

The input of both ends with the agent's one-hot. Its product with the first layer is a column of that layer's weight. So
no one-hot is built, and inputs shared by all agents are multiplied only once.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch as th
from torch import nn
from torch.nn import functional as F

from epymarl_lite.components.episode_buffer import EpisodeBatch, Scheme


def _size(vshape: int | tuple[int, ...]) -> int:
    return vshape if isinstance(vshape, int) else vshape[0]


def _times(t: int | None) -> slice:
    return slice(None) if t is None else slice(t, t + 1)


class _ValueCritic(nn.Module):
    """`fc1` -> ReLU -> `fc2` -> ReLU -> `fc3`, on features followed by the agent's one-hot."""

    def __init__(self, features: int, args: SimpleNamespace) -> None:
        super().__init__()
        self.n_agents: int = args.n_agents
        self.fc1 = nn.Linear(features + self.n_agents, args.hidden_dim)
        self.fc2 = nn.Linear(args.hidden_dim, args.hidden_dim)
        self.fc3 = nn.Linear(args.hidden_dim, 1)

    def _values(self, features: th.Tensor) -> th.Tensor:
        """Compute values `(batch, time, agents, 1)` of features `(batch, time, agents or 1, features)`."""
        width = features.shape[-1]
        weight = self.fc1.weight
        x = F.linear(features, weight[:, :width], self.fc1.bias) + weight[:, width:].T
        return self.fc3(F.relu(self.fc2(F.relu(x))))


class _OwnValueCritics(nn.Module):
    """A network of its own for each agent, on the same features without a one-hot."""

    def __init__(self, features: int, args: SimpleNamespace) -> None:
        super().__init__()
        self.n_agents: int = args.n_agents
        width = args.hidden_dim
        self.critics = nn.ModuleList(
            nn.Sequential(
                nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
            )
            for _ in range(self.n_agents)
        )

    def _values(self, features: th.Tensor) -> th.Tensor:
        """Compute values `(batch, time, agents, 1)` of features `(batch, time, agents or 1, features)`."""
        own = features.expand(-1, -1, self.n_agents, -1).unbind(2)
        return th.stack([critic(part) for critic, part in zip(self.critics, own, strict=True)], dim=2)


class _Central:
    """What a central critic sees: the state and, if configured, all agents' observations and previous actions."""

    _values: Callable[[th.Tensor], th.Tensor]

    def __init__(self, scheme: Scheme, args: SimpleNamespace) -> None:
        """Read `n_agents`, `n_actions`, `hidden_dim`, `obs_individual_obs` and `obs_last_action` from `args`."""
        features = _size(scheme["state"]["vshape"])
        features += args.n_agents * _size(scheme["obs"]["vshape"]) if args.obs_individual_obs else 0
        features += args.n_agents * args.n_actions if args.obs_last_action else 0
        super().__init__(features, args)  # type: ignore[call-arg]  # the other parent builds the networks
        self.obs_individual_obs = args.obs_individual_obs
        self.obs_last_action = args.obs_last_action

    def forward(self, batch: EpisodeBatch, t: int | None = None) -> th.Tensor:
        """Compute values `(batch, time, agents, 1)` at time `t`, or at all times of the batch."""
        ts = _times(t)
        shared = [batch["state"][:, ts]]
        if self.obs_individual_obs:
            shared.append(batch["obs"][:, ts].flatten(2))
        if self.obs_last_action:
            taken = batch["actions_onehot"].flatten(2)
            shared.append(F.pad(taken[:, :-1], (0, 0, 1, 0))[:, ts])
        return self._values(th.cat(shared, dim=-1).unsqueeze(2))


class _Individual:
    """What an individual critic sees: the agent's own observation."""

    _values: Callable[[th.Tensor], th.Tensor]

    def __init__(self, scheme: Scheme, args: SimpleNamespace) -> None:
        """Read `n_agents` and `hidden_dim` from `args`."""
        super().__init__(_size(scheme["obs"]["vshape"]), args)  # type: ignore[call-arg]  # as above

    def forward(self, batch: EpisodeBatch, t: int | None = None) -> th.Tensor:
        """Compute values `(batch, time, agents, 1)` at time `t`, or at all times of the batch."""
        return self._values(batch["obs"][:, _times(t)])


class CentralVCritic(_Central, _ValueCritic):
    """Central critic that all agents share."""


class ACCritic(_Individual, _ValueCritic):
    """Individual critic that all agents share."""


class CentralVCriticNS(_Central, _OwnValueCritics):
    """Central critics, one for each agent."""


class ACCriticNS(_Individual, _OwnValueCritics):
    """Individual critics, one for each agent."""
