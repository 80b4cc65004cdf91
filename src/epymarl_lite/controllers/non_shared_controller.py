"""The controller whose agents each have a network of their own."""

from __future__ import annotations

from epymarl_lite.controllers.basic_controller import BasicMAC


class NonSharedMAC(BasicMAC):
    """Controller of agents such as `rnn_ns`; hidden states are `(batch, agents, hidden)` at all times."""
