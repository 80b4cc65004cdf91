"""Time limits, which are no end of a task: every way in which an environment says that time ran out is a truncation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

# Where environments keep the number of steps after which they end an episode themselves: Gymnasium's registry, then
# PettingZoo, level-based foraging, and multi-robot warehouse.
_NAMES = ("max_cycles", "_max_episode_steps", "max_episode_steps", "max_steps")


def layers(env: Any) -> Iterator[Any]:
    """Walk an environment's wrappers from the outermost to the innermost."""
    seen: set[int] = set()
    while env is not None and id(env) not in seen:
        seen.add(id(env))
        yield env
        # Of gymnasium's own wrappers `env`, of EPyMARL's and PettingZoo's others.
        own = vars(env) if hasattr(env, "__dict__") else {}
        env = next((own[name] for name in ("env", "_env", "aec_env") if own.get(name) is not None), None)


def own_limit(env: Any) -> int | None:
    """Ask an environment for the steps after which it ends an episode itself.

    Args:
        env: an environment with EPyMARL's interface, or one of Gymnasium or PettingZoo.

    Returns:
        The smallest that any of its layers states; None where none states one.
    """
    stated: list[int] = []
    for layer in layers(env):
        own = vars(layer) if hasattr(layer, "__dict__") else {}
        spec = own.get("spec")
        values = [own.get(name) for name in _NAMES] + [getattr(spec, "max_episode_steps", None)]
        stated += [int(value) for value in values if type(value) is int and value > 0]
    return min(stated, default=None)


def is_known(env: Any) -> bool:
    """Tell whether an environment says which of its ends are time limits: by PettingZoo's truncations, or a number."""
    named = (layer for layer in layers(env) if any(name in vars(layer) for name in _NAMES))
    return own_limit(env) is not None or _pettingzoo(env) is not None or any(True for _ in named)


def _pettingzoo(env: Any) -> Any:
    return next((layer for layer in layers(env) if hasattr(layer, "possible_agents")), None)


class TimeLimits:
    """Environment wrapper that tells truncations from terminations where the environment mixes them.

    A step that reaches the environment's own limit is a truncation, and so is one in which PettingZoo's agents left for
    want of time. EPyMARL's wrappers of SMAC and SMACv2 call every end a termination: SMAC's count of timeouts tells
    which battles ran out of time.

    Args:
        env: an environment with EPyMARL's interface.
        flagged: whether ``info["episode_limit"]`` says it too, which is the only sign that EPyMARL's runners read; only
            the last step may carry it.
        limit: steps after which the environment ends an episode itself; None: none are known.
    """

    def __init__(self, env: Any, flagged: bool, limit: int | None = None) -> None:
        self._env, self._flagged, self._limit = env, flagged, limit
        self._counts_timeouts = hasattr(getattr(env, "env", None), "timeouts")
        self._steps = 0
        self._agents_ran_out = _remember_truncations(env)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, *positional: Any, **named: Any) -> Any:
        """Start an episode."""
        self._steps = 0
        return self._env.reset(*positional, **named)

    def step(self, actions: Any) -> Any:
        """Step the environment, and call its end by its name."""
        before = self._env.env.timeouts if self._counts_timeouts else 0
        result = self._env.step(actions)
        self._steps += 1
        if not isinstance(result, tuple) or len(result) != 5:
            # Named by the wrapper that checks what environments return.
            return result
        obs, reward, terminated, truncated, info = result
        ran_out = self._steps == self._limit or self._agents_ran_out()
        if self._counts_timeouts:
            ran_out = self._env.env.timeouts > before
        if terminated and ran_out:
            terminated, truncated = False, True
        if self._flagged and truncated and not terminated:
            info = {**info, "episode_limit": True}
        return obs, reward, terminated, truncated, info


def _remember_truncations(env: Any) -> Callable[[], bool]:
    """Note what PettingZoo says of its agents; EPyMARL's wrapper says terminated and truncated of an empty list."""
    parallel = _pettingzoo(env)
    if parallel is None:
        return lambda: False
    play, last = parallel.step, [False]

    def step(actions: Any) -> Any:
        result = play(actions)
        terminations, truncations = result[2], result[3]
        last[0] = any(truncations.values()) and not all(terminations.values())
        return result

    parallel.step = step
    return lambda: last[0]
