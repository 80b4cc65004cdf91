"""Each agent's own advantage: the team's without what the others have spoilt at this step (``advantage: credit``).

A regret says what an agent's action costs the team against the action that it values most, ``(batch, time, agents)``,
at most 0. Given the situation it depends on that agent's action alone, so the others' regrets are a baseline for an
agent: taken out, they change the variance of its policy gradient and not its mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from kd_learners.losses import action_log_prob, masked_log_softmax

SWEEPS = 10_000


def without_others(advantage: Tensor, regret: Tensor) -> Tensor:
    """Take the other agents' regrets out of every agent's advantage, both ``(batch, time, agents)``."""
    return advantage - (regret.sum(-1, keepdim=True) - regret)


def reluctance(logits: Tensor, avail: Tensor, actions: Tensor) -> Tensor:
    """Compute how much less probable a policy finds each action than its most probable one, in nats.

    Args:
        logits: ``(batch, time, agents, actions)``.
        avail: of the same shape, 1 where available.
        actions: ``(batch, time, agents)``.

    Returns:
        ``(batch, time, agents)`` float32, at most 0; 0 where an agent has no choice.
    """
    log_probs = masked_log_softmax(logits, avail)
    return action_log_prob(log_probs, actions) - log_probs.amax(-1)


@dataclass(frozen=True)
class FittedCredit:
    """The regrets of a teacher that has a policy and no action values: weighted reluctances, a linear monotone mixer.

    Attributes:
        weights: ``(agents,)``, the critic's unit per nat, not negative.
        floor: ``(agents,)``, the greatest reluctance of the buffer; actions that the teacher never took count no more.
    """

    weights: Tensor
    floor: Tensor

    def __call__(self, logits: Tensor, avail: Tensor, actions: Tensor) -> Tensor:
        """Compute regrets ``(batch, time, agents)``; arguments as for `reluctance`."""
        return torch.maximum(reluctance(logits, avail, actions), self.floor) * self.weights


def fit(parts: Iterable[tuple[Tensor, Tensor]]) -> FittedCredit:
    """Fit the weights with which reluctances explain the team's advantage best: least squares, none below 0.

    Args:
        parts: reluctances ``(steps, agents)`` and advantages ``(steps,)`` of steps that the teacher played.
    """
    pairs = list(parts)
    own = torch.cat([part for part, _ in pairs]).double()
    team = torch.cat([part for _, part in pairs]).double()
    centred, wanted = own - own.mean(0), team - team.mean()
    weights = least_squares(centred.T @ centred / len(own), centred.T @ wanted / len(own))
    return FittedCredit(weights.float(), own.amin(0).float())


def least_squares(covariance: Tensor, target: Tensor) -> Tensor:
    """Minimise ``w' C w / 2 - w' t`` over weights that are not negative, by coordinate descent.

    Args:
        covariance: C, ``(agents, agents)``, positive semidefinite.
        target: t, ``(agents,)``.

    Returns:
        ``(agents,)``; 0 for an agent whose column does not vary.
    """
    weights = torch.zeros_like(target)
    for _ in range(SWEEPS):
        before = weights.clone()
        for agent in range(len(target)):
            spread = covariance[agent, agent]
            if spread > 0:
                slope = target[agent] - covariance[agent] @ weights
                weights[agent] = (weights[agent] + slope / spread).clamp(min=0.0)
        if torch.equal(weights, before) or (weights - before).abs().max() <= 1e-12 * weights.abs().max():
            break
    return weights
