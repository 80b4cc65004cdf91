"""The part of a controller that teacher and student share: EPyMARL's interface around one ``unroll``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kd_core.errors import UserError
from kd_core.host import get_host

UNAVAILABLE_LOGIT = -1e10


def check_hidden_dim(value: Any) -> None:
    """Refuse a ``hidden_dim`` that is not a positive whole number of units.

    Raises:
        UserError: ``value`` is not a positive whole number.
    """
    if type(value) is not int or value < 1:
        raise UserError(f"hidden_dim is {value!r}: expected a number of units of at least 1")


class PolicyMAC:
    """EPyMARL's controller interface over a network that can be unrolled along whole sequences.

    A subclass sets ``self.agent`` and implements :meth:`step` and :meth:`initial_hidden`.

    Attributes:
        agent: the network, an ``nn.Module``.
        greedy: in test mode take the most probable available action instead of sampling (``test_greedy``; EPyMARL's
            ``soft_policies`` selector ignores that key and samples).
        hidden_states: recurrent state of the episodes being played, as :meth:`step` returned it.
    """

    agent: nn.Module

    def __init__(self, args: Any) -> None:
        self.args = args
        self.n_agents: int = args.n_agents
        self.agent_output_type: str = args.agent_output_type
        self.action_selector = get_host().action_selectors[args.action_selector](args)
        self.greedy = bool(args.test_greedy)
        self.hidden_states: Any = None

    def initial_hidden(self, batch_size: int) -> Any:
        """Return the recurrent state before the first step of ``batch_size`` episodes."""
        raise NotImplementedError

    def step(self, ep_batch: Any, t: int, hidden: Any, bs: Any) -> tuple[Tensor, Any]:
        """Compute outputs (logits or values) at time ``t`` and the next recurrent state.

        Args:
            ep_batch: the host's batch.
            t: step of the episodes.
            hidden: recurrent state of the episodes ``bs``.
            bs: the episodes: ``slice(None)`` or a list of rows.

        Returns:
            Outputs ``(rows, agents, actions)`` float32, and the state, as `initial_hidden` returns it.
        """
        raise NotImplementedError

    def init_hidden(self, batch_size: int) -> None:
        """Reset the recurrent state; the host calls this before each block of episodes."""
        self.hidden_states = self.initial_hidden(batch_size)

    def forward(self, ep_batch: Any, t: int, test_mode: bool = False, bs: Any = slice(None)) -> Tensor:
        """Compute action probabilities (``agent_output_type: pi_logits``) or values at time ``t``.

        Returns:
            ``(rows, agents, actions)`` float32 of the episodes ``bs``. Unavailable actions have probability 0; a row
            without any available action (padding) is uniform, as in the host's own controllers.
        """
        some = not isinstance(bs, slice) and self.hidden_states is not None
        outputs, hidden = self.step(ep_batch, t, self.hidden_states[bs] if some else self.hidden_states, bs)
        if some:
            self.hidden_states[bs] = hidden
        else:
            self.hidden_states = hidden
        return self.outputs(outputs, ep_batch["avail_actions"][:, t][bs])

    def outputs(self, raw: Tensor, available: Tensor) -> Tensor:
        """Convert a policy's logits to probabilities; values are returned unchanged.

        Args:
            raw: ``(..., actions)`` float32.
            available: ``(..., actions)``, 1 where the action is available.

        Returns:
            ``(..., actions)`` float32.
        """
        if self.agent_output_type != "pi_logits":
            return raw
        return torch.softmax(raw.masked_fill(available == 0, UNAVAILABLE_LOGIT), dim=-1)

    @torch.no_grad()
    def select_actions(
        self,
        ep_batch: Any,
        t_ep: int,
        t_env: int,
        bs: Any = slice(None),
        test_mode: bool = False,
    ) -> Tensor:
        """Choose actions of the episodes ``bs``, int64 ``(len(bs), agents)``, and advance their recurrent states."""
        outputs = self.forward(ep_batch, t_ep, test_mode=test_mode, bs=bs)
        available = ep_batch["avail_actions"][:, t_ep][bs]
        if test_mode and self.greedy and self.agent_output_type == "pi_logits":
            return outputs.masked_fill(available == 0, -1.0).argmax(dim=-1)
        return self.action_selector.select_action(outputs, available, t_env, test_mode=test_mode)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the network's parameters."""
        return self.agent.parameters()

    def load_state(self, other_mac: PolicyMAC) -> None:
        """Copy another controller's weights."""
        self.agent.load_state_dict(other_mac.agent.state_dict())

    def cuda(self) -> None:
        """Move the network to the GPU."""
        self.agent.to(self.args.device)

    def save_models(self, path: str) -> None:
        """Write ``agent.th`` into the folder ``path``."""
        torch.save(self.agent.state_dict(), f"{path}/agent.th")

    def load_models(self, path: str) -> None:
        """Read ``agent.th`` from the folder ``path``."""
        self.agent.load_state_dict(torch.load(f"{path}/agent.th", map_location="cpu", weights_only=True))
