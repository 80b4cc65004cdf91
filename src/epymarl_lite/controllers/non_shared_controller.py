"""The controller whose agents each have a network of their own."""

from __future__ import annotations

from epymarl_lite.controllers.basic_controller import BasicMAC


class NonSharedMAC(BasicMAC):
    """For agents such as `rnn_ns`, which keep their hidden states apart: `(batch, agents, hidden)` at all times."""
