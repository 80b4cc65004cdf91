"""SMAX battles: the same as JaxMARL's own, ended and cut as they say, alone and in batches of any size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kd_core.errors import UserError
from kd_envs import jax_batch
from kd_envs.jax_support import available, load
from kd_envs.smax import SmaxBatch, map_facts
from kd_envs.smax.env import SmaxEnv
from kd_envs.smax.simulator import SIZES, STOP, environment

pytestmark = pytest.mark.skipif(not available(), reason="JaxMARL needs Python 3.11: pip install -e '.[smax]'")

SIZE, SEED = 4, 11
EAST, FIRST_ATTACK = 1, 5


def three_marines(size: int = SIZE, seed: int = SEED, episode_limit: int = 100, **options) -> SmaxBatch:
    """Battles on 3m; compiled once for each size."""
    return SmaxBatch(size, "3m", seed=seed, episode_limit=episode_limit, **options)


def attack(available_actions: np.ndarray) -> np.ndarray:
    """March east, and shoot at the first enemy within range; the dead stop."""
    targets = available_actions[..., FIRST_ATTACK:]
    shoot = FIRST_ATTACK + targets.argmax(-1)
    march = np.where(available_actions[..., EAST] == 1, EAST, STOP)
    return np.where(targets.any(-1), shoot, march)


def alive(envs: SmaxBatch) -> tuple[np.ndarray, np.ndarray]:
    """Which allies and which enemies live, ``(size, units)`` each, as the simulator has it."""
    units = np.asarray(envs._world["state.unit_alive"])
    return units[:, : envs.facts.n_agents], units[:, envs.facts.n_agents :]


@pytest.mark.parametrize("map_name", ["3m", "2s3z"])
def test_a_battle_is_jaxmarls_own_step_by_step(map_name):
    """Against the raw environment, given the same keys; its state normalised by arithmetic of our own."""
    jax = load("jax")
    scenario = load("jaxmarl.environments.smax.smax_env").map_name_to_scenario(map_name)
    raw = load("jaxmarl.environments.smax.heuristic_enemy_smax_env").HeuristicEnemySMAX(scenario=scenario)
    raw_step = jax.jit(raw.step_env)
    env = SmaxEnv(map_name=map_name, seed=3)
    _, key = jax.random.split(jax.random.key(3))  # the first episode's, of the environment's
    key, draw = jax.random.split(key)
    raw_obs, world = raw.reset(draw)
    env.reset()
    ended, steps = False, 0
    while True:
        np.testing.assert_allclose(env.get_obs(), [raw_obs[agent] for agent in raw.agents], atol=1e-5)
        masks = raw.get_avail_actions(world)
        np.testing.assert_array_equal(env.get_avail_actions(), [masks[agent] for agent in raw.agents])
        np.testing.assert_allclose(env.get_state(), expected_state(raw, world.state), atol=1e-5)
        if ended:
            break
        actions = attack(np.array(env.get_avail_actions()))
        key, draw = jax.random.split(key)
        raw_obs, world, rewards, dones, _ = raw_step(draw, world, dict(zip(raw.agents, actions, strict=True)))
        _, reward, terminated, truncated, info = env.step(actions)
        assert reward == pytest.approx(float(rewards[raw.agents[0]]), abs=1e-6)
        assert (terminated, truncated) == (bool(dones["__all__"]), False)
        ended, steps = terminated, steps + 1
    # JaxMARL's own rule: the bonus of 1 in the last reward.
    assert info == {"battle_won": reward >= 1.0}
    assert 5 < steps < 100


@pytest.mark.parametrize("map_name", ["3m", "3s5z", "5m_vs_6m", "smacv2_5_units"])
def test_every_unit_of_any_battle_sees_may_and_is_pushed_as_in_jaxmarl(map_name):
    """Both sides, on crowded states that no battle need reach: the dead, the half-hidden and the overlapping."""
    jax = load("jax")
    jnp = jax.numpy
    ours = environment(map_name)._env
    raw = load("jaxmarl.environments.smax.smax_env")
    raw = raw.SMAX(scenario=raw.map_name_to_scenario(map_name))
    _, state = raw.reset(jax.random.key(0))
    units, moved = raw.num_agents, []
    for seed, spread in enumerate([2.0, 6.0, 10.0, 14.0, 20.0]):
        rng = np.random.default_rng(seed)
        crowded = state.replace(
            unit_positions=jnp.array(rng.uniform(6.0, 6.0 + spread, (units, 2)), jnp.float32),
            unit_alive=jnp.array(rng.random(units) < 0.8),
            unit_health=state.unit_health * rng.uniform(0.1, 1.0, units).astype(np.float32),
            unit_types=jnp.array(rng.integers(0, 6, units), state.unit_types.dtype),
            unit_weapon_cooldowns=jnp.array(rng.uniform(-1.0, 1.0, units), jnp.float32),
            prev_movement_actions=jnp.array(rng.uniform(-1.0, 1.0, (units, 2)), jnp.float32),
            prev_attack_actions=jnp.array(rng.integers(0, 8, units), jnp.int32),
        )
        seen, expected = ours.get_obs(crowded), raw.get_obs(crowded)
        may, should = ours.get_avail_actions(crowded), raw.get_avail_actions(crowded)
        for agent in raw.agents:
            np.testing.assert_allclose(seen[agent], expected[agent], atol=1e-6)
            np.testing.assert_array_equal(may[agent], should[agent])
            assert may[agent].dtype == should[agent].dtype
        pushed, wanted = ours._push_units_away(crowded), raw._push_units_away(crowded)
        np.testing.assert_allclose(pushed.unit_positions, wanted.unit_positions, atol=1e-4)
        moved.append(not np.allclose(wanted.unit_positions, crowded.unit_positions))
    assert moved[0]


def expected_state(raw, state) -> np.ndarray:
    """Of each unit the share of its health, place on the 32 by 32 map, cooldown and type; then teams and types."""
    rows = []
    for unit in range(len(np.asarray(state.unit_health))):
        kind = int(state.unit_types[unit])
        health = float(state.unit_health[unit]) / float(raw.unit_type_health[kind])
        x, y = (float(number) for number in state.unit_positions[unit])
        cooldown = max(0.0, float(state.unit_weapon_cooldowns[unit]))
        row = [health, x / 32.0, y / 32.0, cooldown, *np.eye(6)[kind]]
        rows.append(row if bool(state.unit_alive[unit]) else [0.0] * 10)
    teams, kinds = np.asarray(state.unit_teams), np.asarray(state.unit_types) / 5.0
    return np.concatenate([np.ravel(rows), teams, kinds])


def test_battles_end_as_the_simulator_says_and_show_their_last_moment():
    envs = three_marines()
    wins = losses = 0
    for _ in range(12):
        views = envs.reset()
        rows = list(range(SIZE))
        while rows:
            outcome = envs.step(rows, attack(views.avail_actions))
            views, allies, enemies = outcome.views, *(units[rows] for units in alive(envs))
            # The dead may only stop, the living may always move and stop.
            np.testing.assert_array_equal(views.avail_actions[..., STOP], 1)
            np.testing.assert_array_equal(views.avail_actions.sum(-1) == 1, ~allies)
            np.testing.assert_array_equal(views.avail_actions[..., :STOP].all(-1), allies)
            np.testing.assert_array_equal(views.obs.any(-1), allies)
            np.testing.assert_array_equal(outcome.terminated, ~(allies.any(1) & enemies.any(1)))
            health = views.state[:, : 6 * 10].reshape(-1, 6, 10)[..., 0]
            np.testing.assert_array_equal(health > 0, np.concatenate([allies, enemies], axis=1))
            for row, ended in enumerate(outcome.terminated):
                won = bool(allies[row].any() and not enemies[row].any())
                assert outcome.infos[row] == ({"battle_won": won} if ended else {})
                assert (outcome.reward[row, 0] >= 1.0) == won
                wins, losses = wins + won, losses + bool(ended and not won)
            assert not outcome.truncated.any()
            going = np.flatnonzero(~outcome.terminated)
            rows, views = [rows[i] for i in going], views._replace(avail_actions=views.avail_actions[going])
        if wins > 1 and losses > 1:
            return
    pytest.fail(f"{wins} wins and {losses} losses: the policy of this test should do both")


def test_a_battle_at_the_limit_is_cut_and_not_lost():
    envs = three_marines(episode_limit=3)
    envs.reset()
    stop = np.full((SIZE, 3), STOP)
    for step in (1, 2, 3):
        outcome = envs.step(range(SIZE), stop)
        assert not outcome.terminated.any()
        assert outcome.truncated.tolist() == [step == 3] * SIZE
    assert outcome.infos == [{"battle_won": False}] * SIZE
    # The next battle has its own three steps.
    envs.reset()
    assert not envs.step(range(SIZE), stop).truncated.any()


def test_who_only_stops_loses_before_the_limit():
    env = SmaxEnv(map_name="3m", seed=1)
    env.reset()
    for _ in range(100):
        _, _, terminated, truncated, info = env.step([STOP] * 3)
        if terminated or truncated:
            break
    assert (terminated, truncated, info) == (True, False, {"battle_won": False})


@pytest.mark.parametrize("smallest", [SIZE, 1], ids=["all are stepped to the end", "those that ended are let go"])
def test_one_environment_is_a_row_of_a_batch_of_any_size(monkeypatch, smallest):
    """Also after battles that ended before those beside them did."""
    monkeypatch.setattr(jax_batch, "SMALLEST", smallest)
    monkeypatch.setattr(jax_batch, "SHRINK", 2)
    batch = three_marines()
    stepped = set()
    # Row 2 of the batch, and as a host builds it.
    env = SmaxEnv(map_name="3m", seed=SEED + 2, episode_limit=100, common_reward=True, reward_scalarisation="sum")
    waited = 0
    for _ in range(3):
        views, rows = batch.reset(), list(range(SIZE))
        env.reset()
        while rows:
            actions = attack(views.avail_actions)
            outcome = batch.step(rows, actions)
            if 2 in rows:
                row = rows.index(2)
                stepped.add(len(batch._held))
                np.testing.assert_allclose(env.get_obs(), views.obs[row], atol=1e-6)
                np.testing.assert_allclose(env.get_state(), views.state[row], atol=1e-6)
                np.testing.assert_array_equal(env.get_avail_actions(), views.avail_actions[row])
                _, reward, *ends = env.step(actions[row])
                assert reward == pytest.approx(outcome.reward[row, 0], abs=1e-6)
                assert ends == [outcome.terminated[row], outcome.truncated[row], outcome.infos[row]]
            waited += 2 not in rows
            going = np.flatnonzero(~outcome.terminated)
            rows = [rows[i] for i in going]
            views = type(views)(*(view[going] for view in outcome.views))
    assert waited, "row 2 never had to wait for the others"
    assert (min(stepped) < SIZE) == (smallest < SIZE)


def test_a_seed_repeats_its_battles_and_every_row_has_its_own():
    envs = three_marines()
    first, second = envs.reset().state, envs.reset().state
    assert len(np.unique(np.concatenate([first, second]), axis=0)) == 2 * SIZE
    again = three_marines()
    np.testing.assert_array_equal(again.reset().state, first)
    envs.reseed(SEED)
    np.testing.assert_array_equal(envs.reset().state, first)
    np.testing.assert_array_equal(envs.reset().state, second)
    assert not np.array_equal(three_marines(seed=SEED + SIZE).reset().state, first)


def test_rows_have_the_keys_that_jax_makes_of_their_seeds():
    import jax

    seeds = [0, 1, 2**31 - 1, 2**31, 2**32 - 1]
    keys = three_marines(size=len(seeds)).simulator.keys(seeds)
    expected = [jax.random.key_data(jax.random.key(seed)) for seed in seeds]
    assert keys.dtype == expected[0].dtype
    np.testing.assert_array_equal(keys, expected)


def test_an_environment_asked_before_its_first_reset_shows_the_battle_that_it_begins():
    env = SmaxEnv(map_name="3m", seed=5)
    before = env.get_state()
    env.reset()
    np.testing.assert_array_equal(env.get_state(), before)
    env.reset()
    assert not np.array_equal(env.get_state(), before)
    env.reset(seed=5)
    np.testing.assert_array_equal(env.get_state(), before)


def test_sizes_are_those_of_what_is_shown():
    env = SmaxEnv(map_name="2s3z", seed=0)
    info = env.get_env_info()
    env.reset()
    assert np.shape(env.get_obs()) == (info["n_agents"], info["obs_shape"]) == (5, 127)
    assert np.shape(env.get_state()) == (info["state_shape"],) == (120,)
    assert np.shape(env.get_avail_actions()) == (5, info["n_actions"]) == (5, 10)
    assert (info["n_enemies"], info["family"], info["episode_limit"]) == (5, "smax", 100)
    facts = map_facts("5m_vs_6m")
    assert (facts.n_agents, facts.n_enemies, facts.obs_size, facts.state_size, facts.n_actions) == (5, 6, 140, 132, 11)


def test_the_sizes_stated_of_maps_are_jaxmarls():
    maps = load("jaxmarl.environments.smax.smax_env").MAP_NAME_TO_SCENARIO
    assert {name: (scenario.num_allies, scenario.num_enemies) for name, scenario in maps.items()} == SIZES


def test_rewards_per_agent_are_the_teams():
    envs, each = three_marines(), three_marines(common_reward=False)
    views = envs.reset()
    each.reset()
    while True:
        actions = attack(views.avail_actions)
        team, own = envs.step(range(SIZE), actions), each.step(range(SIZE), actions)
        assert team.reward.shape == (SIZE, 1) and own.reward.shape == (SIZE, 3)
        np.testing.assert_array_equal(own.reward, np.repeat(team.reward, 3, axis=1))
        if team.reward.any():
            break
        views = team.views


# --- mistakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"map_name": "5m_vs_7m"}, "map_name '5m_vs_7m' is no SMAX map; did you mean '5m_vs_6m'"),
        ({"map_name": None}, "map_name 'None' is no SMAX map"),
        ({"episode_limit": 0}, "env_args.episode_limit is 0: expected a number of steps of at least 1"),
        ({"episode_limit": "60"}, "env_args.episode_limit is '60': expected"),
        ({"episode_limit": 2.5}, "env_args.episode_limit is 2.5: expected"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_one_line(options, message):
    with pytest.raises(UserError) as caught:
        SmaxBatch(1, **{"map_name": "3m", **options})
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_render_and_replays_are_refused():
    with pytest.raises(UserError, match="SMAX cannot 'save_replay': leave render and save_replay at False"):
        three_marines().call("save_replay")


def test_without_jaxmarl_the_way_to_install_it_is_one_line(monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "jaxmarl"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "jaxmarl", None)
    with pytest.raises(UserError, match=r"need JaxMARL .*: pip install -e '\.\[smax\]'") as caught:
        SmaxEnv(map_name="3m")
    assert "\n" not in str(caught.value)


def test_a_run_without_jaxmarl_ends_with_that_line(mains, tmp_path):
    line = ["--config=kd_teacher", "--env-config=smax", "with", "env_args.map_name=3m"]
    run = mains.run(*line, f"local_results_path={tmp_path}", before="import sys; sys.modules['jaxmarl'] = None")
    assert "pip install -e '.[smax]'" in run.error


# --- JAX stays out of the way ----------------------------------------------------------------------------------

QUIET = """
import os, sys
sys.path.insert(0, {source!r})
import main
from kd_core import host
from kd_marl.plugin import lifecycle, register
register.register(host.get_host())
lifecycle.install(host.get_host())
assert "jax" not in sys.modules, "imported before anyone asked for a battle"
from kd_envs.smax.env import SmaxEnv
streams = sys.stdout, sys.stderr
env = SmaxEnv(map_name="3m")
env.get_env_info()
assert "jax" not in sys.modules, "imported before anyone played a battle"
env.reset()
assert (sys.stdout, sys.stderr) == streams, "JaxMARL replaced the streams"
assert "jaxmarl.environments.overcooked" not in sys.modules, "JaxMARL's other environments were imported"
print(os.environ["JAX_PLATFORMS"], os.environ["XLA_FLAGS"])
"""


def test_jax_is_imported_for_a_battle_only_and_says_nothing(source_root):
    script = QUIET.format(source=str(source_root))
    environment = {key: value for key, value in os.environ.items() if key not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    environment.pop("EPYMARL_HOME", None)
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "cpu --xla_cpu_multi_thread_eigen=false\n"


@pytest.fixture
def no_cache_named(monkeypatch):
    """As in a fresh process; afterwards as before."""
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_cache_named")
def test_what_jax_compiles_is_kept_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load("jax")
    folder = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert folder.parent == tmp_path / "kd-marl" / "jax"
    assert folder.stat().st_mode & 0o777 == 0o700, "machine code that others could replace"


@pytest.mark.usefixtures("no_cache_named")
def test_without_a_place_for_a_cache_nothing_is_kept(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    load("jax")
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_the_users_own_choice_of_a_cache_stands(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "chosen"))
    load("jax")
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "chosen")
