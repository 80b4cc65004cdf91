"""Warehouses stepped together in numpy, the same numbers as ``rware`` gives one by one.

``rware`` steps one warehouse some hundred times a second, most of it spent on building observations and a graph of who
moves where. Here all observations are one look-up. The graph is built only where robots are in each other's way.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

from epymarl_lite.envs.env_group import Outcome, Views
from kd_envs.gymma_args import GymmaArgs
from kd_envs.stepped_together import SteppedTogether
from kd_envs.worlds import World, warehouse_world

# rware's numbers of actions and directions.
FORWARD, LEFT, RIGHT, TOGGLE = 1, 2, 3, 4
# Columns and rows that a robot moves by when it faces up, down, left and right.
_STEP_X, _STEP_Y = np.array([0, 0, -1, 1]), np.array([-1, 1, 0, 0])
# The direction after a turn to the left, and to the right.
_LEFT_OF, _RIGHT_OF = np.array([2, 3, 1, 0]), np.array([3, 2, 0, 1])


def _cell_rows() -> np.ndarray:
    """Write what a robot sees of a cell, by 3 times the robot there (0 none, else its direction + 1) plus the shelf.

    The shelf is 0 none, 1 there, 2 there and requested. A cell without a robot has the direction "up", as in rware.
    """
    rows = np.zeros((15, 7), np.float32)
    for robot in range(5):
        for shelf in range(3):
            row = rows[3 * robot + shelf]
            row[0] = robot > 0
            row[1 + max(robot - 1, 0)] = 1
            row[5:] = shelf > 0, shelf > 1
    return rows


_CELLS = _cell_rows()


class WarehouseBatch(SteppedTogether):
    """``size`` warehouses stepped in one call: a ``VectorEnv``.

    Warehouse i has the random numbers of one that is seeded with ``seed + i``, and plays the same episodes.

    Args:
        size: warehouses stepped together.
        model: a warehouse of the task as ``rware`` builds it; only its sizes are read.
        args: gymma's; the task's own limit counts too.
    """

    title = "warehouses stepped in one call"

    def __init__(self, size: int, model: Any, args: GymmaArgs) -> None:
        self.size, self._robots, self._range = size, int(model.n_agents), int(model.sensor_range)
        self._args, self.episode_limit = args, min(args.time_limit, model.max_steps or args.time_limit)
        self._height, self._width = (int(length) for length in model.grid_size)
        self._highways = np.asarray(model.highways, bool)
        self._goals = [(int(x), int(y)) for x, y in model.goals]
        self._requests = int(model.request_queue_size)
        self._reward_all = model.reward_type.name == "GLOBAL"
        self._homes = np.argwhere(~self._highways)  # y and x of the shelves at the start, in order of their numbers
        cells = (2 * self._range + 1) ** 2
        obs_size = 8 + 7 * cells
        self.env_info = {
            "state_shape": self._robots * obs_size,
            "obs_shape": obs_size,
            "n_actions": 5,
            "n_agents": self._robots,
            "episode_limit": self.episode_limit,
        }
        # Grids have a margin as wide as the sensors reach, and are flat: an index is row * stride + column.
        self._stride = self._width + 2 * self._range
        self._area = self._stride * (self._height + 2 * self._range)
        reach = np.arange(-self._range, self._range + 1)
        self._window = (reach[:, None] * self._stride + reach).reshape(-1)
        self._first = np.arange(size)[:, None] * self._area
        self._rows = np.arange(size)[:, None]
        self._available = np.ones((size, self._robots, 5), np.int32)
        self._steps = 0
        self.reseed(args.seed)

    def reseed(self, seed: int) -> None:
        """Restart the random streams: row i from ``seed + i``."""
        from gymnasium.utils import seeding

        self._random = [seeding.np_random(seed + row)[0] for row in range(self.size)]

    def reset(self) -> Views:
        """Begin an episode in each row."""
        robots, shelves = self._robots, len(self._homes)
        self._x: np.ndarray = np.empty((self.size, robots), np.int64)
        self._y, self._direction = np.empty_like(self._x), np.empty_like(self._x)
        # Number 0 stands for no shelf.
        self._requested = np.zeros((self.size, shelves + 1), bool)
        for row, random in enumerate(self._random):
            places = random.choice(np.arange(self._height * self._width), size=robots, replace=False)
            self._y[row], self._x[row] = np.unravel_index(places, (self._height, self._width))
            self._direction[row] = random.choice(4, size=robots)
            self._requested[row, 1 + random.choice(shelves, size=self._requests, replace=False)] = True
        self._carried: np.ndarray = np.zeros((self.size, robots), np.int64)
        self._robot_at = np.zeros(self.size * self._area, np.int64)
        standing = np.zeros((self.size, self._area), np.int64)
        standing[:, self._place(self._homes[:, 1], self._homes[:, 0])] = np.arange(1, shelves + 1)
        self._shelf_at = standing.reshape(-1)
        self._robot_at[self._first + self._place(self._x, self._y)] = np.arange(1, robots + 1)
        self._steps = 0
        return self._views()

    def step(self, rows: Sequence[int], actions: np.ndarray) -> Outcome:
        """Step all warehouses with ``actions`` (size, robots); their episodes end together."""
        assert len(rows) == self.size, "warehouses end their episodes together"
        actions = np.asarray(actions)
        self._move(actions == FORWARD)
        for action, turned in ((LEFT, _LEFT_OF), (RIGHT, _RIGHT_OF)):
            self._direction = np.where(actions == action, turned[self._direction], self._direction)
        toggled = actions == TOGGLE
        here = self._shelf_at[self._first + self._place(self._x, self._y)]
        lifted = toggled & (self._carried == 0)
        dropped = toggled & (self._carried > 0) & ~self._highways[self._y, self._x]
        self._carried = np.where(lifted, here, np.where(dropped, 0, self._carried))
        rewards = self._args.share(self._deliver())
        self._steps += 1
        over = np.full(self.size, self._steps >= self.episode_limit)
        return Outcome(self._views(), rewards, np.zeros(self.size, bool), over, [{} for _ in range(self.size)])

    def worlds(self, rows: Sequence[int]) -> list[World]:
        """Return where robots, shelves and goals of these warehouses are."""
        margin = self._range
        found = []
        for row in rows:
            grid = self._shelf_at.reshape(self.size, -1, self._stride)[row]
            shelves = {int(grid[y, x]): (x - margin, y - margin) for y, x in np.argwhere(grid)}
            places = [shelves[number] for number in sorted(shelves)]
            robots = np.stack([self._x[row], self._y[row], self._direction[row], self._carried[row]], axis=1).tolist()
            wanted = self._requested[row, 1:].tolist()
            found.append(warehouse_world((self._width, self._height), robots, places, wanted, self._goals))
        return found

    def _place(self, x: Any, y: Any) -> Any:
        """Compute indices of cells in a flat grid of one warehouse."""
        return (y + self._range) * self._stride + x + self._range

    def _move(self, forward: np.ndarray) -> None:
        """Move the robots that go forward, but for those that are in the way of each other or of a shelf."""
        x = np.where(forward, np.clip(self._x + _STEP_X[self._direction], 0, self._width - 1), self._x)
        y = np.where(forward, np.clip(self._y + _STEP_Y[self._direction], 0, self._height - 1), self._y)
        start, target = self._place(self._x, self._y), self._place(x, y)
        there = self._robot_at[self._first + target]
        loaded = np.concatenate([np.zeros((self.size, 1), bool), self._carried > 0], axis=1)
        standing = (self._shelf_at[self._first + target] > 0) & ~loaded[self._rows, there]
        target = np.where((self._carried > 0) & standing & (start != target), start, target)
        for row in self._crowded(start, target):
            free = _who_moves(tuple(self._cells(start[row])), tuple(self._cells(target[row])))
            target[row, ~np.array(free)] = start[row, ~np.array(free)]
        moved = start != target
        self._x, self._y = np.where(moved, x, self._x), np.where(moved, y, self._y)
        self._robot_at[self._first + start] = 0
        self._robot_at[self._first + target] = np.arange(1, self._robots + 1)
        taken = self._carried > 0
        first = np.broadcast_to(self._first, taken.shape)[taken]
        self._shelf_at[first + start[taken]] = 0
        self._shelf_at[first + target[taken]] = self._carried[taken]

    def _crowded(self, start: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Find the warehouses in which some robot's target is another's cell or target."""
        crowded = np.zeros(self.size, bool)
        for one in range(self._robots):
            for other in range(self._robots):
                if one != other:
                    crowded |= (target[:, one] == start[:, other]) | (target[:, one] == target[:, other])
        return np.flatnonzero(crowded)

    def _cells(self, places: np.ndarray) -> list[tuple[int, int]]:
        """Convert flat indices to columns and rows."""
        return [(int(place) % self._stride - self._range, int(place) // self._stride - self._range) for place in places]

    def _deliver(self) -> np.ndarray:
        """Reward requested shelves on goals, and request others in their place; ``(size, robots)`` float64."""
        rewards = np.zeros((self.size, self._robots))
        for x, y in self._goals:
            cells = self._first[:, 0] + self._place(x, y)
            shelves = self._shelf_at[cells]
            for row in np.flatnonzero(self._requested[self._rows[:, 0], shelves]):
                candidates = np.flatnonzero(~self._requested[row, 1:])
                drawn = self._random[row].choice(candidates)
                self._requested[row, shelves[row]] = False
                self._requested[row, 1 + drawn] = True
                if self._reward_all:
                    rewards[row] += 1
                else:
                    rewards[row, self._robot_at[cells[row]] - 1] += 1
        return rewards

    def _views(self) -> Views:
        size, robots = self.size, self._robots
        cells = (self._first + self._place(self._x, self._y))[..., None] + self._window
        facing = np.concatenate([np.zeros((size, 1), np.int64), self._direction + 1], axis=1)
        shelves = self._shelf_at[cells]
        # A requested shelf has 2, another 1, none 0.
        kinds = self._requested[self._rows[..., None], shelves].astype(np.int64) + (shelves > 0)
        obs = np.zeros((size, robots, self.env_info["obs_shape"]), np.float32)
        obs[..., 0], obs[..., 1], obs[..., 2] = self._x, self._y, self._carried > 0
        obs[..., 3:7] = self._direction[..., None] == np.arange(4)
        obs[..., 7] = self._highways[self._y, self._x]
        seen = _CELLS[3 * facing[self._rows[..., None], self._robot_at[cells]] + kinds]
        obs[..., 8:] = seen.reshape(size, robots, -1)
        return Views(obs.reshape(size, -1).copy(), obs, self._available.copy())


@functools.lru_cache(maxsize=100_000)
def _who_moves(starts: tuple[tuple[int, int], ...], targets: tuple[tuple[int, int], ...]) -> tuple[bool, ...]:
    """Decide which robots of one warehouse reach their targets, with rware's own choice where two want one cell.

    Robots in a circle of other than two move all. Elsewhere those on one longest path move, and the rest wait.
    """
    import networkx

    wishes = networkx.DiGraph(list(zip(starts, targets, strict=True)))
    free: set[tuple[int, int]] = set()
    for cells in networkx.weakly_connected_components(wishes):
        # A copy, as rware has it: among paths of equal length the order of its nodes decides.
        part = wishes.subgraph(cells).copy()
        try:
            circle = networkx.find_cycle(part)
            free.update(edge[0] for edge in circle if len(circle) != 2)
        except networkx.NetworkXNoCycle:
            free.update(networkx.dag_longest_path(part))
    return tuple(start in free for start in starts)


def batched_warehouse(size: int, **env_args: Any) -> WarehouseBatch | None:
    """Build the warehouses of gymma's ``env_args``, stepped in one call; None where they would not be the same."""
    args = GymmaArgs.read(env_args)
    if args is None or not args.key.startswith("rware:rware-") or not installed():
        return None
    import gymnasium

    try:
        model: Any = gymnasium.make(args.key, disable_env_checker=True, **args.others).unwrapped
    except (gymnasium.error.Error, TypeError):
        return None
    same_views = model.fast_obs and not model.msg_bits and not model.normalised_coordinates
    if same_views and model.max_inactivity_steps is None and model.reward_type.name in ("GLOBAL", "INDIVIDUAL"):
        return WarehouseBatch(size, model, args)
    return None


def installed() -> bool:
    """Tell whether ``rware`` is there."""
    return importlib.util.find_spec("rware") is not None
