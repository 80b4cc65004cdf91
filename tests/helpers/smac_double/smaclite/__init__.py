"""Double of SMAClite: importing it registers its maps with Gymnasium."""

from __future__ import annotations

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
from duel import Duel

# agents, enemies, type bits, (allies shielded, enemies shielded)
MAPS = {"2s3z": (5, 5, 2, (1, 1)), "3s5z": (8, 8, 2, (1, 1)), "10m_vs_11m": (10, 11, 0, (0, 0))}


class SMACliteEnv(gym.Env):
    """SMAC's layout under SMAClite's attribute names."""

    def __init__(self, map_name, seed=None, use_cpp_rvo2=False):
        self.game = Duel(*MAPS[map_name], limit=0)
        game = self.game
        self.n_agents, self.n_enemies, self.n_actions = game.n_agents, game.n_enemies, game.n_actions
        shields = {"ally_has_shields": bool(game.shield_ally), "enemy_has_shields": bool(game.shield_enemy)}
        self.map_info = SimpleNamespace(num_unit_types=game.n_types, **shields)
        self.enemy_feat_size = 5 + game.shield_enemy + game.n_types
        self.ally_feat_size = 5 + game.shield_ally + game.n_types
        others = self.n_enemies * self.enemy_feat_size + (self.n_agents - 1) * self.ally_feat_size
        self.obs_size = 4 + others + 1 + game.shield_ally + game.n_types
        self.state_size = 3 * (self.n_agents + self.n_enemies)
        box = gym.spaces.Box(-1, 1, (self.obs_size,), dtype=np.float32)
        self.observation_space = gym.spaces.Tuple([box] * self.n_agents)
        self.action_space = gym.spaces.Tuple([gym.spaces.Discrete(self.n_actions)] * self.n_agents)

    def reset(self, seed=None, options=None):
        self.game.begin()
        return self.get_obs(), {}

    def step(self, actions):
        assert all(type(action) is int for action in actions)
        reward, over, won = self.game.play(actions)
        return self.get_obs(), reward, over, False, {"battle_won": won}

    def get_obs(self):
        return tuple(self.game.observe(agent) for agent in range(self.n_agents))

    def get_state(self):
        return self.game.state()

    def get_avail_actions(self):
        return [np.array(row, float) for row in self.game.available()]


for _name in MAPS.keys() - {spec.removeprefix("smaclite/").removesuffix("-v0") for spec in gym.registry}:
    gym.register(f"smaclite/{_name}-v0", entry_point=SMACliteEnv, kwargs={"map_name": _name})
