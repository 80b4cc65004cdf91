"""``hetero_mac``: decentralised agents, each with its own width and its own view of the observation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_controllers.messages import Radio, draw_delivered, read_messages
from kd_controllers.policy_mac import PolicyMAC, check_hidden_dim
from kd_controllers.student_net import HeteroStudent
from kd_controllers.student_registry import make_student
from kd_core.costs.boards import read_budget
from kd_core.costs.budget import Budget, check_widths, fit_widths
from kd_core.errors import UserError
from kd_envs.hetero_mask.mask import ObservationMask, before
from kd_envs.hetero_mask.presets import default_widths, scaled_widths


class HeteroMAC(PolicyMAC):
    """EPyMARL controller around :class:`HeteroStudent`.

    With ``mask_at: controller`` the environment gives full observations, and this controller hides what each episode's
    mask hides. With ``mask_at: environment`` the observations arrive masked. Both choose the same actions.

    Attributes:
        mask: the features that each agent sees.
        visible: the masks of the episodes being played, float32 ``(batch, agents, features)``, 1 where visible. None
            where the mask is the same in every episode or the environment draws it.
        budgets: each agent's budget on its board, or None where the run has no ``budget``.
        messages: what the agents tell each other, or None where they are silent.
        test_loss: probability that a message is lost on a link in test mode, where training's does not count.
    """

    agent: HeteroStudent

    def __init__(self, scheme: Mapping[str, Any], groups: Any, args: Any, mask: ObservationMask) -> None:
        super().__init__(args)
        self.mask = mask
        self.masks_here = args.mask_at == "controller"
        expected = self.mask.layout.obs_size if self.masks_here else self.mask.obs_size
        size = scheme["obs"]["vshape"]
        assert size == expected, f"the mask is for observations of {expected} features, the scheme has {size}"
        widths, self.budgets = student_widths(args, mask)
        visible = [self.mask.indices(i) for i in range(self.n_agents)]
        self.messages = read_messages(args, mask.layout.agent_names)
        self.agent = make_student(args, widths, visible, self.messages)
        self.test_loss = 0.0
        self._delivered: list[Tensor] = []
        self.visible: Tensor | None = None
        self._episode = -1

    def initial_hidden(self, batch_size: int) -> Tensor:
        """Return zeros ``(batch, agents, state_size)``, float32."""
        return torch.zeros(batch_size, self.n_agents, self.agent.state_size, device=self._device)

    def init_hidden(self, batch_size: int) -> None:
        """Begin a block of episodes: reset the recurrent state and, where this controller masks, draw masks.

        Row i of the block is the environment that the host seeds with ``seed + i``. So the masks are those that
        ``MaskedEnv`` draws there.
        """
        super().init_hidden(batch_size)
        self._delivered = []
        if self.masks_here and self.mask.draw_per_episode:
            self._episode += 1
            seed = self.args.env_args["seed"]
            drawn = np.stack([self.mask.draw(seed + row, self._episode) for row in range(batch_size)])
            self.visible = torch.from_numpy(drawn.astype(np.float32)).to(self._device)

    def forward(self, ep_batch: Any, t: int, test_mode: bool = False, bs: Any = slice(None)) -> Tensor:
        """Compute probabilities at time ``t``; see :class:`PolicyMAC`. Messages may be lost on the way."""
        loss = 0.0 if self.messages is None else self.test_loss if test_mode else self.messages.loss
        if loss:
            drawn = draw_delivered(loss, [len(self.hidden_states)], self.n_agents)
            self._delivered.append(drawn.to(self._device))
        return super().forward(ep_batch, t, test_mode, bs)

    def step(self, ep_batch: Any, t: int, hidden: Tensor, bs: Any) -> tuple[Tensor, Tensor]:
        """Run one step of the episodes ``bs``; see :class:`PolicyMAC`."""
        visible = None if self.visible is None else self.visible[bs]
        obs = ep_batch["obs"][:, t : t + 1][bs]
        last_actions = None
        if self.mask.own_actions and self.masks_here:
            taken = ep_batch["actions"][:, max(t - 1, 0)][bs].squeeze(-1).unsqueeze(1)
            last_actions = taken if t else torch.full_like(taken, -1)
        radio = None
        if self.messages is not None:
            speaks = self.messages.speaks(ep_batch["avail_actions"][:, t : t + 1][bs], first=t)
            radio = Radio(speaks[:, 0], self._delivered[-1][bs] if self._delivered else None)
        return self.agent.advance(self._seen(obs, visible, last_actions), hidden, radio)

    def forward_episodes(self, ep_batch: Any, steps: int) -> Tensor:
        """Compute the outputs of :meth:`forward` at times ``0..steps-1`` from the episodes' start, in one call.

        A learner of the bundled host calls it instead of one step at a time.

        Returns:
            ``(batch, steps, agents, actions)`` float32.
        """
        last_actions = before(ep_batch["actions"][:, :steps].squeeze(-1))
        available = ep_batch["avail_actions"][:, :steps]
        logits, _ = self.unroll(ep_batch["obs"][:, :steps], self.visible, last_actions, self.radio(available))
        return self.outputs(logits, available)

    def radio(self, avail: Tensor) -> Radio | None:
        """Return which messages of the block of episodes just played were sent and arrived; None of a silent team.

        Args:
            avail: ``(batch, time, agents, actions)``, 1 where available.
        """
        if self.messages is None:
            return None
        delivered = torch.stack(self._delivered, dim=1)[:, : avail.shape[1]] if self._delivered else None
        return Radio(self.messages.speaks(avail), delivered)

    def unroll(
        self, obs: Tensor, visible: Tensor | None, last_actions: Tensor | None = None, radio: Radio | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run the students along whole episodes from their start.

        Args:
            obs: ``(batch, time, agents, obs_size)`` float32, as the run's environments give it.
            visible: ``(batch, agents, features)``, the masks of the episodes, or None for the mask's own.
            last_actions: ``(batch, time, agents)`` int64, -1 before the first; read where this controller adds them.
            radio: of these steps, as `radio` returns it; needed where the agents talk.

        Returns:
            Logits ``(batch, time, agents, actions)`` and embeddings ``(batch, time, agents, max_width)``.
        """
        assert radio is not None or self.messages is None, "who spoke is part of what a talking team hears"
        return self.agent.unroll(self._seen(obs, visible, last_actions), radio)

    def _seen(self, obs: Tensor, visible: Tensor | None, last_actions: Tensor | None) -> Tensor:
        """Compute the inputs of the students' networks from observations ``(batch, time, agents, obs_size)``."""
        return self.mask.apply(obs, last_actions, visible) if self.masks_here else obs

    def load_models(self, path: str) -> None:
        """Read ``agent.th`` from the folder ``path``.

        Raises:
            UserError: it holds students of other widths.
        """
        try:
            super().load_models(path)
        except RuntimeError as error:
            raise UserError(
                f"{path} holds students of other widths than {list(self.agent.widths)}: "
                "give the limits, widths and budget of the run that saved them"
            ) from error

    @property
    def _device(self) -> torch.device:
        return next(self.agent.parameters()).device


def student_widths(args: Any, mask: ObservationMask) -> tuple[tuple[int, ...], tuple[Budget, ...] | None]:
    """Read the agents' widths and budgets from a run's namespace.

    With ``budget`` and ``widths=auto`` each agent is as wide as its board allows; other widths must fit.

    Args:
        args: ``widths``, ``budget``, ``agent``, ``limits``, ``hidden_dim`` and ``n_actions``.
        mask: the features that each agent sees.

    Raises:
        UserError: impossible widths, a budget that cannot be read, or an agent that does not fit its own.
    """
    if args.budget and args.agent != "rnn":
        raise UserError(
            f"budget sizes recurrent students, and agent={args.agent} is none: leave budget out, or set agent=rnn"
        )
    if not args.budget:
        return read_widths(args.widths, mask, args.limits, args.hidden_dim), None
    names = mask.layout.agent_names
    # All features that an agent may ever see, even where an episode shows fewer.
    inputs = [len(mask.indices(i)) for i in range(mask.n_agents)]
    team = read_budget(args.budget, names)
    messages = read_messages(args, names)
    exchanged = None if messages is None else [messages.exchanged(i) for i in range(mask.n_agents)]
    if messages is not None and any(budget.weights == "int8" for budget in team.agents):
        raise UserError("C with int8 weights is for silent students: give a budget of float32, or message_bits=0")
    if args.widths == "auto":
        largest = team.largest_width
        return fit_widths(team.agents, names, inputs, args.n_actions, largest, exchanged), team.agents
    widths = read_widths(args.widths, mask, args.limits, args.hidden_dim)
    check_widths(team.agents, names, inputs, widths, args.n_actions, exchanged)
    return widths, team.agents


def read_widths(given: Any, mask: ObservationMask, limits: str, width: int) -> tuple[int, ...]:
    """Read the agents' widths from the run's keys.

    Args:
        given: ``widths``: None (by ``limits``), a number for all, one number per agent, or ``"auto"``.
        mask: the features that each agent sees.
        limits: ``fo``, ``lh`` or ``lha``.
        width: ``hidden_dim``, the common width of ``fo`` and ``lh``.

    Raises:
        UserError: a wrong number of widths, or a width that is not a positive whole number.
    """
    if given is None or given == "":
        check_hidden_dim(width)
        widths: Sequence[Any] = default_widths(mask.layout, mask, limits, width)
    elif given == "auto":
        widths = scaled_widths(mask)
    elif isinstance(given, int):
        widths = [given] * mask.n_agents
    else:
        widths = given
    if not isinstance(widths, list | tuple) or not all(type(w) is int and w > 0 for w in widths):
        raise UserError(f"widths is {given!r}: expected a list such as [16, 32, 32], one number, or auto")
    if len(widths) != mask.n_agents:
        raise UserError(
            f"widths has {len(widths)} numbers, but {mask.layout.task} has {mask.n_agents} agents: give one each"
        )
    return tuple(widths)
