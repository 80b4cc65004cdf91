"""What a mask costs in simple_speaker_listener at least: against the world itself, rejection sampling and a search."""

from __future__ import annotations

import itertools

import mask_bound
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_marl.runs import reachable

simple_speaker_listener_v4 = pytest.importorskip("mpe2.simple_speaker_listener_v4")
coordinates = st.floats(-2, 2)


def world_of(env, seed):
    env.reset(seed=seed)
    world = env.unwrapped.world
    goal = next(i for i, landmark in enumerate(world.landmarks) if landmark is world.agents[0].goal_b)
    return world, np.array([landmark.state.p_pos for landmark in world.landmarks]) - world.agents[1].state.p_pos, goal


def test_reach_is_how_far_the_listener_gets():
    env = simple_speaker_listener_v4.parallel_env(max_cycles=mask_bound.STEPS)
    world, _, _ = world_of(env, 0)
    start, reached = world.agents[1].state.p_pos.copy(), []
    for _ in range(mask_bound.STEPS):
        env.step({"speaker_0": 0, "listener_0": 2})
        reached.append(np.abs(world.agents[1].state.p_pos - start).sum())
    np.testing.assert_allclose(mask_bound.reach(mask_bound.STEPS), reached, atol=1e-9)


@pytest.mark.parametrize("chases", [True, False])
def test_nobody_who_sees_everything_returns_more(chases):
    env = simple_speaker_listener_v4.parallel_env(max_cycles=mask_bound.STEPS)
    rng = np.random.default_rng(3)
    for seed in range(20):
        world, ways, goal = world_of(env, seed)
        bound = mask_bound.bounds(ways[None], np.ones((1, 3, 2), bool), np.array([goal]))[0]
        returned = 0.0
        while env.agents:
            listener = world.agents[1].state
            way = world.landmarks[goal].state.p_pos - listener.p_pos - 0.4 * listener.p_vel
            axis = int(np.abs(way).argmax())
            action = 1 + 2 * axis + int(way[axis] > 0) if chases else int(rng.integers(5))
            rewards = env.step({"speaker_0": int(rng.integers(3)), "listener_0": action})[1]
            returned += sum(rewards.values())
        assert returned <= bound
        if chases:
            assert returned > 2 * bound - 2


@pytest.mark.parametrize("seen", list(itertools.product([False, True], repeat=3)))
def test_belief_is_what_rejection_sampling_finds(seen):
    rng = np.random.default_rng(7)
    start, landmarks = 0.3, np.array([-0.5, 0.9, 0.1])
    offsets, goal = landmarks - start, 1
    starts, others = rng.uniform(-1, 1, 400_000), rng.uniform(-1, 1, (400_000, 3))
    # Landmarks that are seen are where the start puts them; the sample is possible if that is inside the world.
    others = np.where(seen, starts[:, None] + offsets, others)
    possible = (np.abs(others) <= 1).all(1)
    ways = (others[:, goal] - starts)[possible]
    mean, variance = mask_bound.belief(offsets[None], np.array([seen]), np.array([goal]))
    assert mean[0] == pytest.approx(ways.mean(), abs=0.01)
    assert variance[0] == pytest.approx(ways.var(), abs=0.01)


@given(coordinates, coordinates, st.floats(0, 3))
def test_squared_way_is_that_to_the_nearest_point_in_reach(x, y, radius):
    found = mask_bound.squared_way(np.array([[x, y]]), np.array([radius]))[0, 0]
    share = np.linspace(0, 1, 4001)
    edge = radius * np.stack([share, 1 - share], axis=1)
    searched = ((np.abs([x, y]) - edge) ** 2).sum(1).min()
    assert found == pytest.approx(0.0 if abs(x) + abs(y) <= radius else searched, abs=1e-3)


def test_who_sees_no_landmark_pays_the_priors_variance_at_every_step():
    assert mask_bound.drawn_bounds("lh", "paper", 10, 0) == pytest.approx(np.full(10, -2 * 25 * 4 / 3))


def test_seeing_less_never_raises_the_average_bound():
    rng = np.random.default_rng(5)
    starts = rng.uniform(-1, 1, (100_000, 1, 2))
    ways, goal = rng.uniform(-1, 1, (100_000, 3, 2)) - starts, np.zeros(100_000, int)
    seen = np.zeros((100_000, 3, 2), bool)
    averages = [mask_bound.bounds(ways, seen, goal).mean()]
    for landmark, axis in [(1, 0), (2, 0), (0, 0), (1, 1), (0, 1)]:
        seen[:, landmark, axis] = True
        averages.append(mask_bound.bounds(ways, seen, goal).mean())
    assert averages == sorted(averages)


def test_it_prints_a_bound_for_each_preset(capsys):
    assert mask_bound.main(["--episodes", "1000"]) == 0
    rows = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()[-3:]]
    assert [row[1:3] for row in rows] == [["fo", ""], ["lh", "paper"], ["lh", "random"]]


def test_the_bounds_can_be_kept_for_every_kind_of_messages(tmp_path):
    file = tmp_path / "reachable.json"
    rows = [{"limits": "lh", "masks": "random", "bound": -31.0, "half_95": 0.5}]
    mask_bound.keep(rows, 1000, 1, file)
    mask_bound.keep([{**rows[0], "bound": -32.0}], 1000, 1, file)
    (entry,) = reachable.read(file)
    assert (entry.value, entry.low, entry.high, entry.kind, entry.message_bits) == (-32, -32.5, -31.5, "bound", None)
    # The task as --env-config=mpe has it.
    assert entry.setting["env_args"]["key"] == mask_bound.TASK and entry.setting["env_args"]["time_limit"] == 25


def test_a_single_episode_has_no_error(capsys):
    assert mask_bound.main(["--episodes", "1"]) == 2
    assert "at least 2" in capsys.readouterr().err


def test_a_result_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, capsys):
    with pytest.raises(SystemExit):
        mask_bound.main(["--json", str(tmp_path / "none" / "bound.json")])
    assert "there is no folder" in capsys.readouterr().err
