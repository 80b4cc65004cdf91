"""Traffic lights as the hosts' ``MultiAgentEnv``: each signal of a road network is an agent that chooses its phase."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kd_core.errors import UserError, nearest
from kd_core.host import get_host
from kd_envs.hetero_mask.layouts import AgentLayout, FeatureLayout
from kd_envs.traffic.connection import Connection
from kd_envs.traffic.networks import CONTROLS, find_network
from kd_envs.worlds import Road, Shape, World

# Vehicles are counted in tens, and times in minutes: numbers near 1.
_VEHICLES, _MINUTE = 10.0, 60.0
_LONGEST_GREEN = 2.0
# Blocks: own lights, own lanes, downstream lanes, neighbours' lanes and their lights.
_UNITS = {"O": "1; own.green in minutes", "L": "10 vehicles", "D": "10 vehicles", "N": "10 vehicles", "S": "1"}
_WHOLE = ("episode_seconds", "decision_seconds", "min_green")
_LONGEST_NAME = 32
# Around what a picture shows, in metres.
_MARGIN = 20.0


class TrafficEnv(get_host().MultiAgentEnv):  # type: ignore[misc]
    """EPyMARL environment ``traffic``.

    An episode is ``episode_seconds`` of the network's demand, and a step is ``decision_seconds`` long. The reward is
    minus the seconds that vehicles stood in a step, everywhere and also before they found room to enter, per vehicle of
    the demand: the return of a whole demand is minus the mean waiting time in seconds. Without a common reward an agent
    gets what was waited on its own lanes.

    Args:
        map_name: a network of sumo-rl, such as ``cologne3``.
        sumocfg: SUMO configuration of a network of the user's own; ``map_name`` then only names it.
        episode_seconds: length of an episode; 0: of the whole demand. A shorter one begins at a moment drawn by chance.
        decision_seconds: length of a step.
        min_green: seconds before a green phase may end.
        control: "agents", or who chooses in their place: "fixed_time" (the network's own program) or "max_pressure".
        seed: of the drivers, of demand by chance, and of the beginnings.
        common_reward: whether one reward stands for all agents.
        reward_scalarisation: not read: the common reward is everything that was waited.

    Raises:
        UserError: an unknown network or control, a number out of range, or SUMO is missing or refuses the network.
    """

    def __init__(
        self,
        map_name: str,
        sumocfg: str | None = None,
        episode_seconds: int = 0,
        decision_seconds: int = 5,
        min_green: int = 10,
        control: str = "agents",
        seed: int | None = None,
        common_reward: bool = True,
        reward_scalarisation: str = "sum",
    ) -> None:
        for key, value, low in zip(_WHOLE, (episode_seconds, decision_seconds, min_green), (0, 1, 0), strict=True):
            if type(value) is not int or value < low:
                raise UserError(f"env_args.{key} is {value!r}: expected a whole number of seconds of at least {low}")
        if control not in CONTROLS:
            raise UserError(f"unknown env_args.control {control!r}; {nearest(str(control), CONTROLS)}")
        self.network = find_network(str(map_name), sumocfg)
        longest = self.network.seconds
        if episode_seconds > longest or decision_seconds > (episode_seconds or longest):
            raise UserError(
                f"an episode of {episode_seconds or longest} s in decisions of {decision_seconds} s does not fit into "
                f"the {longest} s of {map_name}: give smaller numbers"
            )
        self._demand = self.network.vehicles()
        if not self._demand:
            raise UserError(f"{map_name} has no vehicle in the {longest} s from {self.network.begin} s on")
        self.control, self.common_reward = control, common_reward
        self.interval, self._seconds = decision_seconds, episode_seconds or longest
        self.episode_limit = self._seconds // decision_seconds
        self._connection = Connection(
            options=[
                *("-n", str(self.network.roads), "-r", ",".join(map(str, self.network.demand))),
                *("--no-step-log", "--no-warnings", "--time-to-teleport", "-1", "--duration-log.disable"),
            ],
            begin=self.network.begin,
            interval=decision_seconds,
            min_green=min_green,
        )
        self.signals: list[dict[str, Any]] = self._connection.call("facts")
        if not self.signals:
            self.close()
            raise UserError(f"{map_name} has no signal with two green phases: there is nothing to choose")
        self.n_agents = len(self.signals)
        self.n_actions = max(len(signal["greens"]) for signal in self.signals)
        self._order = {signal["id"]: k for k, signal in enumerate(self.signals)}
        self.layout = self._layout()
        self._roads: list[tuple[str, list[tuple[float, float]], float]] | None = None
        self.seed(seed)

    def seed(self, seed: int | None = None) -> None:
        """Restart the stream of episodes."""
        self._random = np.random.default_rng(seed)
        self._latest: dict[str, Any] | None = None
        self._views: list[np.ndarray] = []
        self._fresh = False

    @property
    def _measured(self) -> dict[str, Any]:
        # Before the first reset, an environment already returns the episode that the first reset begins.
        if self._latest is None:
            self._begin()
            self._fresh = True
        assert self._latest is not None, "an episode has begun"
        return self._latest

    def _begin(self) -> None:
        begin = self.network.begin + int(self._random.integers(self.network.seconds - self._seconds + 1))
        number = int(self._random.integers(2**31 - 1))
        self._latest = self._connection.call("reset", seed=number, begin=begin, control=self.control)
        self._steps, self._views = 0, []

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[list[np.ndarray], dict]:
        """Begin an episode; ``seed`` restarts the stream of episodes."""
        if seed is not None:
            self.seed(seed)
        if not self._fresh:
            self._begin()
        self._fresh = False
        return self.get_obs(), {}

    def step(self, actions: Sequence[int]) -> tuple[list[np.ndarray], Any, bool, bool, dict[str, Any]]:
        """Play one joint action; one that is not available leaves the phase as it is."""
        self._fresh = False
        self._latest = measured = self._connection.call("step", actions=[int(action) for action in actions])
        self._steps, self._views = self._steps + 1, []
        truncated = self._steps >= self.episode_limit
        scale = self._demand * self._seconds / self.network.seconds
        reward = -measured["waited"] / scale if self.common_reward else [-x / scale for x in measured["local"]]
        return self.get_obs(), reward, False, truncated, self._score() if truncated else {}

    def _score(self) -> dict[str, float]:
        """Return the mean waiting time in seconds per vehicle that set out or wanted to, and what is left of them."""
        measured = self._measured
        due = max(1, measured["due"])
        return {
            "waiting_time": measured["total"] / due,
            "vehicles": float(measured["due"]),
            "arrived": measured["arrived"] / due,
            "not_entered": measured["pending"] / due,
        }

    def _own(self, k: int) -> list[float]:
        """Return what a signal knows of its own lights: a one-hot phase, its green time, whether it may change."""
        seen, phases = self._measured["signals"][k], len(self.signals[k]["greens"])
        green = min(_LONGEST_GREEN, seen["green"] / _MINUTE)
        return [*(float(seen["phase"] == phase) for phase in range(phases)), green, float(seen["free"])]

    def _lanes(self, k: int) -> list[float]:
        seen = self._measured["signals"][k]
        return [n / _VEHICLES for pair in zip(seen["queues"], seen["moving"], strict=True) for n in pair]

    def get_obs(self) -> list[np.ndarray]:
        """Return every agent's observation, ``(obs_size,)`` float32 each, padded with zeros at the end."""
        if not self._views:
            own = [self._own(k) for k in range(self.n_agents)]
            lanes = [self._lanes(k) for k in range(self.n_agents)]
            rows = np.zeros((self.n_agents, self.layout.obs_size), np.float32)
            for k, signal in enumerate(self.signals):
                exits = [n / _VEHICLES for n in self._measured["signals"][k]["exits"]]
                row = [*own[k], *lanes[k], *exits]
                others = [self._order[name] for name in signal["neighbours"]]
                row += [x for other in others for x in lanes[other]]
                row += [x for other in others for x in own[other][:-2]]
                rows[k, : len(row)] = row
            clock = self._steps / self.episode_limit
            state = [x for k in range(self.n_agents) for x in (*own[k], *lanes[k])]
            self._state = np.array([*state, self._measured["pending"] / 100, clock], np.float32)
            self._views = list(rows)
        return self._views

    def _layout(self) -> FeatureLayout:
        names = [_agent_name(signal["id"], k) for k, signal in enumerate(self.signals)]
        rows: list[dict[str, tuple[str, ...]]] = []
        for signal in self.signals:
            others = [self._order[name] for name in signal["neighbours"]]
            blocks = {
                "O": (*_phases("own", signal), "own.green", "own.free"),
                "L": _lane_names(signal),
                "D": tuple(f"exit {_clean(lane)}.vehicles" for lane in signal["exits"]),
                "N": tuple(name for other in others for name in _lane_names(self.signals[other])),
                "S": tuple(name for other in others for name in _phases(names[other], self.signals[other])),
            }
            rows.append({letter: features for letter, features in blocks.items() if features})
        size = max(sum(map(len, row.values())) for row in rows)
        agents = []
        for name, row in zip(names, rows, strict=True):
            features = tuple(feature for part in row.values() for feature in part)
            agents.append(AgentLayout(name, features + (None,) * (size - len(features)), row))
        presets = {
            "own": tuple(("O", "L") for _ in agents),
            "dead_detector": tuple(("O", *row["L"][2:]) for row in rows),
        }
        return FeatureLayout(self.network.name, tuple(agents), size, _UNITS, presets, self.interval)

    def get_obs_agent(self, agent_id: int) -> np.ndarray:
        """Return one agent's observation."""
        return self.get_obs()[agent_id]

    def get_obs_size(self) -> int:
        """Return the number of features of an observation."""
        return self.layout.obs_size

    def get_state(self) -> np.ndarray:
        """Return the state: all lights and lanes, vehicles that wait to enter, and the share of the episode played."""
        self.get_obs()
        return self._state

    def get_state_size(self) -> int:
        """Return the number of features of the state."""
        return 2 + sum(len(signal["greens"]) + 2 + 2 * len(signal["detectors"]) for signal in self.signals)

    def get_avail_actions(self) -> list[list[int]]:
        """Return 0/1 per agent and phase: only the present one until it has been green for its least time."""
        rows = []
        for signal, seen in zip(self.signals, self._measured["signals"], strict=True):
            phases = len(signal["greens"])
            rows.append([int(k < phases and (seen["free"] or k == seen["phase"])) for k in range(self.n_actions)])
        return rows

    def get_avail_agent_actions(self, agent_id: int) -> list[int]:
        """Return one agent's row of available actions."""
        return self.get_avail_actions()[agent_id]

    def get_total_actions(self) -> int:
        """Return the number of phases of the agent with the most."""
        return self.n_actions

    def get_env_info(self) -> dict[str, Any]:
        """Return the sizes, and the layout of each agent's observation."""
        return {
            "state_shape": self.get_state_size(),
            "obs_shape": self.get_obs_size(),
            "n_actions": self.n_actions,
            "n_agents": self.n_agents,
            "episode_limit": self.episode_limit,
            "layout": self.layout.to_dict(),
        }

    def get_stats(self) -> dict[str, Any]:
        """Return an empty dict: waiting times are in the info of an episode's last step."""
        return {}

    def world(self) -> World:
        """Return the roads with their lights, the vehicles, and the signals with the numbers of their phases."""
        if self._roads is None:
            self._roads = self._connection.call("roads")
        scene, seen = self._connection.call("scene"), self._measured["signals"]
        lines = {name: points for name, points, _ in self._roads}
        # What the agents see, and the beginnings of the roads that lead away.
        near = [
            point
            for signal in self.signals
            for covered in signal["detectors"]
            for lane in covered
            for point in lines[lane]
        ]
        ends = [[lines[covered[0]][-1] for covered in signal["detectors"]] for signal in self.signals]
        xs, ys = zip(*near, strict=True)
        bounds = (min(xs) - _MARGIN, min(ys) - _MARGIN, max(xs) + _MARGIN, max(ys) + _MARGIN)
        shapes = [
            Shape(
                name=agent.name,
                kind="agent",
                x=float(np.mean([x for x, _ in places])),
                y=float(np.mean([y for _, y in places])),
                radius=_MARGIN / 8,
                agent=k,
                features=(agent.name,),
                label=str(seen[k]["phase"]),
            )
            for k, (agent, places) in enumerate(zip(self.layout.agents, ends, strict=True))
        ]
        roads = [
            Road(
                name,
                tuple(points),
                width,
                scene["lights"].get(name, ""),
                (f"lane {_clean(name)}", f"exit {_clean(name)}"),
            )
            for name, points, width in self._roads
        ]
        return World(bounds, tuple(shapes), roads=tuple(roads), vehicles=tuple(scene["vehicles"]))

    def render(self) -> None:
        """Refuse to render: `kd-marl watch` draws episodes.

        Raises:
            UserError: always.
        """
        raise UserError("env 'traffic' does not render: use kd-marl watch")

    def save_replay(self) -> None:
        """Refuse to save a replay, which SUMO does not have.

        Raises:
            UserError: always.
        """
        raise UserError("env 'traffic' saves no replay: use kd-marl watch")

    def close(self) -> None:
        """End the simulation."""
        self._connection.close()


def _clean(name: str) -> str:
    """Return a lane's name without the dots that separate a feature's parts."""
    return name.replace(".", "_")


def _agent_name(signal: str, number: int) -> str:
    name = f"signal_{_clean(signal)}"
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}_{number}"


def _phases(stem: str, signal: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{stem}.phase_{k}" for k in range(len(signal["greens"])))


def _lane_names(signal: dict[str, Any]) -> tuple[str, ...]:
    lanes = [_clean(covered[0]) for covered in signal["detectors"]]
    return tuple(f"lane {lane}.{feature}" for lane in lanes for feature in ("queue", "moving"))
