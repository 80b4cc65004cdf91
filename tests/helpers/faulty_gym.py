"""Environments of Gymnasium that do something wrong, for ``env_args.key=faulty_gym:Raises-v0``; the names say what."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium import spaces


class Sound(gymnasium.Env):
    """Two agents that see three numbers and have two actions; an episode is four steps."""

    actions = 2

    def __init__(self) -> None:
        self.observation_space = spaces.Tuple([spaces.Box(-1.0, 1.0, (3,), np.float32)] * 2)
        self.action_space = spaces.Tuple([spaces.Discrete(self.actions)] * 2)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self.see(), {}

    def step(self, action):
        self.t += 1
        return self.see(), [1.0, 1.0], self.t == 4, False, {}

    def see(self):
        return (np.zeros(3, np.float32),) * 2


class Raises(Sound):
    def step(self, action):
        if self.t == 1:
            raise KeyError("wheel")
        return super().step(action)


class Blind(Sound):
    def see(self):
        return (np.full(3, np.nan if self.t == 2 else 0.0, np.float32),) * 2


class Unseeded(Sound):
    def reset(self):
        return super().reset()


class OneAction(Sound):
    actions = 1


for _kind in (Raises, Blind, Unseeded, OneAction):
    gymnasium.register(f"{_kind.__name__}-v0", entry_point=_kind)
