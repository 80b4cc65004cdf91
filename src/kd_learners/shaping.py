"""Reward shaping by the balance of forces in a battle, in the manner of Ng, Harada and Russell (ICML 1999).

Damage and victory say little, and late, about a step back that spares an ally. The balance of forces says it at once,
so that a short horizon of advantages (a small lambda) is enough.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from envs.smax.simulator import STATE_IDENTITY, STATE_UNIT
from kd_core.errors import UserError
from kd_learners.batches import Episodes


@dataclass(frozen=True)
class ForceBalance:
    """Phi(s) = (F - G) / (F + G), where a side's force F or G is its living units times the sum of their health.

    Lanchester's square law: how a battle ends depends on the strength of one unit times the square of their number.
    1 when only the team lives, -1 when only its enemies do.

    Attributes:
        allies: units of the team, first in the state.
        enemies: units of the other side, after them.
        row: features of a unit in the state; the first is its share of health, 0 when dead.
    """

    allies: int
    enemies: int
    row: int

    def __call__(self, state: Tensor) -> Tensor:
        """Phi.

        Args:
            state: ``(..., state_size)``.

        Returns:
            ``(...)`` float32 in [-1, 1]; 0 where nobody lives.
        """
        units = self.allies + self.enemies
        health = state[..., : units * self.row].unflatten(-1, (units, self.row))[..., 0]
        ours, theirs = (
            (side > 0).sum(dim=-1) * side.sum(dim=-1) for side in health.split([self.allies, self.enemies], dim=-1)
        )
        return (ours - theirs) / (ours + theirs).clamp(min=torch.finfo(torch.float32).tiny)


def potential(env: str, n_agents: int, state_size: int) -> ForceBalance:
    """The potential of an environment.

    Args:
        env: the environment's name in EPyMARL's registry.
        n_agents: the team's units.
        state_size: length of the state.

    Raises:
        UserError: nothing is known of the environment's state.
    """
    if env != "smax":
        raise UserError(f"shaping needs a state whose units are known: smax, not {env}; set shaping=0")
    units = state_size // (STATE_UNIT + STATE_IDENTITY)
    return ForceBalance(n_agents, units - n_agents, STATE_UNIT)


def shaped(episodes: Episodes, phi: ForceBalance, weight: float) -> Tensor:
    """The reward r_t + weight (Phi(s_t+1) - Phi(s_t)).

    Not discounted, and with Phi of the last state: a step that changes nothing earns nothing, and a battle adds up to
    what it shifted. So it changes the task, unlike the form that Ng et al. prove to leave every policy's rank alone:
    in a battle that is being lost, that form would reward each further step by (1 - gamma) |Phi|, and flight with it.

    Args:
        episodes: a block of whole episodes.
        phi: the potential.
        weight: its unit is the reward's.

    Returns:
        ``(batch, time, 1 or agents)`` float32, 0 after the end of an episode.
    """
    gain = phi(episodes.state).diff(dim=1).unsqueeze(-1)
    return torch.where(episodes.filled > 0, episodes.reward + weight * gain, 0.0)


def training_reward(env: str, n_agents: int, state_size: int, weight: float) -> Callable[[Episodes], Tensor]:
    """The reward that a teacher's critic knows: :func:`shaped` with this weight, or the task's own where it is 0.

    Args:
        env: the environment's name in EPyMARL's registry.
        n_agents: the team's units.
        state_size: length of the state.
        weight: as for :func:`shaped`.

    Raises:
        UserError: a weight, and nothing is known of the environment's state.
    """
    if weight == 0.0:
        return operator.attrgetter("reward")
    return functools.partial(shaped, phi=potential(env, n_agents, state_size), weight=weight)
