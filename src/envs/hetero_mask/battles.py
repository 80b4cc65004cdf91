"""The parts of an observation in a StarCraft-like battle, read from the environment's own sizes.

SMAC, SMACv2, SMAClite and SMAX describe a battle alike: a row for each enemy, a row for each ally and one for the agent
itself. They differ in the rows' features and in the order, which `Part` states. No table of maps is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kd_core.errors import UserError

# Parts that are blocks, which masks and presets name by their letters; the others (move, time) belong to no block.
BLOCKS = ("O", "A", "E", "T")

_MOVES = ("north", "south", "east", "west")
_SMAC_PLACE = ("distance", "x", "y")
# Rows of SMAX without the bits of the unit's type.
_SMAX_UNIT = ("health", "x", "y", "moved_x", "moved_y", "last_action", "cooldown")
_SMAX_OWN = ("health", "x", "y", "cooldown")


class Part(NamedTuple):
    """Consecutive elements of an observation that belong together.

    Attributes:
        name: ``O`` own, ``A`` allies, ``E`` enemies, ``T`` terrain; ``move`` and ``time`` are in no block.
        units: units described, a row each, for ``A`` and ``E``; None for a part that is one row about the agent itself.
        features: names of a row's elements, in order.
    """

    name: str
    units: int | None
    features: tuple[str, ...]

    @property
    def size(self) -> int:
        """Elements of the observation."""
        return len(self.features) * (1 if self.units is None else self.units)


def battle_facts(env: Any) -> dict[str, Any]:
    """Read from a built environment the facts by which its observations can be named.

    Args:
        env: an environment of SMAC's family, wrapped or not; any other adds nothing.

    Returns:
        ``n_enemies``, and ``observation``: the `Part`s in order.

    Raises:
        UserError: with one of its settings the environment gives other observations than it declares.
    """
    smac = find_inside(env, "get_obs_enemy_feats_size")
    if smac is not None:
        return {"n_enemies": int(smac.n_enemies), "observation": _smac_parts(smac)}
    lite = find_inside(env, "enemy_feat_size")
    if lite is not None:
        return {"n_enemies": int(lite.n_enemies), "observation": _smaclite_parts(lite)}
    return {}


def battle_parts(info: Mapping[str, Any], n_agents: int, obs_size: int) -> tuple[Part, ...]:
    """Find the parts of a battle's observation.

    Args:
        info: the environment's facts: ``observation``, or ``family`` "smax" and ``n_enemies``.
        n_agents: number of agents.
        obs_size: length of an observation.

    Returns:
        Parts that fill the observation exactly; empty if the facts are not a battle's, or do not add up to these sizes.

    Raises:
        UserError: ``observation`` is no list of parts.
    """
    if "observation" in info:
        parts = _stated_parts(info["observation"])
    elif info.get("family") == "smax" and "n_enemies" in info:
        parts = _smax_parts(n_agents, int(info["n_enemies"]), obs_size)
    else:
        return ()
    allies = [part.units for part in parts if part.name == "A"]
    fits = sum(part.size for part in parts) == obs_size and allies in ([], [n_agents - 1])
    return parts if fits else ()


def _stated_parts(given: Any) -> tuple[Part, ...]:
    try:
        return tuple(Part(str(name), None if units is None else int(units), (*names,)) for name, units, names in given)
    except (TypeError, ValueError):
        raise UserError(
            f"get_env_info() has observation {str(given)[:100]!r}: expected a list of [name, units, features], such as"
            " [['A', 2, ['x', 'y']], ['O', None, ['health']]]"
        ) from None


def name_features(parts: Sequence[Part], agent: int) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Name an agent's features: ``E2.health`` of enemy 2, ``A0.x`` of the ally with index 0, ``O.health`` of its own.

    Args:
        parts: of the observation, in order.
        agent: the agent's index, which is left out of the allies.

    Returns:
        Every element's name in order, and block -> names of its features.
    """
    features: list[str] = []
    blocks: dict[str, tuple[str, ...]] = {}
    for part in parts:
        stems = [part.name]
        if part.units is not None:
            numbers = list(range(part.units + (part.name == "A")))
            if part.name == "A":
                numbers.remove(agent)
            stems = [f"{part.name}{number}" for number in numbers]
        names = tuple(f"{stem}.{feature}" for stem in stems for feature in part.features)
        features.extend(names)
        if part.name in BLOCKS and names:
            blocks[part.name] = names
    return tuple(features), blocks


def _smax_parts(n_agents: int, n_enemies: int, obs_size: int) -> tuple[Part, ...]:
    """Build SMAX's parts: allies, enemies, own. The sizes determine the number of type bits in every row."""
    units = n_agents + n_enemies
    types, rest = divmod(obs_size - len(_SMAX_UNIT) * (units - 1) - len(_SMAX_OWN), units)
    if rest or types < 0:
        return ()
    row = (*_SMAX_UNIT, *_types(types))
    return Part("A", n_agents - 1, row), Part("E", n_enemies, row), Part("O", None, (*_SMAX_OWN, *_types(types)))


def _smac_parts(env: Any) -> list[Part]:
    """Build the parts of SMAC and SMACv2: moves, terrain, enemies, allies, own.

    SMACv2 adds features to the own row and appends the time.
    """
    types = _types(env.unit_type_bits)
    seen, own = bool(env.obs_all_health), bool(env.obs_own_health)
    last = [f"last_action_{k}" for k in range(env.n_actions)] if env.obs_last_action else []
    pathing = [f"pathing_{k}" for k in range(env.n_obs_pathing)] if env.obs_pathing_grid else []
    height = [f"height_{k}" for k in range(env.n_obs_height)] if env.obs_terrain_height else []
    place = [axis for axis in ("x", "y") if getattr(env, "obs_own_pos", False)]
    facing = [f"facing_{axis}" for axis in ("x", "y") if getattr(env, "conic_fov", False)]
    n_enemies, enemy_size = env.get_obs_enemy_feats_size()
    n_allies, ally_size = env.get_obs_ally_feats_size()
    enemy = ["attackable", *_SMAC_PLACE, *_health(seen, env.shield_bits_enemy), *types]
    ally = ["visible", *_SMAC_PLACE, *_health(seen, env.shield_bits_ally), *types, *last]
    self_row = [*_health(own, env.shield_bits_ally), *place, *facing, *types]
    terrain = _named([*pathing, *height], env.get_obs_move_feats_size() - len(_MOVES))
    parts = [
        Part("move", None, _MOVES),
        Part("T", None, terrain),
        Part("E", int(n_enemies), _named(enemy, enemy_size)),
        Part("A", int(n_allies), _named(ally, ally_size)),
        Part("O", None, _named(self_row, env.get_obs_own_feats_size())),
    ]
    if env.obs_timestep_number:
        if sum(part.size for part in parts) == env.get_obs_size():
            raise UserError(
                "obs_timestep_number=True makes SMAC give one feature more than it declares: leave it at False"
            )
        parts.append(Part("time", None, ("step",)))
    return [part for part in parts if part.features]


def _smaclite_parts(env: Any) -> list[Part]:
    """Build SMAClite's parts, in SMAC's order; the rest of the observation is the own row."""
    types = _types(env.map_info.num_unit_types)
    shield_enemy, shield_ally = env.map_info.enemy_has_shields, env.map_info.ally_has_shields
    enemy = ["attackable", *_SMAC_PLACE, *_health(True, shield_enemy), *types]
    ally = ["visible", *_SMAC_PLACE, *_health(True, shield_ally), *types]
    rows = env.n_enemies * env.enemy_feat_size + (env.n_agents - 1) * env.ally_feat_size
    return [
        Part("move", None, _MOVES),
        Part("E", int(env.n_enemies), _named(enemy, env.enemy_feat_size)),
        Part("A", int(env.n_agents) - 1, _named(ally, env.ally_feat_size)),
        Part("O", None, _named([*_health(True, shield_ally), *types], env.obs_size - len(_MOVES) - rows)),
    ]


def _named(names: Sequence[str], size: int) -> tuple[str, ...]:
    """Return the names if their number is the environment's size; else numbers, with which blocks are still right."""
    return tuple(names) if len(names) == size else tuple(str(k) for k in range(size))


def _types(bits: int) -> tuple[str, ...]:
    return tuple(f"type_{k}" for k in range(bits))


def _health(observed: bool, shield: Any) -> tuple[str, ...]:
    return ("health", *(["shield"] if shield else [])) if observed else ()


def find_inside(env: Any, attribute: str) -> Any:
    """Find the environment inside the hosts' wrappers that has an attribute; None if no environment has it."""
    seen: list[Any] = []
    waiting = [env]
    while waiting:
        env = waiting.pop()
        if env is None or any(env is known for known in seen):
            continue
        if hasattr(env, attribute):
            return env
        seen.append(env)
        waiting += [getattr(env, name, None) for name in ("unwrapped", "env", "_env")]
    return None
