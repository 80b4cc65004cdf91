"""Reward shaping by a potential of the state, in the manner of Ng, Harada and Russell (ICML 1999).

In a battle, damage and victory reward a step back that spares an ally little, and late. The balance of forces rewards
it at once. So a short horizon of advantages (a small lambda) is enough.

In a warehouse, robots that act at random deliver about once in 15,000 steps. Lifting a requested shelf and carrying it
towards the goals is rewarded at once.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kd_core.errors import UserError
from kd_envs.hetero_mask.warehouse import CELL_REQUESTED, CELL_SIZE, OWN_SIZE, warehouse_size
from kd_envs.smax.simulator import STATE_IDENTITY, STATE_UNIT
from kd_learners.batches import Episodes


@dataclass(frozen=True)
class ForceBalance:
    """Phi(s) = (F - G) / (F + G), where F and G are the forces of the team and of its enemies.

    The force of a side is its number of living units times the sum of their health. This is Lanchester's square law: a
    battle's outcome depends on a unit's strength times the square of their number. Phi is 1 when only the team lives,
    -1 when only its enemies do.

    Attributes:
        allies: units of the team, first in the state.
        enemies: units of the other side, after them.
        row: features of a unit in the state; the first is its share of health, 0 when dead.
    """

    allies: int
    enemies: int
    row: int

    def __call__(self, state: Tensor) -> Tensor:
        """Compute Phi of states.

        Args:
            state: ``(..., state_size)`` float32.

        Returns:
            ``(...)`` float32 in [-1, 1]; 0 where no unit lives.
        """
        units = self.allies + self.enemies
        health = state[..., : units * self.row].unflatten(-1, (units, self.row))[..., 0]
        ours, theirs = (
            (side > 0).sum(dim=-1) * side.sum(dim=-1) for side in health.split([self.allies, self.enemies], dim=-1)
        )
        return (ours - theirs) / (ours + theirs).clamp(min=torch.finfo(torch.float32).tiny)


@dataclass(frozen=True)
class CarriedShelves:
    """Phi(s): the sum over the robots of how far each has come with a requested shelf.

    A robot that carries one counts between 1/4, at the far end, and 1, on a goal; one that carries another shelf counts
    -1/5. One without a shelf counts 1/5 below a requested shelf, 1/10 where it sees one, and else 0. All of it is in
    the robots' own observations.

    Attributes:
        robots: their number; the state is their observations in a row.
        columns: of the warehouse.
        rows: of the warehouse; the goals are the two cells in the middle of the last.
    """

    robots: int
    columns: int
    rows: int

    def __call__(self, state: Tensor) -> Tensor:
        """Compute Phi of states.

        Args:
            state: ``(..., state_size)`` float32.

        Returns:
            ``(...)`` float32.
        """
        own = state.unflatten(-1, (self.robots, -1))
        column, row, loaded = own[..., 0], own[..., 1], own[..., 2] > 0
        requested = own[..., OWN_SIZE + CELL_REQUESTED :: CELL_SIZE]
        here = requested[..., requested.shape[-1] // 2]
        sideways = (column - (self.columns // 2 - 0.5)).abs() - 0.5
        way = (sideways + self.rows - 1 - row) / (self.columns // 2 + self.rows - 2)
        found = 0.1 * (requested.amax(dim=-1) + here)
        carried = torch.where(here > 0, 1.0 - 0.75 * way, -0.2)
        return torch.where(loaded, carried, found).sum(dim=-1)


Potential = ForceBalance | CarriedShelves


def potential(env: str, n_agents: int, state_size: int, task: str) -> Potential:
    """Build the potential of an environment.

    Args:
        env: the environment's name in EPyMARL's registry.
        n_agents: the team's units.
        state_size: length of the state.
        task: the environment's key or map name.

    Raises:
        UserError: what the environment's state tells is not known.
    """
    size = warehouse_size(task, n_agents, state_size)
    if env == "gymma" and size is not None:
        return CarriedShelves(n_agents, *size)
    if env != "smax":
        raise UserError(
            f"shaping needs a state whose units are known: smax, or a warehouse of rware, not {env}; set shaping=0"
        )
    units = state_size // (STATE_UNIT + STATE_IDENTITY)
    return ForceBalance(n_agents, units - n_agents, STATE_UNIT)


def shaped(episodes: Episodes, phi: Potential, weight: float) -> Tensor:
    """Compute the shaped reward r_t + weight (Phi(s_t+1) - Phi(s_t)).

    The difference is not discounted and includes Phi of the last state. So a step that changes nothing earns nothing,
    and an episode's shaping sums to its change of Phi. Unlike the form of Ng et al., which preserves the rank of every
    policy, this changes the task. In a losing battle their form would reward each further step, and so flight, by (1 -
    gamma) |Phi|.

    Args:
        episodes: a block of whole episodes.
        phi: the potential.
        weight: of the potential, in the unit of the reward.

    Returns:
        ``(batch, time, 1 or agents)`` float32, 0 after the end of an episode.
    """
    gain = phi(episodes.state).diff(dim=1).unsqueeze(-1)
    return torch.where(episodes.filled > 0, episodes.reward + weight * gain, 0.0)


def training_reward(env: str, n_agents: int, state_size: int, weight: float, task: str) -> Callable[[Episodes], Tensor]:
    """Build the reward that a teacher's critic values: :func:`shaped`, or the task's own for a weight of 0.

    Args:
        env: the environment's name in EPyMARL's registry.
        n_agents: the team's units.
        state_size: length of the state.
        weight: as for :func:`shaped`.
        task: the environment's key or map name.

    Raises:
        UserError: a weight other than 0, and what the environment's state tells is not known.
    """
    if weight == 0.0:
        return operator.attrgetter("reward")
    return functools.partial(shaped, phi=potential(env, n_agents, state_size, task), weight=weight)
