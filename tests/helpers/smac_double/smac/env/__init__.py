"""Double of SMAC's interface: the sizes of the real maps, a tiny game instead of StarCraft II."""

from __future__ import annotations

from typing import ClassVar

from duel import Duel


class StarCraft2Env:
    """Takes every argument of EPyMARL's sc2.yaml; heeds those that change sizes, and ``continuing_episode``."""

    # agents, enemies, type bits, (allies shielded, enemies shielded), limit: SMAC's own
    MAPS: ClassVar = {
        "3m": (3, 3, 0, (0, 0), 60),
        "8m": (8, 8, 0, (0, 0), 120),
        "5m_vs_6m": (5, 6, 0, (0, 0), 70),
        "3s5z": (8, 8, 2, (1, 1), 150),
        "2s3z_vs_4m": (5, 4, 2, (1, 0), 40),  # no map of SMAC's: only one side has shields
    }

    n_actions_move, n_obs_pathing, n_obs_height = 4, 8, 9

    def __init__(self, map_name="8m", continuing_episode=False, seed=None, **options):
        self.options = {"obs_all_health": True, "obs_own_health": True} | options
        self.game = Duel(*self.MAPS[map_name], seed=seed)
        self._read_sizes()
        self.continuing_episode, self.timeouts, self.battles_won = continuing_episode, 0, 0
        self._seed = seed

    def _read_sizes(self):
        game = self.game
        self.n_agents, self.n_enemies, self.n_actions = game.n_agents, game.n_enemies, game.n_actions
        self.episode_limit, self.unit_type_bits = game.limit, game.n_types
        self.shield_bits_ally, self.shield_bits_enemy = game.shield_ally, game.shield_enemy
        flags = ("all_health", "own_health", "last_action", "pathing_grid", "terrain_height", "timestep_number")
        for name in flags:
            setattr(self, f"obs_{name}", bool(self.options.get(f"obs_{name}", False)))

    def get_obs_move_feats_size(self):
        return 4 + 8 * self.obs_pathing_grid + 9 * self.obs_terrain_height

    def get_obs_enemy_feats_size(self):
        return self.n_enemies, 4 + self.unit_type_bits + self.obs_all_health * (1 + self.shield_bits_enemy)

    def get_obs_ally_feats_size(self):
        health = self.obs_all_health * (1 + self.shield_bits_ally)
        return self.n_agents - 1, 4 + self.unit_type_bits + health + self.obs_last_action * self.n_actions

    def get_obs_own_feats_size(self):
        health = self.obs_own_health * (1 + self.shield_bits_ally)
        # SMAC counts the time here and appends it to the observation besides.
        return self.unit_type_bits + health + self.obs_timestep_number

    def get_obs_size(self):
        (enemies, enemy), (allies, ally) = self.get_obs_enemy_feats_size(), self.get_obs_ally_feats_size()
        return self.get_obs_move_feats_size() + enemies * enemy + allies * ally + self.get_obs_own_feats_size()

    def reset(self):
        self.game.begin()
        return self.get_obs(), self.get_state()

    def step(self, actions):
        reward, over, won = self.game.play([int(action) for action in actions])
        info = {"battle_won": won, "dead_allies": 0, "dead_enemies": 0}
        for name, units in (("dead_allies", self.game.agents), ("dead_enemies", self.game.enemies)):
            info[name] = sum(unit.health == 0 for unit in units)
        self.battles_won += won
        late = not over and self.game.steps >= self.episode_limit
        self.timeouts += late
        if late and self.continuing_episode:
            info["episode_limit"] = True
        return reward, over or late, info

    def get_obs(self):
        return [self.get_obs_agent(agent) for agent in range(self.n_agents)]

    def get_obs_agent(self, agent):
        return self.game.observe(agent)

    def get_state(self):
        return self.game.state()

    def get_state_size(self):
        return 3 * (self.n_agents + self.n_enemies)

    def get_avail_actions(self):
        return self.game.available()

    def get_avail_agent_actions(self, agent):
        return self.game.available()[agent]

    def get_total_actions(self):
        return self.n_actions

    def get_env_info(self):
        return {
            "state_shape": self.get_state_size(),
            "obs_shape": self.get_obs_size(),
            "n_actions": self.n_actions,
            "n_agents": self.n_agents,
            "episode_limit": self.episode_limit,
            "agent_features": ["health", "x", "y"],
            "enemy_features": ["health", "x", "y"],
        }

    def get_stats(self):
        return {"battles_won": self.battles_won, "timeouts": self.timeouts}

    def seed(self):
        return self._seed

    def save_replay(self):
        raise NotImplementedError

    def close(self):
        pass
