"""The bundled runtime's environments and configuration files."""

from __future__ import annotations

import sys
from itertools import pairwise
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import yaml

from epymarl_lite.envs import REGISTRY, GymmaWrapper, pz
from epymarl_lite.envs.starcraft import SMACWrapper
from epymarl_lite.main import CONFIG_FOLDER, config_copy, load_config, map_name_of, recursive_dict_update
from epymarl_lite.utils.general_reward_support import test_alg_config_supports_reward
from epymarl_lite.utils.timehelper import time_left, time_str

SPREAD = "pz-mpe-simple-spread-v3"
MPE_KEYS = ["spread-v3", "speaker-listener-v4", "adversary-v3", "tag-v3", "reference-v3", "world-comm-v3"]


def play(env, steps: int) -> list[tuple]:
    """Action 1 for at most ``steps`` steps; the results of each step."""
    env.reset()
    results = []
    while len(results) < steps and not (results and (results[-1][2] or results[-1][3])):
        results.append(env.step([1] * env.n_agents))
    return results


@pytest.mark.parametrize(
    ("key", "n", "obs", "last_rows"),
    [
        (SPREAD, 3, 18, [[1] * 5] * 3),
        ("pz-mpe-simple-speaker-listener-v4", 2, 11, [[1, 1, 1, 0, 0], [1] * 5]),
        ("pz-mpe-simple-adversary-v3", 3, 10, [[1] * 5] * 3),
    ],
)
def test_gymma_sizes_padding_and_state(key, n, obs, last_rows):
    env = GymmaWrapper(key, 25, seed=1)
    assert env.get_env_info() == {
        "state_shape": n * obs,
        "obs_shape": obs,
        "n_actions": 5,
        "n_agents": n,
        "episode_limit": 25,
    }
    env.reset()
    rows = env.get_obs()
    assert all(row.shape == (obs,) and row.dtype == np.float32 for row in rows)
    np.testing.assert_array_equal(env.get_state(), np.concatenate(rows))
    np.testing.assert_array_equal(env.get_obs_agent(1), rows[1])
    assert env.get_avail_actions() == last_rows and env.get_avail_agent_actions(0) == last_rows[0]
    if n == 2:
        assert not rows[0][3:].any() and rows[0][:3].all()  # the speaker's three features, then padding


def test_stock_episodes_count_24_of_25_rewards_and_one_more_cycle_keeps_the_last():
    stock = play(GymmaWrapper(SPREAD, 25, seed=1), 100)
    longer = play(GymmaWrapper(SPREAD, 25, seed=1, max_cycles=26), 100)
    assert len(stock) == len(longer) == 25
    assert [step[1] for step in stock[:24]] == [step[1] for step in longer[:24]]
    assert stock[-1][1] == 0.0 and longer[-1][1] < 0
    assert stock[-1][2:4] == (False, True) and longer[-1][2:4] == (False, True)  # both are truncations
    np.testing.assert_array_equal(stock[-1][0], stock[-2][0])
    assert not np.array_equal(longer[-1][0], longer[-2][0])
    assert len(play(GymmaWrapper(SPREAD, 100, seed=1), 200)) == 25  # PettingZoo's own limit


def test_rewards_are_summed_averaged_or_kept():
    own = play(GymmaWrapper(SPREAD, 5, seed=1, common_reward=False), 1)[0][1]
    assert len(own) == 3
    assert play(GymmaWrapper(SPREAD, 5, seed=1), 1)[0][1] == pytest.approx(sum(own))
    mean = play(GymmaWrapper(SPREAD, 5, seed=1, reward_scalarisation="mean"), 1)[0][1]
    assert mean == pytest.approx(sum(own) / 3)


def test_the_constructors_seed_starts_one_stream_of_episodes():
    first, second = GymmaWrapper(SPREAD, 25, seed=4), GymmaWrapper(SPREAD, 25, seed=4)
    starts = []
    for _ in range(3):
        np.testing.assert_array_equal(first.reset()[0], second.reset()[0])
        starts.append(first.get_state())
    assert not np.array_equal(starts[0], starts[1]) and not np.array_equal(starts[1], starts[2])
    first.seed(4)
    first.reset()
    np.testing.assert_array_equal(first.get_state(), starts[0])
    second.reset(seed=4)
    np.testing.assert_array_equal(second.get_state(), starts[0])


@pytest.mark.parametrize("name", MPE_KEYS)
def test_stepping_the_simulator_gives_pettingzoos_own_numbers(name):
    direct = pz.make_pettingzoo(f"pz-mpe-simple-{name}", max_cycles=6)
    assert isinstance(direct, pz.ParticleEnv)
    usual = pz.PettingZooEnv(pz.make_pettingzoo(f"pz-mpe-simple-{name}", max_cycles=6)._env)
    rng = np.random.default_rng(0)
    for seed in (3, None):
        starts = direct.reset(seed=seed)[0], usual.reset(seed=seed)[0]
        assert all(np.array_equal(*pair) for pair in zip(*starts, strict=True))
        for step in range(6):
            actions = [int(rng.integers(space.n)) for space in direct.action_space.spaces]
            a, b = direct.step(actions), usual.step(actions)
            assert all(np.array_equal(*pair) for pair in zip(a[0], b[0], strict=True))
            assert a[1:] == b[1:] and a[3] == (step == 5)
    with pytest.raises(ValueError, match=r"action 99 is not one of the agent's \d+ actions"):
        direct.step([99] * direct.n_agents)


def test_an_older_pettingzoo_serves_where_mpe2_is_missing(monkeypatch):
    pytest.importorskip("pettingzoo.mpe", exc_type=ImportError)
    expected = play(GymmaWrapper(SPREAD, 3, seed=2), 3)
    monkeypatch.setitem(sys.modules, "mpe2", None)
    assert pz.make_pettingzoo(SPREAD)._env.unwrapped.__module__.startswith("pettingzoo.mpe")
    for a, b in zip(play(GymmaWrapper(SPREAD, 3, seed=2), 3), expected, strict=True):
        np.testing.assert_allclose(a[0], b[0], atol=1e-6)
        assert a[1] == pytest.approx(b[1])


def test_gymnasium_keys_with_tuple_spaces_work():
    class Pair(gym.Env):
        n_agents = 2
        observation_space = gym.spaces.Tuple([gym.spaces.Box(-1, 1, (2, 2)), gym.spaces.Discrete(3)])
        action_space = gym.spaces.Tuple([gym.spaces.Discrete(2), gym.spaces.Discrete(4)])

        def reset(self, seed=None, options=None):
            super().reset(seed=seed)
            return (np.eye(2, dtype=np.float32), 2), {}

        def step(self, actions):
            return (np.eye(2, dtype=np.float32), 1), [1.0, 2.0], [actions[0] == 1, True], False, {"won": True}

    gym.register("Pair-v0", entry_point=lambda: Pair())
    env = GymmaWrapper("Pair-v0", 3)
    assert (env.get_obs_size(), env.get_total_actions()) == (4, 4)
    assert env.get_avail_actions() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    env.reset()
    np.testing.assert_array_equal(env.get_obs(), [[1, 0, 0, 1], [0, 0, 1, 0]])
    assert env.step([0, 3])[1:] == (3.0, False, False, {"won": True})
    assert env.step([1, 3])[2:4] == (True, False)
    assert env.step([0, 3])[2:4] == (False, True)


@pytest.mark.parametrize(
    ("env", "env_args", "error", "message"),
    [
        ("gymma", {"time_limit": 5}, ValueError, "gymma needs an environment: add 'with env_args.key="),
        ("gymma", {"key": "pz-mpe-simple-spred-v3", "time_limit": 5}, ValueError, f"did you mean '{SPREAD}'"),
        (
            "gymma",
            {"key": "pz-nothing-at-all-v3", "time_limit": 5},
            ImportError,
            r"pip install 'pettingzoo\[nothing\]'",
        ),
        ("gymma", {"key": "NoSuch-v0", "time_limit": 5}, ValueError, "Gymnasium has no environment 'NoSuch-v0'"),
        ("gymma", {"key": "CartPole-v1", "time_limit": 5}, ValueError, "'CartPole-v1' is not multi-agent"),
        ("gymma", {"key": SPREAD, "time_limit": 0}, ValueError, "time_limit is at least 1 step, not 0"),
        ("gymma", {"key": SPREAD, "time_limit": 5, "continuous_actions": True}, ValueError, "other than discrete"),
        ("gymma", {"key": SPREAD, "time_limit": 5, "reward_scalarisation": "max"}, ValueError, "'sum' or 'mean'"),
        ("gymma", {"key": SPREAD, "time_limit": 5, "pretrained_wrapper": "Tag"}, ValueError, "package.module:Class"),
        ("sc2", {"map_name": "3m"}, ImportError, r"install SMAC from github.com/oxwhirl/smac .*--env-config=smax"),
        ("sc2v2", {"map_name": "10gen_terran"}, ImportError, "install SMACv2 from github.com/oxwhirl/smacv2"),
        ("smaclite", {"map_name": "2s3z", "time_limit": 5}, ImportError, "needs SMAClite: install it from"),
        ("sc2", {"common_reward": False}, ValueError, "env 'sc2' has one reward for all agents"),
    ],
)
def test_environments_say_what_is_wrong(env, env_args, error, message, monkeypatch):
    for package in ("smac", "smac.env", "smacv2", "smaclite"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(error, match=message) as caught:
        REGISTRY[env](**env_args)
    assert "\n" not in str(caught.value)


def test_mpe_without_any_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpe2", None)
    monkeypatch.setitem(sys.modules, "pettingzoo.mpe", None)
    with pytest.raises(ImportError, match="pip install 'mpe2'"):
        REGISTRY["gymma"](key=SPREAD, time_limit=5)


def test_smac_without_starcraft_says_where_it_was_looked_for(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "smac", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "smac.env", SimpleNamespace(StarCraft2Env=None))
    monkeypatch.setenv("SC2PATH", str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError, match=r"needs StarCraft II, and there is none at .*missing.*smax"):
        REGISTRY["sc2"](map_name="3m")


def test_smac_time_limits_are_told_apart_from_lost_battles():
    class Battle:
        timeouts = 0

        def get_env_info(self):
            return {"n_agents": 1, "episode_limit": 2}

        def __getattr__(self, name):
            assert name.startswith("get_") or name in ("save_replay", "close")
            return lambda: name

    inner = Battle()
    env = SMACWrapper(inner)
    inner.step = lambda actions: (1, True, {"battle_won": True})
    assert env.step([1])[1:] == (1.0, True, False, {"battle_won": True})

    def time_out(actions):
        inner.timeouts += 1
        return 0, True, {}

    inner.step = time_out
    assert env.step([1])[1:] == (0.0, False, True, {})
    assert (env.n_agents, env.episode_limit, env.get_state(), env.get_obs()) == (1, 2, "get_state", "get_obs")


# --- configuration --------------------------------------------------------------------------------------------


def test_layers_are_default_then_environment_then_algorithm():
    mappo = load_config(["", "--config=mappo", "--env-config=gymma"])
    assert (mappo["t_max"], mappo["env"], mappo["hidden_dim"]) == (20050000, "gymma", 128)
    assert mappo["env_args"] == {"key": None, "time_limit": 100, "pretrained_wrapper": None}
    qmix = load_config(["", "--config=qmix", "--env-config=sc2"])
    assert (qmix["t_max"], qmix["lr"], qmix["env_args"]["state_last_action"]) == (2050000, 0.0005, False)


def test_flags_are_taken_out_of_the_command_line():
    params = ["main.py", "--config=iql", "with", "env_args.key=a", "--env-config=gymma", "env_args.map_name=b=c"]
    config = load_config(params)
    assert params == ["main.py", "with", "env_args.key=a", "env_args.map_name=b=c"]
    assert map_name_of(config, params) == "b=c"
    assert map_name_of(config, params[:3]) == "a"
    assert map_name_of({"env_args": {"map_name": "3m"}}, ["main.py"]) == "3m"


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (["--config=qmx", "--env-config=gymma"], FileNotFoundError, "no configuration 'qmx' .*: did you mean 'qmix'"),
        (["--config=qmix", "--env-config=zzz"], FileNotFoundError, "config/envs: valid: gymma, sc2, sc2v2, smaclite"),
        (["--config", "qmix", "--env-config=gymma"], ValueError, "write --config=<name> with an equals sign"),
        (["--config=qmix"], ValueError, "--env-config=<name> is missing"),
    ],
)
def test_wrong_flags_say_what_was_expected(params, error, message):
    with pytest.raises(error, match=message):
        load_config(["main.py", *params])


def test_an_absolute_path_without_suffix_is_a_configuration_too(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    assert load_config(["", f"--config={tmp_path}/mine", "--env-config=gymma"])["name"] == "mine"


def test_configs_merge_and_copy_deeply():
    base = {"a": {"b": 1, "c": [1]}, "d": None}
    assert recursive_dict_update(base, {"a": {"b": 2}, "d": {"e": 3}}) == {"a": {"b": 2, "c": [1]}, "d": {"e": 3}}
    copied = config_copy(base)
    copied["a"]["c"].append(2)
    assert base["a"]["c"] == [1]


@pytest.mark.parametrize("path", sorted(CONFIG_FOLDER.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_key_has_a_comment_above_it_and_appears_once(path):
    lines = path.read_text().splitlines()
    for above, line in pairwise(lines):
        if ":" in line and not line.lstrip().startswith("#"):
            assert above.lstrip().startswith("# "), f"{path.name}: no comment above '{line.strip()}'"
    keys = [line.split(":")[0] for line in lines if line and line[0] not in "# "]
    assert len(keys) == len(set(keys)) == len(yaml.safe_load(path.read_text()))


def test_mixers_need_a_common_reward():
    def supports(learner, mixer=None, common=False):
        return test_alg_config_supports_reward(SimpleNamespace(learner=learner, mixer=mixer, common_reward=common))

    assert supports("ppo_learner") and supports("q_learner") and supports("q_learner", "qmix", common=True)
    assert not any((supports("q_learner", "qmix"), supports("q_learner", "vdn"), supports("coma_learner")))


def test_durations_are_readable(monkeypatch):
    assert time_str(93784) == "1 days, 2 hours, 3 minutes, 4 seconds"
    assert time_str(59.9) == "59 seconds"
    monkeypatch.setattr("time.time", lambda: 110.0)
    assert time_left(100.0, 0, 50, 200) == "30 seconds"
    assert time_left(100.0, 0, 200, 200) == "-"
