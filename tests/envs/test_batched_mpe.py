"""MPE stepped in one call (JaxMARL) is MPE as gymma shows PettingZoo's: same states, same numbers, same scores."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from epymarl_lite.envs.env_group import Views
from epymarl_lite.envs.gymma import GymmaWrapper
from kd_envs.hetero_mask.known_layouts import layout_for
from kd_envs.jax_support import available
from kd_envs.mpe.batch import TASKS, MpeBatch, batched_mpe

SIZE, LIMIT = 4, 25
needs_jaxmarl = pytest.mark.skipif(not available(), reason="JaxMARL needs Python 3.11: pip install -e '.[smax]'")
SPREAD, SPEAKER, ADVERSARY = TASKS
# What env-config mpe gives gymma.
ENV_ARGS = {"time_limit": LIMIT, "max_cycles": LIMIT + 1, "pretrained_wrapper": None}


def batch(key: str, size: int = SIZE, **changes) -> MpeBatch:
    envs = batched_mpe(size, **{"key": key, **ENV_ARGS, "seed": 5, **changes})
    assert envs is not None
    return envs


def gymma(key: str, **changes) -> GymmaWrapper:
    env = GymmaWrapper(**{"key": key, **ENV_ARGS, "seed": 0, **changes})
    env.reset()
    return env


def put(env: GymmaWrapper, world, row: int) -> Views:
    """Put the state of one JAX world into a PettingZoo one; what that shows then."""
    simulator = env._env._simulator
    agents, landmarks = simulator.world.agents, simulator.world.landmarks
    for entity, place in zip([*agents, *landmarks], np.asarray(world["p_pos"][row], np.float64), strict=True):
        entity.state.p_pos = place.copy()
    for agent, speed, said in zip(agents, np.asarray(world["p_vel"][row]), np.asarray(world["c"][row]), strict=False):
        agent.state.p_vel = speed.astype(np.float64)
        agent.state.c = said.astype(np.float64)
    if "goal" in world:
        goal = landmarks[int(world["goal"][row])]
        if hasattr(agents[0], "goal_b"):
            agents[0].goal_b = goal
        else:
            for agent in agents:
                agent.goal_a = goal
    env._obs = env._pad([simulator.observe(agent) for agent in env._env.agents])
    return views_of(env)


def views_of(env: GymmaWrapper) -> Views:
    return Views(env.get_state(), np.stack(env.get_obs()), np.array(env.get_avail_actions()))


def assert_same(ours: Views, row: int, theirs: Views) -> None:
    np.testing.assert_allclose(ours.obs[row], theirs.obs, atol=1e-5)
    np.testing.assert_allclose(ours.state[row], theirs.state, atol=1e-5)
    np.testing.assert_array_equal(ours.avail_actions[row], theirs.avail_actions)


def towards_the_first(world, random: np.ndarray) -> np.ndarray:
    """Actions with which everyone runs into agent 0, which goes its own way."""
    offset = np.asarray(world["p_pos"])[:, :1] - np.asarray(world["p_pos"])[:, : random.shape[1]]
    sideways = np.abs(offset[..., 0]) > np.abs(offset[..., 1])
    actions = np.where(sideways, np.where(offset[..., 0] > 0, 2, 1), np.where(offset[..., 1] > 0, 4, 3))
    actions[:, 0] = random[:, 0]
    return actions


@needs_jaxmarl
@pytest.mark.parametrize("key", TASKS)
def test_the_same_actions_from_the_same_state_give_the_same_numbers_as_pettingzoo(key):
    envs, references = batch(key), [gymma(key) for _ in range(SIZE)]
    assert envs.call("get_env_info") == [env.get_env_info() for env in references]
    rng = np.random.default_rng(0)
    collisions = 0
    for episode in range(4):
        shown = envs.reset()
        for row, env in enumerate(references):
            env.reset()
            assert_same(shown, row, put(env, envs._world, row))
        for t in range(LIMIT):
            own_actions = shown.avail_actions.sum(-1)
            actions = rng.integers(0, own_actions)
            if episode % 2:
                # Contact forces amplify the last digits of float32: each of these steps begins in the very same state.
                for row, env in enumerate(references):
                    put(env, envs._world, row)
            if episode % 2 and key != SPEAKER:
                actions = towards_the_first(envs._world, actions)
            outcome = envs.step(range(SIZE), actions)
            shown = outcome.views
            for row, env in enumerate(references):
                _, reward, terminated, truncated, _ = env.step(actions[row])
                assert_same(shown, row, views_of(env))
                np.testing.assert_allclose(outcome.reward[row], [reward], atol=1e-5)
                assert (outcome.terminated[row], outcome.truncated[row]) == (terminated, truncated)
                # 25 steps, all of them rewarded, and then the time is up; the task has no end of its own.
                assert (terminated, truncated) == (False, t == LIMIT - 1)
            places = np.asarray(envs._world["p_pos"])[:, : actions.shape[1]]
            distances = np.linalg.norm(places[:, :, None] - places[:, None], axis=-1)
            collisions += int((distances < 0.3).sum() - distances[..., 0].size)
    assert collisions > 50 or key == SPEAKER


@needs_jaxmarl
@pytest.mark.parametrize(
    ("settings", "shape"),
    [({"common_reward": False}, (SIZE, 3)), ({"reward_scalarisation": "mean"}, (SIZE, 1))],
)
def test_rewards_per_agent_and_their_mean_are_gymmas(settings, shape):
    envs, env = batch(ADVERSARY, **settings), gymma(ADVERSARY, **settings)
    envs.reset()
    put(env, envs._world, 1)
    actions = np.array([[1, 2, 3], [4, 0, 1], [2, 2, 2], [0, 3, 4]])
    reward = envs.step(range(SIZE), actions).reward
    assert reward.shape == shape
    np.testing.assert_allclose(reward[1], np.atleast_1d(env.step(actions[1])[1]), atol=1e-5)
    # Adversary and agents want different things.
    assert settings.get("common_reward", True) or reward[1, 0] != pytest.approx(reward[1, 1])


@needs_jaxmarl
def test_the_features_of_an_observation_are_where_the_layouts_say():
    """The names that masks go by, against positions and velocities of the worlds themselves."""
    checked = 0
    for key in TASKS:
        envs = batch(key)
        envs.reset()
        shown = envs.step(range(SIZE), np.ones((SIZE, envs.env_info["n_agents"]), int)).views
        layout = layout_for(key, envs.env_info["n_agents"], envs.env_info["obs_shape"])
        place, speed = np.asarray(envs._world["p_pos"]), np.asarray(envs._world["p_vel"])
        agents = envs.env_info["n_agents"]
        for agent in range(agents):
            for block, expected in (
                ("V", speed[:, agent]),
                ("P", place[:, agent]),
                ("L", (place[:, agents:] - place[:, agent : agent + 1]).reshape(SIZE, -1)),
            ):
                columns = [
                    layout.agents[agent].features.index(name) for name in layout.agents[agent].blocks.get(block, ())
                ]
                if columns:
                    checked += 1
                    found = shown.obs[:, agent, columns]
                    np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=f"{key} agent {agent} {block}")
    assert checked == 3 * 3 + 2 + 3  # spread: V, P, L of three; the listener: V, L; the three of adversary: L


@needs_jaxmarl
def test_a_row_plays_the_same_episodes_in_a_batch_of_any_size():
    together, alone = batch(SPEAKER), batch(SPEAKER, size=1, seed=7)
    rng = np.random.default_rng(1)
    for _ in range(2):
        many, one = together.reset(), alone.reset()
        np.testing.assert_array_equal(many.obs[2], one.obs[0])
        for _ in range(LIMIT):
            actions = rng.integers(0, [3, 5], (SIZE, 2))
            many, one = together.step(range(SIZE), actions), alone.step([0], actions[2:3])
            np.testing.assert_allclose(many.views.obs[2], one.views.obs[0], atol=1e-6)
            np.testing.assert_allclose(many.reward[2], one.reward[0], atol=1e-6)


@needs_jaxmarl
def test_a_seed_repeats_its_episodes_and_every_row_has_its_own():
    envs = batch(SPREAD)
    first, second = envs.reset().obs, envs.reset().obs
    envs.reseed(5)
    np.testing.assert_array_equal(envs.reset().obs, first)
    np.testing.assert_array_equal(envs.reset().obs, second)
    starts = np.concatenate([first, second])[:, 0]
    assert len(np.unique(starts, axis=0)) == 2 * SIZE
    assert np.abs(starts[:, 2:4]).max() <= 1.0  # everyone starts within the square, as in PettingZoo


@needs_jaxmarl
def test_a_row_that_is_not_stepped_is_not_returned():
    envs = batch(SPREAD)
    envs.reset()
    outcome = envs.step([0, 2], np.full((2, 3), 2))
    assert outcome.views.obs.shape == (2, 3, 18) and outcome.views.state.shape == (2, 54)
    assert outcome.reward.shape == (2, 1) and len(outcome.infos) == 2
    assert (outcome.views.obs[:, :, 0] > 0).all()  # +x: these were the rows that moved


@pytest.mark.parametrize(
    "settings",
    [
        {"key": "pz-mpe-simple-tag-v3"},
        {"key": "CartPole-v1"},
        {"pretrained_wrapper": "PretrainedAdversary"},
        {"max_cycles": LIMIT},  # PettingZoo's limit takes the last reward
        {"time_limit": 0},
        {"time_limit": "25"},
        {"N": 5},
        {"continuous_actions": True},
        {"reward_scalarisation": "max"},
        {"seed": None},
    ],
    ids=str,
)
def test_what_jaxmarl_cannot_play_alike_is_left_to_the_processes(settings):
    assert batched_mpe(2, **{"key": SPREAD, **ENV_ARGS, "seed": 0, **settings}) is None


def test_without_jaxmarl_mpe_is_left_to_the_processes(monkeypatch):
    monkeypatch.setitem(sys.modules, "jaxmarl", None)
    assert batched_mpe(2, key=SPREAD, **ENV_ARGS, seed=0) is None
