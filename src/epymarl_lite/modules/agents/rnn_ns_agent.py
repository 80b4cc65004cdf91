"""An agent network without sharing: each agent has its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import torch as th
from torch import nn

from epymarl_lite.modules.agents.rnn_agent import RNNAgent


class RNNNSAgent(nn.Module):
    """A list of `n_agents` networks; input rows are ordered (batch, agent)."""

    def __init__(self, input_shape: int, args: SimpleNamespace) -> None:
        """Build `args.n_agents` separate networks."""
        super().__init__()
        self.agents = nn.ModuleList(RNNAgent(input_shape, args) for _ in range(args.n_agents))

    def _networks(self) -> list[RNNAgent]:
        return cast(list[RNNAgent], list(self.agents))

    def init_hidden(self) -> th.Tensor:
        """Return zero hidden states `(agents, hidden)`, float32."""
        return th.cat([agent.init_hidden() for agent in self._networks()])

    def forward(self, inputs: th.Tensor, hidden_state: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Advance `(batch * agents, input)` by one step.

        Returns:
            Outputs `(batch * agents, actions)` and the new state `(batch, agents, hidden)`.
        """
        rows = inputs.reshape(-1, len(self.agents), inputs.shape[-1])
        # Weights are separate, so each network needs its own call.
        steps = [agent(rows[:, i], hidden_state[:, i]) for i, agent in enumerate(self.agents)]
        outputs = th.stack([out for out, _ in steps], dim=1)
        return outputs.flatten(0, 1), th.stack([h for _, h in steps], dim=1)

    def forward_sequence(self, inputs: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Run whole sequences `(batch, time, agents, input)` from zero states, as `RNNAgent.forward_sequence` does."""
        runs = [agent.forward_sequence(inputs[:, :, i : i + 1]) for i, agent in enumerate(self._networks())]
        return th.cat([out for out, _ in runs], dim=2), th.cat([h for _, h in runs], dim=2)
