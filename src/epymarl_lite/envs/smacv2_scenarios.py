"""SMACv2's battles by EPyMARL's names: ``protoss_5_vs_5``, ``terran_10_vs_11``, ``sc2_gen_zerg``, and so on."""

from __future__ import annotations

from typing import Any

# Race -> its unit types, the probability of each, and those of which a team may not consist alone.
_RACES: dict[str, tuple[list[str], list[float], list[str]]] = {
    "protoss": (["stalker", "zealot", "colossus"], [0.45, 0.45, 0.1], []),
    "terran": (["marine", "marauder", "medivac"], [0.45, 0.45, 0.1], ["medivac"]),
    "zerg": (["zergling", "baneling", "hydralisk"], [0.45, 0.1, 0.45], ["baneling"]),
}
_SIZES = ((5, 5), (10, 10), (10, 11), (20, 20), (20, 23))
_GENERIC = (5, 5)
_COMMON: dict[str, Any] = {
    **{"difficulty": "7", "game_version": None, "step_mul": 8, "move_amount": 2, "continuing_episode": False},
    **{"obs_all_health": True, "obs_own_health": True, "obs_own_pos": True, "obs_instead_of_state": False},
    **{"obs_last_action": False, "obs_pathing_grid": False, "obs_terrain_height": False},
    **{"obs_timestep_number": False, "state_last_action": True, "state_timestep_number": False},
    **{"conic_fov": False, "num_fov_actions": 12, "use_unit_ranges": True, "min_attack_range": 2},
    **{"reward_death_value": 10, "reward_win": 200, "reward_defeat": 0, "reward_negative_scale": 0.5},
    **{"reward_only_positive": True, "reward_scale": True, "reward_scale_rate": 20, "reward_sparse": False},
    **{"replay_dir": "", "replay_prefix": "", "heuristic_ai": False, "debug": False},
}
# Name -> race, own units, enemies.
_NAMES = {
    **{f"{race}_{own}_vs_{enemies}": (race, own, enemies) for race in _RACES for own, enemies in _SIZES},
    **{f"sc2_gen_{race}": (race, *_GENERIC) for race in _RACES},
}


def names() -> list[str]:
    """List the scenarios."""
    return sorted(_NAMES)


def scenario(name: str) -> dict[str, Any]:
    """Return the arguments of a scenario's battle.

    Args:
        name: one of `names`.
    """
    race, own, enemies = _NAMES[name]
    types, weights, exceptions = _RACES[race]
    team: dict[str, Any] = {"dist_type": "weighted_teams", "unit_types": types, "weights": weights, "observe": True}
    if exceptions:
        team["exception_unit_types"] = exceptions
    places = {"dist_type": "surrounded_and_reflect", "p": 0.5, "map_x": 32, "map_y": 32}
    drawn = {"n_units": own, "n_enemies": enemies, "team_gen": team, "start_positions": places}
    return {**_COMMON, "map_name": f"10gen_{race}", "capability_config": drawn}
