"""The controller whose agents share one network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch as th
from torch import nn
from torch.nn import functional as F

from epymarl_lite.components.action_selectors import REGISTRY as SELECTORS
from epymarl_lite.components.episode_buffer import EpisodeBatch, Groups, Index, Scheme
from epymarl_lite.controllers.unrolling import step_by_step
from epymarl_lite.modules.agents import REGISTRY as AGENTS
from epymarl_lite.utils.errors import registered

UNAVAILABLE_LOGIT = -1e10  # finite, so that a row without any available action becomes uniform and not NaN


class BasicMAC:
    """Controller that builds the agents' inputs, stores their hidden states and selects their actions.

    Attributes:
        hidden_states: `(batch, agents, hidden)` after `init_hidden`, `(batch * agents, hidden)` after a step.
    """

    def __init__(self, scheme: Scheme, groups: Groups, args: SimpleNamespace) -> None:
        """Build the network and the action selector that `args` names."""
        self.n_agents: int = args.n_agents
        self.args = args
        self.agent: Any = registered(AGENTS, "agent", args.agent)(self._get_input_shape(scheme), args)
        self.agent_output_type: str = args.agent_output_type
        self.action_selector = SELECTORS[args.action_selector](args)
        self.hidden_states: th.Tensor | None = None

    @th.no_grad()
    def select_actions(
        self, ep_batch: EpisodeBatch, t_ep: int, t_env: int, bs: Index = slice(None), test_mode: bool = False
    ) -> th.Tensor:
        """Select actions `(len(bs), agents)` at time `t_ep`; the forward pass always covers the whole batch."""
        outputs = self.forward(ep_batch, t_ep, test_mode=test_mode)
        avail = ep_batch["avail_actions"][:, t_ep]
        return self.action_selector.select_action(outputs[bs], avail[bs], t_env, test_mode=test_mode)

    def forward(self, ep_batch: EpisodeBatch, t: int, test_mode: bool = False) -> th.Tensor:
        """Advance all episodes to time `t`, and return probabilities or action values `(batch, agents, actions)`."""
        inputs = self._build_inputs(ep_batch, t, t + 1).flatten(0, 2)
        outputs, self.hidden_states = self.agent(inputs, self.hidden_states)
        outputs = outputs.reshape(ep_batch.batch_size, self.n_agents, -1)
        return self._finish(outputs, ep_batch["avail_actions"][:, t])

    def forward_episodes(self, ep_batch: EpisodeBatch, steps: int) -> th.Tensor:
        """Compute the outputs of `forward` at times `0..steps-1` from zero hidden states, in one call.

        The stored hidden states do not change. A subclass with its own `forward`, or an agent without
        `forward_sequence`, is run step by step.

        Returns:
            `(batch, steps, agents, actions)` float32.
        """
        if type(self).forward is not BasicMAC.forward or not hasattr(self.agent, "forward_sequence"):
            return step_by_step(self, ep_batch, steps)
        outputs, _ = self.agent.forward_sequence(self._build_inputs(ep_batch, 0, steps))
        return self._finish(outputs, ep_batch["avail_actions"][:, :steps])

    def _finish(self, outputs: th.Tensor, avail: th.Tensor) -> th.Tensor:
        """Convert logits `(..., actions)` to probabilities of the available actions; action values do not change."""
        if self.agent_output_type != "pi_logits":
            return outputs
        if getattr(self.args, "mask_before_softmax", True):
            outputs = outputs.masked_fill(avail == 0, UNAVAILABLE_LOGIT)
        return outputs.softmax(dim=-1)

    def init_hidden(self, batch_size: int) -> None:
        """Set the hidden states to zero, `(batch, agents, hidden)`."""
        self.hidden_states = self.agent.init_hidden().unsqueeze(0).expand(batch_size, self.n_agents, -1)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the network's parameters."""
        return self.agent.parameters()

    def load_state(self, other_mac: BasicMAC) -> None:
        """Copy the weights of another controller."""
        self.agent.load_state_dict(other_mac.agent.state_dict())

    def cuda(self) -> None:
        """Move the network to the GPU."""
        self.agent.cuda()

    def save_models(self, path: str | Path) -> None:
        """Write `agent.th` in the folder `path`."""
        th.save(self.agent.state_dict(), Path(path) / "agent.th")

    def load_models(self, path: str | Path) -> None:
        """Read `agent.th` from the folder `path`."""
        self.agent.load_state_dict(th.load(Path(path) / "agent.th", map_location="cpu", weights_only=True))

    def _build_inputs(self, batch: EpisodeBatch, start: int, stop: int) -> th.Tensor:
        """Build inputs `(batch, stop - start, agents, input)`: observation, previous action, agent's one-hot."""
        obs = batch["obs"][:, start:stop]
        inputs = [obs]
        if self.args.obs_last_action:
            taken = batch["actions_onehot"][:, max(start - 1, 0) : stop - 1]
            # At the first step there is no previous action: zeros.
            inputs.append(F.pad(taken, (0, 0, 0, 0, 1, 0)) if start == 0 else taken)
        if self.args.obs_agent_id:
            ids = th.eye(self.n_agents, device=obs.device)
            inputs.append(ids.expand(*obs.shape[:2], -1, -1))
        return th.cat(inputs, dim=-1) if len(inputs) > 1 else obs

    def _get_input_shape(self, scheme: Scheme) -> int:
        """Compute the width of one agent's input."""
        vshape = scheme["obs"]["vshape"]
        width = vshape if isinstance(vshape, int) else vshape[0]
        if self.args.obs_last_action:
            width += scheme["actions_onehot"]["vshape"][0]
        if self.args.obs_agent_id:
            width += self.n_agents
        return width
