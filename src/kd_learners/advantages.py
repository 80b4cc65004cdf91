"""Advantages from the frozen teacher's critic, which replaces a critic of the student's (Eqs. 1 and 2).

Pure functions of floating-point tensors with axes ``(batch, time, agents)``; a batch row is one whole episode, from its
first step. The teacher's own training uses the same functions. Values and rewards have the same unit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kd_learners.losses import masked_mean

# Least spread by which advantages are divided: those that differ by less are centred, but not scaled up.
MIN_SPREAD = 1e-8


def td_residual(reward: Tensor, value: Tensor, terminated: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """Compute the TD residual delta_t = r_t + gamma V(s_{t+1}) - V(s_t) (Eq. 1).

    V(s_{t+1}) counts as 0 at a true terminal, but not at a time limit, where ``terminated`` is 0 (decision 6).

    Args:
        reward: ``(batch, time, 1 or agents)`` float32.
        value: ``(batch, time + 1, agents)`` float32, V of the state before each step and after the last.
        terminated: ``(batch, time, 1)``, 1 at a true terminal step, 0 at a time limit.
        mask: ``(batch, time, 1)``, 1 where the step belongs to the episode.
        gamma: the discount of one step.

    Returns:
        ``(batch, time, agents)`` float32, 0 outside the mask whatever the padding holds.
    """
    next_value = torch.where(terminated > 0, 0.0, value[:, 1:])
    return torch.where(mask > 0, reward + gamma * next_value - value[:, :-1], 0.0)


def gae(residual: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Compute the advantage A_t = sum over l of (gamma lambda)^l delta_{t+l} (Eq. 2).

    The sum is one product with a Toeplitz matrix.

    Args:
        residual: ``(batch, time, agents)`` float32, from `td_residual`: 0 after the end of the episode.
        gamma: the discount of one step.
        gae_lambda: lambda.

    Returns:
        ``(batch, time, agents)`` float32, 0 after the end of the episode. Its sum with ``value[:, :-1]`` is the
        lambda-return.
    """
    steps = torch.arange(residual.shape[1], device=residual.device)
    ahead = steps.unsqueeze(0) - steps.unsqueeze(1)
    decay = torch.as_tensor(gamma * gae_lambda, dtype=residual.dtype, device=residual.device)
    weight = torch.where(ahead >= 0, decay ** ahead.clamp(min=0), 0.0)
    return weight @ residual


def without_others(advantage: Tensor, regret: Tensor) -> Tensor:
    """Take the other agents' regrets out of every agent's advantage, for ``advantage: credit``.

    A regret is what an agent's action costs the team against the action that it values most. Given the situation it
    depends on that agent's action alone. So the others' regrets are a baseline for an agent: taken out, they change
    the variance of its policy gradient and not its mean.

    Args:
        advantage: ``(batch, time, agents)``.
        regret: ``(batch, time, agents)``, at most 0, in the same unit.

    Returns:
        ``(batch, time, agents)``.
    """
    return advantage - (regret.sum(-1, keepdim=True) - regret)


def standardise(x: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale `x` to mean 0 and (biased) standard deviation 1 over the mask (decision 4).

    Args:
        x: ``(batch, time, agents)``, floating point.
        mask: broadcastable to `x`, 1 where the entry counts.

    Returns:
        ``(batch, time, agents)``, of the type of `x`, 0 outside the mask. Equal entries become 0; an empty mask gives 0
        everywhere.
    """
    # In float64: the rounding of a mean in float32 would be scaled up to noise of size 1 when all entries are equal.
    wide = x.double()
    centred = torch.where(mask > 0, wide - masked_mean(wide, mask), 0.0)
    spread = masked_mean(centred.square(), mask).sqrt()
    return (centred / spread.clamp(min=MIN_SPREAD)).to(x.dtype)
