"""Warehouses stepped together are rware's own, and each feature is called what it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kd_core.errors import UserError
from kd_envs import warehouse_batch as batch
from kd_envs.hetero_mask import layout_for, mask_for
from kd_envs.hetero_mask.warehouse import sensor_range, warehouse_size
from kd_envs.warehouse_batch import batched_warehouse
from kd_envs.worlds import read_world
from kd_learners.shaping import CarriedShelves, potential

TINY = "rware:rware-tiny-2ag-v2"
# Mostly forward, with turns and loads: robots meet, and now and then they deliver.
ACTIONS = [0.05, 0.5, 0.13, 0.13, 0.19]


def one_by_one(key, size, **settings):
    pytest.importorskip("rware")
    from epymarl_lite.envs.gymma import GymmaWrapper

    seed = settings.pop("seed")
    return [GymmaWrapper(key, seed=seed + row, **settings) for row in range(size)]


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        (TINY, {"common_reward": True}),
        ("rware:rware-tiny-9ag-easy-v2", {"common_reward": False, "sensor_range": 2}),
        ("rware:rware-small-3ag-hard-v2", {"reward_scalarisation": "mean", "sensor_range": 0}),
    ],
)
def test_a_batch_plays_what_rware_plays_one_by_one(key, settings):
    settings = {"time_limit": 100, "seed": 5, **settings}
    envs = one_by_one(key, 3, **settings)
    together = batched_warehouse(3, key=key, **settings)
    assert together.call("get_env_info") == [envs[0].get_env_info()] * 3
    random = np.random.default_rng(1)
    moves = random.choice(5, p=ACTIONS, size=(2, 100, 3, envs[0].n_agents))
    crowded = batch._who_moves.cache_info().misses
    for episode in moves:
        views = together.reset()
        for env in envs:
            env.reset()
        for step, actions in enumerate(episode):
            np.testing.assert_array_equal(views.obs, [env.get_obs() for env in envs])
            np.testing.assert_array_equal(views.state, [env.get_state() for env in envs])
            outcome = together.step(range(3), actions)
            alone = [env.step(row) for env, row in zip(envs, actions, strict=True)]
            np.testing.assert_array_equal(outcome.reward, [np.atleast_1d(result[1]) for result in alone])
            assert outcome.truncated.all() == all(result[3] for result in alone) == (step == 99)
            views = outcome.views
    assert together.worlds([2]) == [read_world(envs[2])]
    assert envs[0].n_agents < 9 or batch._who_moves.cache_info().misses > crowded


def test_deliveries_of_a_batch_are_rwares():
    """Requested shelves are put on goals by hand in both, so that deliveries and new requests are sure to happen."""
    envs = one_by_one(TINY, 2, time_limit=500, seed=3)
    together = batched_warehouse(2, key=TINY, time_limit=500, seed=3)
    together.reset()
    for row, env in enumerate(envs):
        env.reset()
        warehouse = env._env.unwrapped
        robot, shelf = warehouse.agents[0], warehouse.request_queue[0]
        x, y = warehouse.goals[0]
        together._robot_at[row * together._area + together._place(robot.x, robot.y)] = 0
        together._shelf_at[row * together._area + together._place(shelf.x, shelf.y)] = 0
        robot.x = shelf.x = x
        robot.y = shelf.y = y
        robot.carrying_shelf = shelf
        warehouse._recalc_grid()
        together._x[row, 0], together._y[row, 0], together._carried[row, 0] = x, y, shelf.id
        together._robot_at[row * together._area + together._place(x, y)] = 1
        together._shelf_at[row * together._area + together._place(x, y)] = shelf.id
    outcome = together.step(range(2), np.zeros((2, 2), int))
    alone = [env.step([0, 0])[1] for env in envs]
    assert outcome.reward[:, 0].tolist() == alone and min(alone) >= 1.0
    for row, env in enumerate(envs):
        wanted = {shelf.id for shelf in env._env.unwrapped.request_queue}
        assert set(np.flatnonzero(together._requested[row]).tolist()) == wanted


@pytest.mark.parametrize(
    "settings",
    [
        {"key": "pz-mpe-simple-spread-v3"},
        {"key": "rware:rware-nowhere-2ag-v2"},
        {"msg_bits": 1},
        {"max_inactivity_steps": 10},
        {"normalised_coordinates": True},
        {"seed": None},
        {"nothing": 1},
    ],
)
def test_what_would_not_be_the_same_is_not_stepped_together(settings):
    pytest.importorskip("rware")
    assert batched_warehouse(2, **{"key": TINY, "time_limit": 500, "seed": 0, **settings}) is None


def test_every_feature_of_a_robot_is_what_its_name_says():
    (env,) = one_by_one(TINY, 1, time_limit=500, seed=2, sensor_range=2)
    env.reset()
    warehouse = env._env.unwrapped
    layout = layout_for(TINY, 2, env.get_obs_size())
    random = np.random.default_rng(0)
    for _ in range(60):
        env.step(random.choice(5, p=ACTIONS, size=2))
        for agent, (names, obs) in enumerate(zip(layout.feature_names, env.get_obs(), strict=True)):
            for name, value in zip(names, obs, strict=True):
                assert value == from_warehouse(warehouse, agent, name), name


def from_warehouse(warehouse, agent, name):
    """What a name says, read from rware's own objects."""
    robot = warehouse.agents[agent]
    place, _, feature = name.partition(".")
    directions = ("up", "down", "left", "right")
    if place == "O":
        own = {"x": robot.x, "y": robot.y, "loaded": robot.carrying_shelf is not None}
        own["highway"] = warehouse.highways[robot.y, robot.x]
        return own[feature] if feature in own else float(directions[robot.dir.value] == feature)
    x, y = robot.x, robot.y
    for letter, number in zip(place[::2], place[1::2], strict=True) if place != "here" else ():
        x += int(number) * ((letter == "E") - (letter == "W"))
        y += int(number) * ((letter == "S") - (letter == "N"))
    robots = [other for other in warehouse.agents if (other.x, other.y) == (x, y)]
    shelves = [shelf for shelf in warehouse.shelfs if (shelf.x, shelf.y) == (x, y)]
    if feature in directions:
        return float(directions[robots[0].dir.value if robots else 0] == feature)
    cell = {"robot": bool(robots), "shelf": bool(shelves)}
    cell["requested"] = any(shelf in warehouse.request_queue for shelf in shelves)
    return float(cell[feature])


def test_nearer_sensors_lose_the_outermost_ring():
    assert [sensor_range(size) for size in (15, 71, 183, 72, 8)] == [0, 1, 2, None, None]
    layout = layout_for(TINY, 2, 183)
    mask = mask_for(layout, "lh", "nearer")
    wide, near = (set(layout_for(TINY, 2, size).feature_names[0]) for size in (183, 71))
    assert set(mask.names(0)) == set(mask.names(1)) == near and near < wide
    with pytest.raises(UserError, match="rware-tiny-2ag-v2 sees its own cell only: use masks_preset=random"):
        mask_for(layout_for(TINY, 2, 15), "lh", "nearer")
    with pytest.raises(UserError, match="simple_spread has no rings of cells"):
        mask_for(layout_for("simple_spread", 3, 18), "lh", "nearer")


def test_foragers_rows_are_named():
    layout = layout_for("lbforaging:Foraging-2s-8x8-3p-2f-coop-v3", 3, 15)
    blocks = layout.agents[1].blocks
    assert blocks["F"][3:] == ("F1.row", "F1.column", "F1.level")
    assert [name.split(".")[0] for name in (*blocks["O"], *blocks["A"])] == ["O"] * 3 + ["A0"] * 3 + ["A2"] * 3


def test_what_robots_carry_is_worth_more_nearer_to_a_goal():
    phi = potential("gymma", 2, 142, TINY)
    assert phi == CarriedShelves(2, *warehouse_size(TINY, 2, 142)) == CarriedShelves(2, 10, 11)

    def state(*robots):
        names = layout_for(TINY, 2, 71).feature_names[0]
        obs = torch.zeros(2, 71)
        for row, (x, y, loaded, *requested) in zip(obs, robots, strict=True):
            row[0], row[1], row[2] = x, y, loaded
            for cell in requested:
                row[names.index(f"{cell}.requested")] = 1.0
        return obs.reshape(-1)

    worth = {
        1.0 + 0.2: state((5, 10, 1, "here"), (0, 0, 0, "here")),  # on a goal, and below a requested shelf
        0.25 + 1.0: state((0, 0, 1, "here"), (4, 10, 1, "here", "N1")),  # at the far end, and on the other goal
        -0.2 + 0.1: state((5, 10, 1, "N1W1"), (3, 4, 0, "S1", "E1")),  # carries what nobody wants; sees two
    }
    torch.testing.assert_close(phi(torch.stack(list(worth.values()))), torch.tensor(list(worth)))
    assert warehouse_size("rware:rware-tiny-2ag-v2", 2, 140) is None
