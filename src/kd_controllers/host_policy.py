"""A stock controller of the host behind the plug-in's interface, so that it can be evaluated greedily too."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import Tensor

from kd_controllers.policy_mac import PolicyMAC


class HostPolicyMAC(PolicyMAC):
    """Plays the network of a stock controller, for example mappo's after its training.

    With ``agent_output_type: q`` the host's own selector decides, which is greedy in test mode. A controller without a
    selector (MADDPG's) has logits and draws with Gumbel noise: the same as to sample from their softmax.
    """

    def __init__(self, mac: Any, args: Any) -> None:
        self._has_selector = getattr(mac, "action_selector", None) is not None
        super().__init__(args if self._has_selector else SimpleNamespace(**vars(args), action_selector="soft_policies"))
        self.mac, self.agent = mac, mac.agent

    def initial_hidden(self, batch_size: int) -> None:
        """Reset the recurrent state, which the stock controller stores itself."""
        self.mac.init_hidden(batch_size)

    def forward(self, ep_batch: Any, t: int, test_mode: bool = False, bs: Any = slice(None)) -> Tensor:
        """Compute probabilities or values ``(rows, agents, actions)``, float32."""
        if self._has_selector:
            return self.mac.forward(ep_batch, t, test_mode=test_mode)[bs]
        return self.outputs(self.mac.forward(ep_batch, t), ep_batch["avail_actions"][:, t])[bs]
