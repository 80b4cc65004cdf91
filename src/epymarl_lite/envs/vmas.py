"""VMAS scenarios, one environment at a time, behind ``Tuple`` spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class VmasEnv:
    """A VMAS scenario whose info is flat: ``agent/name`` where VMAS has a dictionary for each agent."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self.n_agents = int(env.unwrapped.n_agents)
        self.observation_space, self.action_space = env.observation_space, env.action_space

    @property
    def unwrapped(self) -> VmasEnv:
        """This object: VMAS's own environment is a batch."""
        return self

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        observations, info = self._env.reset(seed=seed, options=options)
        return observations, _flat(info)

    def step(self, actions: Sequence[int]) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Play one action per agent."""
        observations, rewards, terminated, truncated, info = self._env.step(list(actions))
        return observations, rewards, terminated, truncated, _flat(info)

    def render(self) -> None:
        """Render the current state."""
        self._env.render()

    def close(self) -> None:
        """Close the scenario."""
        self._env.close()


def _flat(info: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in info.items():
        flat |= {f"{name}/{key}": own for key, own in value.items()} if isinstance(value, Mapping) else {name: value}
    return flat


def make_vmas(key: str, **kwargs: Any) -> VmasEnv:
    """Build the environment of a key ``vmas-<scenario>``, such as ``vmas-balance``.

    Raises:
        ImportError: VMAS is not installed.
        ValueError: it has no such scenario.
    """
    try:
        import vmas
    except ImportError as error:
        raise ImportError(
            f"env key '{key}' needs a package that is not installed: pip install 'vmas[gymnasium]'"
        ) from error
    name = key.removeprefix("vmas-")
    options = {"num_envs": 1, "continuous_actions": False, "dict_spaces": False, "terminated_truncated": True}
    try:
        return VmasEnv(vmas.make_env(name, wrapper="gymnasium", **options, **kwargs))
    except (ModuleNotFoundError, FileNotFoundError, AssertionError) as error:
        raise ValueError(f"VMAS cannot build the scenario '{name}' ({' '.join(str(error).split())[:160]})") from error
