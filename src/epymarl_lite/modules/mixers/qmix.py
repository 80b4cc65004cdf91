"""QMIX: a mixing network whose weights are non-negative functions of the state."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch as th
from torch import nn
from torch.nn import functional as F

from epymarl_lite.utils.errors import ConfigError


class QMixer(nn.Module):
    """QMIX's mixing network: `Q_tot = ELU(q |W1(s)| + b1(s)) |w2(s)| + V(s)`."""

    def __init__(self, args: SimpleNamespace) -> None:
        """Read `n_agents`, `state_shape`, `mixing_embed_dim`, `hypernet_layers` (1 or 2) and `hypernet_embed`.

        Raises:
            ConfigError: another number of `hypernet_layers`.
        """
        super().__init__()
        self.n_agents: int = args.n_agents
        self.embed_dim: int = args.mixing_embed_dim
        self.state_dim = int(np.prod(args.state_shape))
        layers = getattr(args, "hypernet_layers", 1)
        if layers not in (1, 2):
            raise ConfigError(f"hypernet_layers={layers}: QMIX's hypernetworks have 1 or 2 layers")

        def hypernet(out: int) -> nn.Module:
            if layers == 1:
                return nn.Linear(self.state_dim, out)
            inner = args.hypernet_embed
            return nn.Sequential(nn.Linear(self.state_dim, inner), nn.ReLU(), nn.Linear(inner, out))

        self.hyper_w_1 = hypernet(self.embed_dim * self.n_agents)
        self.hyper_w_final = hypernet(self.embed_dim)
        self.hyper_b_1 = nn.Linear(self.state_dim, self.embed_dim)
        self.V = nn.Sequential(nn.Linear(self.state_dim, self.embed_dim), nn.ReLU(), nn.Linear(self.embed_dim, 1))

    def forward(self, agent_qs: th.Tensor, states: th.Tensor) -> th.Tensor:
        """Mix values `(batch, time, agents)` under states `(batch, time, state)` to `(batch, time, 1)`."""
        w1 = self.hyper_w_1(states).abs().unflatten(-1, (self.n_agents, self.embed_dim))
        hidden = F.elu((agent_qs.unsqueeze(-2) @ w1).squeeze(-2) + self.hyper_b_1(states))
        w2 = self.hyper_w_final(states).abs()
        return (hidden * w2).sum(dim=-1, keepdim=True) + self.V(states)
