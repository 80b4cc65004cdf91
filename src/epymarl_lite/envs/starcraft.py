"""StarCraft environments: thin wrappers around SMAC, SMACv2 and SMAClite where these are installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from epymarl_lite.envs import smacv2_scenarios
from epymarl_lite.envs.multiagentenv import MultiAgentEnv

_INSTEAD = "or use --env-config=smax"

# What the names of SMACv2's own maps begin with.
_SMACV2_MAPS = "10gen_"

# Methods that SMAC and MultiAgentEnv have in common.
_SMACS_OWN = (
    *("get_obs", "get_obs_size", "get_state", "get_state_size", "get_avail_actions", "get_total_actions"),
    *("get_env_info", "get_stats", "save_replay", "close"),
)


class SMACWrapper(MultiAgentEnv):
    """SMAC or SMACv2 with Gymnasium's five results of a step; time limits are reported as truncation."""

    def __init__(self, env: Any) -> None:
        self._env = env
        for name in _SMACS_OWN:
            setattr(self, name, getattr(env, name))
        info = env.get_env_info()
        self.n_agents = int(info["n_agents"])
        self.episode_limit = int(info["episode_limit"])

    def step(self, actions: Sequence[int]) -> tuple[Sequence[np.ndarray], float, bool, bool, dict[str, Any]]:
        """Play one joint action."""
        timeouts = getattr(self._env, "timeouts", 0)
        reward, ended, info = self._env.step([int(action) for action in actions])
        truncated = bool(ended) and getattr(self._env, "timeouts", 0) > timeouts
        return self.get_obs(), float(reward), bool(ended) and not truncated, truncated, info

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Sequence[np.ndarray], dict[str, Any]]:
        """Start a battle; StarCraft is seeded at construction only."""
        self._env.reset()
        return self.get_obs(), {}


class SMACliteWrapper(MultiAgentEnv):
    """SMAClite, which has SMAC's interface without StarCraft II."""

    def __init__(self, env: Any, time_limit: int) -> None:
        self._env = env
        self._inner = env.unwrapped
        self._steps = 0
        self._obs: Sequence[np.ndarray] = ()
        self.n_agents = int(self._inner.n_agents)
        self.episode_limit = int(time_limit)

    def step(self, actions: Sequence[int]) -> tuple[Sequence[np.ndarray], float, bool, bool, dict[str, Any]]:
        """Play one joint action; the time limit is reported as truncation."""
        self._obs, reward, terminated, truncated, info = self._env.step([int(action) for action in actions])
        self._steps += 1
        return self._obs, float(reward), bool(terminated), bool(truncated) or self._steps >= self.episode_limit, info

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Sequence[np.ndarray], dict[str, Any]]:
        """Start a battle."""
        self._obs, info = self._env.reset(seed=seed, options=options)
        self._steps = 0
        return self._obs, info

    def get_obs(self) -> Sequence[np.ndarray]:
        """Return every agent's observation."""
        return self._obs

    def get_obs_size(self) -> int:
        """Return the number of features of one agent's observation."""
        return int(self._inner.obs_size)

    def get_state(self) -> np.ndarray:
        """Return the global state."""
        return self._inner.get_state()

    def get_state_size(self) -> int:
        """Return the number of features of the global state."""
        return int(self._inner.state_size)

    def get_avail_actions(self) -> list[list[int]]:
        """Return rows of 0/1, one per agent."""
        return self._inner.get_avail_actions()

    def get_total_actions(self) -> int:
        """Return the number of actions."""
        return int(self._inner.n_actions)

    def render(self) -> None:
        """Render the battle."""
        self._env.render()

    def close(self) -> None:
        """Close the environment."""
        self._env.close()


def sc2_fn(**kwargs: Any) -> SMACWrapper:
    """Build a SMAC battle from ``env_args``."""
    _refuse_individual_rewards("sc2", kwargs)
    try:
        from smac.env import StarCraft2Env
    except ImportError as error:
        raise ImportError(
            "env 'sc2' needs SMAC and StarCraft II: install SMAC from github.com/oxwhirl/smac "
            f"(the PyPI package 'smac' is another program), {_INSTEAD}"
        ) from error
    _require_starcraft("sc2")
    return SMACWrapper(StarCraft2Env(**kwargs))


def sc2v2_fn(**kwargs: Any) -> SMACWrapper:
    """Build a SMACv2 battle from ``env_args``.

    A scenario's name stands for all arguments but the seed, as in EPyMARL.

    Raises:
        ValueError: ``map_name`` is neither a scenario nor one of SMACv2's maps.
    """
    _refuse_individual_rewards("sc2v2", kwargs)
    # EPyMARL has this key and reads it nowhere: a battle ends at its map's own limit.
    kwargs.pop("time_limit", None)
    name = str(kwargs.get("map_name"))
    if name in smacv2_scenarios.names():
        kwargs = {**smacv2_scenarios.scenario(name), "seed": kwargs.get("seed")}
    elif not name.startswith(_SMACV2_MAPS):
        raise ValueError(f"no SMACv2 map or scenario '{name}': valid: {', '.join(smacv2_scenarios.names())}")
    try:
        from smacv2.env.starcraft2.wrapper import StarCraftCapabilityEnvWrapper
    except ImportError as error:
        raise ImportError(
            f"env 'sc2v2' needs SMACv2 and StarCraft II: install SMACv2 from github.com/oxwhirl/smacv2, {_INSTEAD}"
        ) from error
    _require_starcraft("sc2v2")
    return SMACWrapper(StarCraftCapabilityEnvWrapper(**kwargs))


def smaclite_fn(
    map_name: str,
    time_limit: int,
    seed: int | None = None,
    **kwargs: Any,
) -> SMACliteWrapper:
    """Build a SMAClite battle from ``env_args``."""
    _refuse_individual_rewards("smaclite", kwargs)
    try:
        import gymnasium as gym
        import smaclite  # noqa: F401 - importing it registers its maps
    except ImportError as error:
        raise ImportError(
            f"env 'smaclite' needs SMAClite: install it from github.com/uoe-agents/smaclite with --no-deps, {_INSTEAD}"
        ) from error
    try:
        env = gym.make(f"smaclite/{map_name}-v0", disable_env_checker=True, seed=seed, **kwargs)
    except gym.error.UnregisteredEnv as error:
        raise ValueError(f"SMAClite has no map '{map_name}': set env_args.map_name to one that it ships") from error
    return SMACliteWrapper(env, time_limit)


def _refuse_individual_rewards(name: str, kwargs: dict[str, Any]) -> None:
    """Remove the reward keys, which StarCraft environments do not know, from ``kwargs``.

    Raises:
        ValueError: ``common_reward`` is False.
    """
    kwargs.pop("reward_scalarisation", None)
    if not kwargs.pop("common_reward", True):
        raise ValueError(f"env '{name}' has one reward for all agents: it needs common_reward=True")


def missing_starcraft() -> str:
    """Name the missing part of StarCraft II, and how to get it; "" if its files are there."""
    local = Path.cwd() / "3rdparty" / "StarCraftII"
    if local.is_dir():
        os.environ.setdefault("SC2PATH", str(local))
    given = os.environ.get("SC2PATH")
    if not given and sys.platform != "linux":
        return ""  # elsewhere the game has an installer, which tells pysc2 the folder
    home = Path(given or "~/StarCraftII").expanduser()
    if not home.is_dir():
        return (
            f"StarCraft II, and there is none at {home}: install it (github.com/Blizzard/s2client-proto#downloads) and"
            " set SC2PATH to its folder"
        )
    if not (home / "Versions").is_dir():
        return f"StarCraft II, and {home} has no Versions folder, where the game itself is: install it there"
    if not (home / "Maps" / "SMAC_Maps").is_dir():
        return f"SMAC's maps, and {home / 'Maps' / 'SMAC_Maps'} is missing: copy SMAC_Maps from SMAC's repository there"
    return ""


def _require_starcraft(name: str) -> None:
    problem = missing_starcraft()
    if problem:
        raise FileNotFoundError(f"env '{name}' needs {problem}, {_INSTEAD}")
