"""How concentrated actions are, from counts ``(time, agents, actions)`` of decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# What `action_names` calls an attack on unit k of the other side.
ATTACK = "target_"


@dataclass(frozen=True)
class Concentration:
    """Measure of a policy: means over decisions.

    Attributes:
        team_bits: entropy of the team's actions at a step, in bits: 0 if all agents in all episodes do the same then.
            Agents that have different actions are different teams; the mean over these.
        agent_bits: the same of one agent's actions: how far its action is settled by the time alone.
        attack_share: share of attacks in all decisions; None where no action is one.
    """

    team_bits: float
    agent_bits: float
    attack_share: float | None

    @property
    def effective_actions(self) -> float:
        """How many equally frequent actions have the team's entropy."""
        return float(2**self.team_bits)


def concentration(counts: np.ndarray, names: Sequence[Sequence[str | None]] | None = None) -> Concentration | None:
    """Measure counts; None if there was no decision.

    Args:
        counts: integers ``(time, agents, actions)``.
        names: each agent's actions, to tell attacks, and which agents have the same; None: all have.
    """
    counts = np.asarray(counts, float)
    if not counts.sum():
        return None
    alike = [list(range(counts.shape[1]))] if names is None else kinds(names)
    team = np.concatenate([counts[:, agents].sum(axis=1) for agents in alike])
    attacks = None
    if names is not None:
        is_attack = np.array([[name is not None and name.startswith(ATTACK) for name in agent] for agent in names])
        if is_attack.any():
            attacks = float(counts.sum(axis=0)[is_attack].sum() / counts.sum())
    return Concentration(_mean_entropy(team), _mean_entropy(counts.reshape(-1, counts.shape[-1])), attacks)


def kinds(names: Sequence[Sequence[str | None]]) -> list[list[int]]:
    """Group the agents, those with the same actions together."""
    found: dict[tuple[str | None, ...], list[int]] = {}
    for agent, mine in enumerate(names):
        found.setdefault(tuple(mine), []).append(agent)
    return list(found.values())


def shares(counts: np.ndarray, least: float = 0.01) -> np.ndarray:
    """Compute the share of each action in the team's decisions of a step, ``(actions, time)``.

    Args:
        counts: ``(time, agents, actions)``.
        least: steps with fewer decisions than this share of the busiest step's are NaN: too few to show anything.
    """
    team = np.asarray(counts, float).sum(axis=1)
    decisions = team.sum(axis=1)
    enough = decisions >= max(1.0, least * decisions.max())
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(enough, (team / decisions[:, None]).T, np.nan)


def added(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Add several counts, which may differ in their number of steps."""
    total = np.zeros((max(len(block) for block in blocks), *blocks[0].shape[1:]), np.int64)
    for block in blocks:
        total[: len(block)] += block
    return total


def _mean_entropy(rows: np.ndarray) -> float:
    """Average the entropy in bits of each row's distribution, weighted by its decisions; rows ``(n, actions)``."""
    decisions = rows.sum(axis=1)
    used = rows[decisions > 0]
    share = used / used.sum(axis=1, keepdims=True)
    bits = -(share * np.log2(np.where(share > 0, share, 1.0))).sum(axis=1)
    return float(np.average(bits, weights=used.sum(axis=1)))
