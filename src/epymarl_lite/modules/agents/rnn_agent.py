"""The agent network that all agents share: linear, GRU (or linear), linear."""

from __future__ import annotations

from types import SimpleNamespace

import torch as th
from torch import nn
from torch.nn import functional as F


class RNNAgent(nn.Module):
    """`fc1` -> ReLU -> `rnn` -> `fc2`, where `rnn` is a GRU cell or, without `use_rnn`, a linear layer with ReLU."""

    def __init__(self, input_shape: int, args: SimpleNamespace) -> None:
        """Read `hidden_dim`, `use_rnn` and `n_actions` from `args`."""
        super().__init__()
        hidden = args.hidden_dim
        self.hidden_dim = hidden
        self.fc1 = nn.Linear(input_shape, hidden)
        self.rnn: nn.GRUCell | nn.Linear = nn.GRUCell(hidden, hidden) if args.use_rnn else nn.Linear(hidden, hidden)
        self.fc2 = nn.Linear(hidden, args.n_actions)

    def init_hidden(self) -> th.Tensor:
        """Return a zero hidden state `(1, hidden)`, float32, on the network's device."""
        return self.fc1.weight.new_zeros(1, self.hidden_dim)

    def forward(self, inputs: th.Tensor, hidden_state: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Advance `(rows, input)` by one step.

        Returns:
            Outputs `(rows, actions)` and the new state `(rows, hidden)`, float32.
        """
        x = F.relu(self.fc1(inputs))
        if isinstance(self.rnn, nn.GRUCell):
            h = self.rnn(x, hidden_state.reshape(-1, self.hidden_dim))
        else:
            h = F.relu(self.rnn(x))
        return self.fc2(h), h

    def forward_sequence(self, inputs: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Run whole sequences `(batch, time, agents, input)` from a zero state.

        The input layers process all steps at once, and the recurrence is one call. The arithmetic is that of `forward`
        step by step, in a fraction of the time.

        Returns:
            Outputs `(batch, time, agents, actions)` and hidden states `(batch, time, agents, hidden)`.
        """
        x = F.relu(self.fc1(inputs))
        if not isinstance(self.rnn, nn.GRUCell):
            h = F.relu(self.rnn(x))
            return self.fc2(h), h
        batch, time, agents, width = x.shape
        steps_first = x.transpose(0, 1).reshape(time, batch * agents, width)
        weights = [self.rnn.weight_ih, self.rnn.weight_hh, self.rnn.bias_ih, self.rnn.bias_hh]
        start = x.new_zeros(1, batch * agents, width)
        # A GRU cell's weights have the layout of a one-layer GRU's. The positional arguments after them: biases,
        # number of layers, dropout, training, bidirectional, batch first.
        h, _ = th.gru(steps_first, start, weights, True, 1, 0.0, self.training, False, False)
        h = h.reshape(time, batch, agents, width).transpose(0, 1)
        return self.fc2(h), h
