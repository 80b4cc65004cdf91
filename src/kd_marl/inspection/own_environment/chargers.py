"""An environment of your own: rename the class, and replace what happens in it.

Robots drive on a small grid. Each step earns the team 1 for every charger that a robot stands on. Check and train it:

    kd-marl env check chargers:Chargers
    python src/main.py --config=kd_teacher --env-config=own with env_args.key=chargers:Chargers
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Stay, north, south, east, west: columns and rows that a robot moves by.
MOVES = np.array([[0, 0], [0, 1], [0, -1], [1, 0], [-1, 0]])


class Chargers:
    """EPyMARL's interface. Every method here is needed, but for `world`, which is for pictures."""

    def __init__(
        self,
        robots: int = 3,
        size: int = 5,
        seed: int = 0,
        common_reward: bool = True,
        reward_scalarisation: str = "sum",
    ) -> None:
        # The first arguments are yours: env_args of the YAML file. The last three come with every run.
        self.n_agents, self.size = robots, size
        self.episode_limit = 25
        self.common_reward = common_reward
        self.scalarise = np.sum if reward_scalarisation == "sum" else np.mean
        # The only source of random numbers: the same seed plays the same episodes.
        self.random = np.random.default_rng(seed)
        self.reset()

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[list[np.ndarray], dict]:
        """Begin an episode."""
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.steps = 0
        self.robots = self.random.integers(self.size, size=(self.n_agents, 2))
        cells = self.random.choice(self.size**2, size=self.n_agents, replace=False)
        self.chargers = np.stack([cells % self.size, cells // self.size], axis=1)
        return self.get_obs(), {}

    def step(self, actions: Any) -> tuple[list[np.ndarray], float | list[float], bool, bool, dict[str, Any]]:
        """Play one action for each agent."""
        self.robots = self.robots + MOVES[[int(action) for action in actions]]
        self.steps += 1
        taken = {tuple(place) for place in self.robots.tolist()}
        on_charger = float(sum(tuple(place) in taken for place in self.chargers.tolist()))
        rewards = [on_charger / self.n_agents] * self.n_agents
        terminated = False  # the task itself has no end
        truncated = self.steps >= self.episode_limit  # time is over: not an end of the task
        reward = float(self.scalarise(rewards)) if self.common_reward else rewards
        return self.get_obs(), reward, terminated, truncated, {}

    def get_obs(self) -> list[np.ndarray]:
        """Return what each agent sees: its place, then the way to the others and to the chargers."""
        rows = []
        for agent, place in enumerate(self.robots):
            others = np.delete(self.robots, agent, axis=0) - place
            row = np.concatenate([place, others.reshape(-1), (self.chargers - place).reshape(-1)])
            rows.append((row / self.size).astype(np.float32))
        return rows

    def get_state(self) -> np.ndarray:
        """Return all that there is to know, for the critic."""
        return (np.concatenate([self.robots, self.chargers]).reshape(-1) / self.size).astype(np.float32)

    def get_avail_actions(self) -> list[list[int]]:
        """Return a row for each agent: 1 for what it may do. Nobody drives through a wall."""
        ahead = self.robots[:, None] + MOVES
        return ((ahead >= 0) & (ahead < self.size)).all(axis=-1).astype(int).tolist()

    def get_env_info(self) -> dict[str, Any]:
        """Return the sizes, and the features' names: blocks of rows, for masks."""
        return {
            "n_agents": self.n_agents,
            "n_actions": len(MOVES),
            "obs_shape": 4 * self.n_agents,
            "state_shape": 4 * self.n_agents,
            "episode_limit": self.episode_limit,
            "observation": [
                ["O", None, ["x", "y"]],
                ["A", self.n_agents - 1, ["x", "y"]],
                ["charger", self.n_agents, ["x", "y"]],
            ],
        }

    def get_stats(self) -> dict[str, Any]:
        """Return statistics of all episodes; none here."""
        return {}

    def close(self) -> None:
        """Free what the environment holds; nothing here."""

    def world(self) -> dict[str, Any]:
        """Return where everything is, for `kd-marl watch`."""
        shapes: list[dict[str, Any]] = [
            {"name": f"charger {k}", "kind": "landmark", "x": x, "y": y, "radius": 0.4, "features": [f"charger{k}"]}
            for k, (x, y) in enumerate(self.chargers.tolist())
        ]
        for agent, (x, y) in enumerate(self.robots.tolist()):
            shapes.append({"name": f"robot {agent}", "kind": "agent", "agent": agent, "x": x, "y": y, "radius": 0.3})
        return {"bounds": [-0.5, -0.5, self.size - 0.5, self.size - 0.5], "shapes": shapes}
