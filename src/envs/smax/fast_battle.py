"""JaxMARL's battle with the same numbers, computed by operations that are fast on a CPU."""

from __future__ import annotations

import functools
from typing import Any

from kd_envs.jax_support import load


def against_heuristic(**settings: Any) -> Any:
    """Build JaxMARL's ``HeuristicEnemySMAX``, whose battles compute the same in less time.

    Per battle, JaxMARL writes every unit's view of every other with a separate scatter, always for both sides. It takes
    distances over pairs of coordinates in an order that a CPU cannot vectorise. Both grow with the square of the units,
    and are most of a step's cost on 27m_vs_30m.

    Args:
        settings: as for JaxMARL's class.
    """
    env = load("jaxmarl.environments.smax.heuristic_enemy_smax_env").HeuristicEnemySMAX(**settings)
    env._env = _battles()(**settings)
    return env


@functools.lru_cache(maxsize=1)
def _battles() -> type:
    jnp = load("jax").numpy
    smax = load("jaxmarl.environments.smax.smax_env").SMAX

    def length(x: Any, y: Any) -> Any:
        return jnp.sqrt(x * x + y * y)

    class Battles(smax):  # type: ignore[misc, valid-type]
        def get_obs_unit_list(self, state: Any) -> dict[str, Any]:
            """Compute each unit's view: of every other the features ``(units - 1, 13)``, then its own ``(10,)``."""
            allies = self.num_allies
            own = self._own(state)
            first = self._others(state, slice(0, allies), 1)
            second = self._others(state, slice(allies, None), -1)
            obs = [*jnp.concatenate([first, own[:allies]], -1), *jnp.concatenate([second, own[allies:]], -1)]
            return dict(zip(self.agents, obs, strict=True))

        def _shares(self, state: Any) -> tuple[Any, Any, Any]:
            """Compute each unit's health and cooldown as shares of its type's, ``(units,)``, and its type's bits."""
            types = state.unit_types
            health = state.unit_health / self.unit_type_health[types]
            cooldown = jnp.clip(state.unit_weapon_cooldowns / self.unit_type_weapon_cooldowns[types], 0.0, 1.0)
            bits = (types[:, None] == jnp.arange(self.unit_type_bits)).astype(jnp.float32)
            return health, cooldown, bits

        def _own(self, state: Any) -> Any:
            health, cooldown, bits = self._shares(state)
            places = state.unit_positions / jnp.array([self.map_width, self.map_height])
            rows = jnp.concatenate([health[:, None], places, cooldown[:, None], bits], -1)
            return jnp.where(state.unit_alive[:, None], rows, 0.0)

        def _others(self, state: Any, viewers: slice, step: int) -> Any:
            """Compute the features of the others for each viewer, ``(viewers, 13 * (units - 1))``.

            They are in their order or, with ``step`` -1, from the last.
            """
            units = jnp.arange(self.num_agents)
            health, cooldown, bits = self._shares(state)
            attacks = jnp.where(units < self.num_allies, self.num_ally_actions - 1, self.num_enemy_actions - 1)
            attack = state.prev_attack_actions.astype(jnp.float32) / attacks
            public = jnp.concatenate([state.prev_movement_actions, attack[:, None], cooldown[:, None], bits], -1)
            # Units before the viewer retain their place, units after it move up by one: two shifted copies, no gather.
            before = units[None, :-1] < units[::step][viewers, None]

            def but_the_viewer(rows: Any) -> Any:
                rows = rows[::step]
                mask = before.reshape(before.shape + (1,) * (rows.ndim - 1))
                return jnp.where(mask, rows[None, :-1], rows[None, 1:])

            sight = self.unit_type_sight_ranges[state.unit_types][viewers, None]
            towards = but_the_viewer(state.unit_positions) - state.unit_positions[viewers, None]
            seen = length(towards[..., 0], towards[..., 1]) < sight
            seen &= state.unit_alive[viewers, None] & but_the_viewer(state.unit_alive)
            parts = [but_the_viewer(health)[..., None], towards / sight[..., None], but_the_viewer(public)]
            return jnp.where(seen[..., None], jnp.concatenate(parts, -1), 0.0).reshape(len(before), -1)

        def get_avail_actions(self, state: Any) -> dict[str, Any]:
            """Compute each unit's available actions.

            The dead stop; the living move, and shoot at living units in range.
            """
            x, y = state.unit_positions[:, 0], state.unit_positions[:, 1]
            alive, allies = state.unit_alive, self.num_allies
            reach = self.unit_type_attack_ranges[state.unit_types]

            def actions(own: slice, others: slice, step: int) -> Any:
                gap = length(x[others][None] - x[own, None], y[others][None] - y[own, None])
                targets = (gap < reach[own, None]) & alive[others][None] & alive[own, None]
                moves = jnp.repeat(alive[own, None], self.num_movement_actions - 1, axis=1)
                stop = jnp.ones_like(moves[:, :1])
                return jnp.concatenate([moves, stop, targets[:, ::step]], axis=1).astype(jnp.uint8)

            first, second = slice(0, allies), slice(allies, None)
            masks = [*actions(first, second, 1), *actions(second, first, -1)]
            return dict(zip(self.agents, masks, strict=True))

        def _push_units_away(self, state: Any, firmness: float = 1.0) -> Any:
            """Move units that overlap apart, each by half of the overlap."""
            x, y, alive = state.unit_positions[:, 0], state.unit_positions[:, 1], state.unit_alive
            # Row j, column i: from j to i, so that the sum over the others runs along whole rows.
            dx, dy = x[None] - x[:, None], y[None] - y[:, None]
            gap = length(dx, dy) + jnp.identity(self.num_agents) + 1e-6
            radius = self.unit_type_radiuses[state.unit_types]
            overlap = jnp.maximum((radius[None] + radius[:, None]) / gap - 1.0, 0.0)
            overlap = jnp.where(alive[None] & alive[:, None], overlap, 0.0) * (firmness / 2)
            pushed = jnp.stack([x + (dx * overlap).sum(0), y + (dy * overlap).sum(0)], -1)
            return state.replace(unit_positions=jnp.where(alive[:, None], pushed, state.unit_positions))

    return Battles
