"""Value critics: one from the whole team's information, one from each agent's own observation.

The input of both ends with the agent's one-hot. Its product with the first layer is a column of that layer's weight. So
no one-hot is built, and inputs shared by all agents are multiplied only once.
"""

from __future__ import annotations

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


class CentralVCritic(_ValueCritic):
    """Critic of the state and, if configured, of all agents' observations and previous actions."""

    def __init__(self, scheme: Scheme, args: SimpleNamespace) -> None:
        """Read `n_agents`, `n_actions`, `hidden_dim`, `obs_individual_obs` and `obs_last_action` from `args`."""
        self_obs = args.obs_individual_obs
        features = _size(scheme["state"]["vshape"])
        features += args.n_agents * _size(scheme["obs"]["vshape"]) if self_obs else 0
        features += args.n_agents * args.n_actions if args.obs_last_action else 0
        super().__init__(features, args)
        self.obs_individual_obs = self_obs
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


class ACCritic(_ValueCritic):
    """Critic of the agent's own observation."""

    def __init__(self, scheme: Scheme, args: SimpleNamespace) -> None:
        """Read `n_agents` and `hidden_dim` from `args`."""
        super().__init__(_size(scheme["obs"]["vshape"]), args)

    def forward(self, batch: EpisodeBatch, t: int | None = None) -> th.Tensor:
        """Compute values `(batch, time, agents, 1)` at time `t`, or at all times of the batch."""
        return self._values(batch["obs"][:, _times(t)])
