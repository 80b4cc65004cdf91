"""PettingZoo's parallel environments, stepped with one list entry per agent."""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from gymnasium import spaces

# pygame prints on import, and SDL would take over SIGTERM, so that a worker could not be ended from outside.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")


class PettingZooEnv:
    """A PettingZoo parallel environment behind ``Tuple`` spaces.

    When the last agent leaves, also by PettingZoo's own step limit, that step yields reward 0 and the observations of
    the step before. EPyMARL counts so too, hence returns are comparable. With ``max_cycles`` one above the runner's
    ``time_limit`` the last reward counts.
    """

    def __init__(self, env: Any) -> None:
        self._env = env
        self.agents: list[str] = list(env.possible_agents)
        self.n_agents = len(self.agents)
        self.observation_space = spaces.Tuple([env.observation_space(agent) for agent in self.agents])
        self.action_space = spaces.Tuple([env.action_space(agent) for agent in self.agents])
        self._last: list[Any] = []

    @property
    def unwrapped(self) -> PettingZooEnv:
        """This object, since it wraps no Gymnasium environment."""
        return self

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[list[Any], dict[str, Any]]:
        """Start an episode, and return observations in the order of ``agents``."""
        obs, _ = self._env.reset(seed=seed, options=options)
        self._last = [obs[agent] for agent in self.agents]
        return self._last, {}

    def step(self, actions: Sequence[int]) -> tuple[list[Any], list[float], bool, bool, dict[str, Any]]:
        """Play one action per agent; agents that have left get reward 0 and their last observation again."""
        living = set(self._env.agents)
        chosen = {agent: action for agent, action in zip(self.agents, actions, strict=True) if agent in living}
        obs, rewards, terminations, truncations, _ = self._env.step(chosen)
        if not self._env.agents:
            return self._end(truncated=any(truncations.values()) and not all(terminations.values()))
        self._last = [obs.get(agent, last) for agent, last in zip(self.agents, self._last, strict=True)]
        return self._last, [float(rewards.get(agent, 0.0)) for agent in self.agents], False, False, {}

    def render(self) -> None:
        """Render the current state."""
        self._env.render()

    def close(self) -> None:
        """Close the PettingZoo environment."""
        self._env.close()

    def _end(self, truncated: bool) -> tuple[list[Any], list[float], bool, bool, dict[str, Any]]:
        return self._last, [0.0] * self.n_agents, not truncated, truncated, {}


class ParticleEnv(PettingZooEnv):
    """A PettingZoo MPE environment whose simulator is stepped directly.

    PettingZoo plays agents one after the other and observes the world about three times as often as needed, which
    is most of a step's time. One call of the simulator with all actions gives the same numbers.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._simulator = env.unwrapped
        self._n_actions = [int(self._env.action_space(agent).n) for agent in self.agents]
        self._is_terminal = getattr(self._simulator.scenario, "is_terminal", None)

    def step(self, actions: Sequence[int]) -> tuple[list[Any], list[float], bool, bool, dict[str, Any]]:
        """Play one action per agent.

        Raises:
            ValueError: an action that the agent does not have.
        """
        sim = self._simulator
        for action, own in zip(actions, self._n_actions, strict=True):
            if not 0 <= action < own:
                raise ValueError(f"action {action} is not one of the agent's {own} actions")
        sim.current_actions[:] = actions
        sim._execute_world_step()
        sim.steps += 1
        if sim.steps >= sim.max_cycles:
            return self._end(truncated=True)
        if self._is_terminal is not None and self._is_terminal(sim.world):
            return self._end(truncated=False)
        self._last = [sim.observe(agent) for agent in self.agents]
        return self._last, [float(sim.rewards[agent]) for agent in self.agents], False, False, {}


def make_pettingzoo(key: str, **kwargs: Any) -> PettingZooEnv:
    """Build the environment of a key ``pz-<library>-<environment>``, such as ``pz-mpe-simple-spread-v3``.

    Raises:
        ImportError: the library is not installed.
        ValueError: the library has no such environment.
    """
    _, _, rest = key.partition("-")
    library, _, name = rest.partition("-")
    module = find_module(key, library, name.replace("-", "_"))
    env = module.parallel_env(**kwargs)
    if hasattr(env.unwrapped, "_execute_world_step") and not kwargs.get("continuous_actions"):
        return ParticleEnv(env)
    return PettingZooEnv(env)


def find_module(key: str, library: str, name: str) -> ModuleType:
    """Import an environment's module from mpe2, if installed, or from PettingZoo, which had MPE up to 1.25.

    Args:
        key: the whole key, for messages.
        library: such as ``mpe``.
        name: such as ``simple_spread_v3``.

    Raises:
        ImportError: the library is not installed.
        ValueError: the library has no such environment.
    """
    names: set[str] = set()
    found = False
    for package_name in ("mpe2", "pettingzoo.mpe") if library == "mpe" else (f"pettingzoo.{library}",):
        try:
            package = importlib.import_module(package_name)
        except ImportError:
            continue
        found = True
        available = {module.name for module in pkgutil.iter_modules(package.__path__)}
        if name in available:
            return importlib.import_module(f"{package_name}.{name}")
        names |= {entry for entry in available if entry.rpartition("_v")[2].isdigit()}
    if not found:
        missing = "mpe2" if library == "mpe" else f"pettingzoo[{library}]"
        raise ImportError(f"env key '{key}' needs a package that is not installed: pip install '{missing}'")
    near = difflib.get_close_matches(name, names, n=1)
    hint = (
        f"did you mean '{f'pz-{library}-{near[0]}'.replace('_', '-')}'?"
        if near
        else "valid: " + ", ".join(sorted(f"pz-{library}-{entry}".replace("_", "-") for entry in names))
    )
    raise ValueError(f"no PettingZoo environment '{key}': {hint}")
