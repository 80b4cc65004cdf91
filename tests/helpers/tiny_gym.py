"""A Gymnasium environment of two agents for ``env_args.key=tiny_gym:Match-v0``, where tests/helpers is on the path."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Match(gymnasium.Env):
    """Each agent is shown a number from 0 to 2 and its noise; the team earns 1 for each agent that names its number."""

    n_agents, length = 2, 5

    def __init__(self) -> None:
        self.observation_space = spaces.Tuple([spaces.Box(-1.0, 1.0, (4,), np.float32)] * self.n_agents)
        self.action_space = spaces.Tuple([spaces.Discrete(3)] * self.n_agents)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.t = 0
        return self._show(), {}

    def step(self, action):
        reward = [float(a == shown) for a, shown in zip(action, self.shown, strict=True)]
        self.t += 1
        return self._show(), reward, self.t == self.length, False, {}

    def _show(self):
        self.shown = self.np_random.integers(3, size=self.n_agents)
        noise = self.np_random.uniform(-1, 1, (self.n_agents, 1))
        return tuple(np.concatenate([np.eye(3)[self.shown], noise], axis=1).astype(np.float32))


gymnasium.register("Match-v0", entry_point=Match)
