"""A frozen teacher that learnt action values (QMIX, VDN, IQL), as a policy and a critic for students.

Its policy is pi_T = softmax(Q_i / temperature) over the available actions: a policy network whose last layer is the
checkpoint's, divided by the temperature. Its critic is V(s) = Q_tot at the greedy joint action.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kd_controllers.teacher_mac import unroll_ragged
from kd_core.artifacts.teacher import TeacherArtifact
from kd_core.errors import UserError
from kd_learners import mixers
from kd_learners.advantages import without_others
from kd_learners.batches import Episodes
from kd_learners.frozen_teacher import FrozenTeacher

# A temperature at which acting is greedy, in any unit of reward.
GREEDY = 1e-6


def frozen_teacher(artifact: TeacherArtifact, args: Any) -> FrozenTeacher:
    """Load a teacher of the kind that its checkpoint is.

    Args:
        artifact: as read from disk.
        args: the run's namespace.

    Raises:
        UserError: its weights do not fit its facts.
    """
    return (ValueTeacher if artifact.learnt_values else FrozenTeacher)(artifact, args)


class ValueTeacher(FrozenTeacher):
    """A loaded QMIX, VDN or IQL teacher, whose values never change.

    Attributes:
        temperature: of its policy, in the unit of its values; 1 where no buffer has told it.
        by_credit: whether its advantages are each agent's own (``advantage: credit``); it then has a mixer.
    """

    learns_values = True

    def __init__(self, artifact: TeacherArtifact, args: Any) -> None:
        super().__init__(artifact, args)
        networks = getattr(self.mac.agent, "agents", [self.mac.agent])
        self._last_layers = [(value, value.clone()) for network in networks for value in network.fc2.parameters()]
        self.set_temperature(artifact.facts.get("temperature") or 1.0)
        self.by_credit = False

    def _load_critic(self, args: Any) -> None:
        self.mixer = self.artifact.critic_state
        self.mixed = self.artifact.facts["critic_type"] != "iql"
        if self.mixer:
            # Read once, so that a damaged mixer is found here.
            try:
                state = torch.zeros(1, args.state_shape)
                mixers.team_value(torch.zeros(1, self.sizes.n_agents), state, self.mixer)
            except KeyError as error:
                raise RuntimeError(f"the mixer lacks {error}") from None

    def _move_critic(self, device: torch.device | str) -> None:
        self.mixer = {name: value.to(device) for name, value in self.mixer.items()}
        self._last_layers = [(parameter, value.to(device)) for parameter, value in self._last_layers]

    @torch.no_grad()
    def set_temperature(self, temperature: float) -> None:
        """Change the temperature of its policy."""
        self.temperature = temperature
        for parameter, value in self._last_layers:
            parameter.copy_(value / temperature)

    @torch.no_grad()
    def action_values(self, episodes: Episodes) -> Tensor:
        """Compute Q_i of every observed step, ``(batch, time + 1, agents, actions)`` float32."""
        inputs = self.mac.episode_inputs(vars(episodes))
        logits, _ = unroll_ragged(self.mac.agent, inputs, episodes.length + 1)
        return logits * self.temperature

    @torch.no_grad()
    def values(self, episodes: Episodes) -> Tensor:
        """Compute V(s) of every state: Q_tot at the greedy joint action, or each IQL agent's own greatest value.

        Returns:
            ``(batch, time + 1, agents)`` float32; meaningless after an episode's end.
        """
        best = greatest(self.action_values(episodes), episodes.avail_actions)
        if not self.mixed:
            return self.scaled(best)
        team = best.new_zeros(best.shape[:2])
        where = episodes.observed
        team[where] = mixers.team_value(best[where], episodes.state[where], self.mixer)
        return self.scaled(team.unsqueeze(-1)).expand_as(best)

    def advantages(self, episodes: Episodes, gamma: float, gae_lambda: float) -> Tensor:
        """Compute the advantages of Eqs. 1 and 2; by credit the others' regrets are taken out of each agent's."""
        team = super().advantages(episodes, gamma, gae_lambda)
        return without_others(team, self.regrets(episodes)) if self.by_credit else team

    @torch.no_grad()
    def regrets(self, episodes: Episodes) -> Tensor:
        """Compute what each agent's action cost the team, weighted as the mixer does at the greedy joint action.

        Returns:
            ``(batch, time, agents)`` float32, in the critic's unit, at most 0; 0 after an episode's end.
        """
        q = self.action_values(episodes)[:, :-1]
        best = greatest(q, episodes.avail_actions[:, :-1])
        taken = q.gather(-1, episodes.actions.unsqueeze(-1)).squeeze(-1)
        regret = torch.zeros_like(best)
        where = episodes.filled.squeeze(-1) > 0
        weights = mixers.agent_weights(best[where], episodes.state[:, :-1][where], self.mixer)
        regret[where] = weights * (taken - best)[where]
        return regret if self.value_scale is None else regret * self.value_scale.std

    def facts(self) -> dict[str, Any]:
        """Return the path and hash by which another artifact names this teacher, and its policy's temperature."""
        return {**super().facts(), "temperature": self.temperature}


def greatest(q: Tensor, avail: Tensor) -> Tensor:
    """Return the greatest value of an available action, ``(..., agents)``; 0 where none is available (padding).

    Args:
        q: ``(..., agents, actions)``.
        avail: of the same shape, 1 where available.
    """
    return q.masked_fill(avail == 0, -torch.inf).amax(-1).nan_to_num(neginf=0.0)


def entropy_share(q: Tensor, avail: Tensor, temperature: float) -> float:
    """Compute the mean entropy of softmax(q / temperature) as a share of the mean log of the available actions.

    Args:
        q: action values of decisions, ``(decisions, actions)``.
        avail: of the same shape; at least two actions are available in each row.
        temperature: in the unit of ``q``.
    """
    wide = q.double().masked_fill(avail == 0, -torch.inf)
    log_probs = torch.log_softmax((wide - wide.amax(-1, keepdim=True)) / temperature, -1)
    entropy = -(log_probs.exp() * log_probs.masked_fill(avail == 0, 0.0)).sum(-1)
    return float(entropy.mean() / (avail > 0).sum(-1).double().log().mean())


def fit_temperature(q: Tensor, avail: Tensor, share: float) -> float:
    """Find the temperature at which `entropy_share` is ``share``, by bisection: the entropy grows with it.

    Raises:
        UserError: the values tell so few actions apart that no temperature makes the policy as sure as that.
    """
    best = greatest(q.double(), avail)
    unit = float((best.unsqueeze(-1) - q.double())[avail > 0].max()) or 1.0
    low, high = unit * 1e-9, unit * 1e9
    if (least := entropy_share(q, avail, low)) >= share:
        raise UserError(
            f"the teacher's values tell too few actions apart: its policy's entropy is at least {least:.2f} of the "
            f"greatest possible, and teacher_entropy is {share:g}; give a teacher that has learnt, or more entropy"
        )
    while high / low > 1.0 + 1e-9:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if entropy_share(q, avail, middle) < share else (low, middle)
    return math.sqrt(low * high)
