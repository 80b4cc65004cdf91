"""Double of SMACv2's interface: SMAC's, with the own position and field of view in the own row."""

from __future__ import annotations

import numpy as np
from duel import ARENA, Duel
from smac.env import StarCraft2Env


class _Battle(StarCraft2Env):
    """SMACv2's own row: health, shield, place, direction of sight, type; the time comes last and is counted."""

    def __init__(self, capability_config, map_name, obs_own_pos=False, conic_fov=False, **options):
        self.options = {"obs_all_health": True, "obs_own_health": True} | options
        protoss = int(map_name.endswith("protoss"))
        types = len(capability_config["team_gen"]["unit_types"])
        units = capability_config["n_units"], capability_config["n_enemies"]
        self.game = Duel(*units, types, (protoss, protoss), 40)
        self.obs_own_pos, self.conic_fov = obs_own_pos, conic_fov
        self._read_sizes()
        self.continuing_episode, self.timeouts, self.battles_won = False, 0, 0

    def get_obs_own_feats_size(self):
        health = self.obs_own_health * (1 + self.shield_bits_ally)
        return self.unit_type_bits + health + 2 * self.obs_own_pos + 2 * self.conic_fov

    def get_obs_size(self):
        return super().get_obs_size() + self.obs_timestep_number

    def get_obs_agent(self, agent):
        def own(unit):
            place = [unit.x / ARENA, unit.y / ARENA] if self.obs_own_pos else []
            return [*place, *([0.0, 1.0] if self.conic_fov else [])]

        time = [self.game.steps / self.episode_limit] if self.obs_timestep_number else []
        return np.append(self.game.observe(agent, own), np.array(time, np.float32))


class StarCraftCapabilityEnvWrapper:
    """Answers for the battle inside, as SMACv2's wrapper does."""

    def __init__(self, **kwargs):
        self.env = _Battle(**kwargs)

    def __getattr__(self, name):
        if name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)
