"""A stock controller of the host behind the plug-in's interface, so that it can be evaluated greedily too."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kd_controllers.policy_mac import PolicyMAC


class HostPolicyMAC(PolicyMAC):
    """Plays the network of a stock controller, for example mappo's after its training.

    With ``agent_output_type: q`` the host's own selector decides, which is greedy in test mode.
    """

    def __init__(self, mac: Any, args: Any) -> None:
        super().__init__(args)
        self.mac, self.agent = mac, mac.agent

    def initial_hidden(self, batch_size: int) -> None:
        """Reset the recurrent state, which the stock controller stores itself."""
        self.mac.init_hidden(batch_size)

    def forward(self, ep_batch: Any, t: int, test_mode: bool = False, bs: Any = slice(None)) -> Tensor:
        """Compute probabilities or values ``(rows, agents, actions)``, float32."""
        return self.mac.forward(ep_batch, t, test_mode=test_mode)[bs]
