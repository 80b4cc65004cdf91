"""A tiny deterministic battle with SMAC's observations, actions and sizes, for the doubles of the three packages.

Two lines of units face each other. Every second battle the enemies stand out of reach, so that nobody can win before
the time is up. Nobody moves but the agents; an enemy shoots at the nearest agent within reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIGHT, REACH, ARENA = 9.0, 6.0, 64.0
DAMAGE, ENEMY_DAMAGE = 0.5, 0.08
NEAR, FAR = 4.0, 40.0
STEPS = ((0, 1), (0, -1), (1, 0), (-1, 0))


@dataclass
class Unit:
    """One unit: its place, and its health and shield as shares of the full ones."""

    x: float
    y: float
    kind: int
    health: float = 1.0
    shield: float = 1.0

    def hurt(self, damage: float, shielded: bool) -> float:
        """Lose shield, then health; returns the health lost."""
        if shielded and self.shield > 0:
            damage, self.shield = max(0.0, damage - self.shield), max(0.0, self.shield - damage)
        lost = min(damage, self.health)
        self.health = 0.0 if self.health - lost < 1e-6 else self.health - lost
        return lost


class Duel:
    """The game; sub-classes say what of it is observed."""

    def __init__(self, n_agents, n_enemies, types, shields, limit, seed=0):
        self.n_agents, self.n_enemies = n_agents, n_enemies
        self.n_types, (self.shield_ally, self.shield_enemy) = types, shields
        self.limit, self.n_actions = limit, 6 + n_enemies
        # With an odd seed the first battle is one out of reach.
        self.battle = (seed or 0) % 2 - 1

    def begin(self):
        self.battle += 1
        distance = FAR if self.battle % 2 else NEAR
        self.agents = [Unit(8.0, 8.0 + i, i % max(1, self.n_types)) for i in range(self.n_agents)]
        self.enemies = [Unit(8.0 + distance, 8.0 + i, i % max(1, self.n_types)) for i in range(self.n_enemies)]
        self.steps = 0

    def play(self, actions):
        """One step: reward, whether a side is dead, whether it is the enemies'."""
        assert len(actions) == self.n_agents
        lost = 0.0
        for unit, action, available in zip(self.agents, actions, self.available(), strict=True):
            assert available[action], f"action {action} is not available"
            if 2 <= action < 6:
                unit.x, unit.y = unit.x + STEPS[action - 2][0], unit.y + STEPS[action - 2][1]
            elif action >= 6:
                lost += self.enemies[action - 6].hurt(DAMAGE, self.shield_enemy)
        for enemy in self.enemies:
            targets = [agent for agent in self.agents if agent.health > 0 and distance(agent, enemy) <= REACH]
            if enemy.health > 0 and targets:
                min(targets, key=lambda agent: distance(agent, enemy)).hurt(ENEMY_DAMAGE, self.shield_ally)
        self.steps += 1
        won = all(enemy.health == 0 for enemy in self.enemies)
        over = won or all(agent.health == 0 for agent in self.agents)
        return 10.0 * lost / self.n_enemies + 10.0 * won, over, won

    def available(self):
        """Rows of 0/1: no-op for the dead alone, stop, four moves, attack enemy k."""
        rows = []
        for agent in self.agents:
            moves = [0 < agent.x + dx < ARENA and 0 < agent.y + dy < ARENA for dx, dy in STEPS]
            attacks = [enemy.health > 0 and distance(agent, enemy) <= REACH for enemy in self.enemies]
            alive = [0, 1, *moves, *attacks]
            rows.append([int(x) for x in alive] if agent.health > 0 else [1, *[0] * (self.n_actions - 1)])
        return rows

    def observe(self, agent, own=lambda unit: []):
        """move | enemies | allies | own; all zeros for the dead. ``own`` adds to the own row, before the type."""
        me, mine = self.agents[agent], self.available()[agent]
        rows = [*mine[2:6]]
        for k, enemy in enumerate(self.enemies):
            rows += self._row(me, enemy, mine[6 + k], self.shield_enemy)
        for other, ally in enumerate(self.agents):
            if other != agent:
                rows += self._row(me, ally, 1, self.shield_ally)
        rows += [me.health, *([me.shield] if self.shield_ally else []), *own(me), *self._type(me)]
        return np.array(rows if me.health > 0 else [0.0] * len(rows), np.float32)

    def state(self):
        """Health and place of every unit."""
        return np.array([[u.health, u.x / ARENA, u.y / ARENA] for u in self.agents + self.enemies], np.float32).ravel()

    def _row(self, me, unit, first, shielded):
        far = distance(me, unit)
        place = [first, far / SIGHT, (unit.x - me.x) / SIGHT, (unit.y - me.y) / SIGHT, unit.health]
        row = [*place, *([unit.shield] if shielded else []), *self._type(unit)]
        return row if unit.health > 0 and far < SIGHT else [0.0] * len(row)

    def _type(self, unit):
        return np.eye(self.n_types)[unit.kind].tolist() if self.n_types else []


def distance(a, b):
    return float(np.hypot(a.x - b.x, a.y - b.y))
