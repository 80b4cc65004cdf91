"""Layouts and masks of battles from sizes alone, for the tests: what SMAX and SMAC say of the paper's four maps."""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from types import ModuleType

from kd_envs.hetero_mask import layout_for
from kd_envs.hetero_mask.battles import battle_facts

DOUBLE = Path(__file__).parent / "smac_double"

# Map -> (agents, enemies): SMAX's observations have 13 features a unit and 10 of the agent's own.
SIZES = {"3m": (3, 3), "8m": (8, 8), "5m_vs_6m": (5, 6), "3s5z": (8, 8)}


def smax_layout(task: str, n_agents: int, n_enemies: int, types: int = 6):
    """The layout of a SMAX battle."""
    obs_size = (7 + types) * (n_agents - 1 + n_enemies) + 4 + types
    return layout_for(task, n_agents, obs_size, {"family": "smax", "n_enemies": n_enemies})


@functools.cache
def _doubles() -> dict[str, type]:
    """The doubles' classes; nothing else in this process comes to believe that the packages are installed."""
    # A checkout of EPyMARL has a placeholder for SMAClite.
    before = _take_out()
    sys.path.append(str(DOUBLE))
    try:
        return {
            "smac": importlib.import_module("smac.env").StarCraft2Env,
            "smacv2": importlib.import_module("smacv2.env.starcraft2.wrapper").StarCraftCapabilityEnvWrapper,
            "smaclite": importlib.import_module("smaclite").SMACliteEnv,
        }
    finally:
        sys.path.remove(str(DOUBLE))
        _take_out()
        sys.modules.update(before)


def _take_out() -> dict[str, ModuleType]:
    """Remove the packages' modules from this process, and return them."""
    names = [name for name in sys.modules if name.split(".")[0] in ("duel", "smac", "smacv2", "smaclite")]
    return {name: sys.modules.pop(name) for name in names}


def smac_env(package: str, **env_args):
    """The double of SMAC ("smac"), SMACv2 ("smacv2") or SMAClite ("smaclite"), in this process."""
    return _doubles()[package](**env_args)


def smac_layout(task: str, env=None):
    """The layout of a battle of SMAC's, or of a given environment."""
    env = env or smac_env("smac", map_name=task)
    sizes = env.n_agents, env.obs_size if hasattr(env, "obs_size") else env.get_obs_size()
    return layout_for(task, *sizes, battle_facts(env))
