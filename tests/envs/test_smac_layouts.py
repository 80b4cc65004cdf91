"""Layouts of battles: names and blocks follow from the environments' own sizes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_core.errors import UserError
from kd_envs.hetero_mask import layout_for, mask_for, plain_layout
from kd_envs.hetero_mask.battles import Part, battle_facts, battle_parts, name_features
from smac_layouts import SIZES, smac_env, smac_layout, smax_layout


def ranges_of(layout, agent=0):
    """Block -> half-open range of its features' indices; fails if a block has gaps."""
    found = {}
    for letter, names in layout.agents[agent].blocks.items():
        indices = layout.find(agent, letter)
        assert indices == tuple(range(indices[0], indices[0] + len(names)))
        found[letter] = (indices[0], indices[-1] + 1)
    return found


# --- The tables of sizes and offsets ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "blocks", "obs"),
    [
        ("3m", {"A": (0, 26), "E": (26, 65), "O": (65, 75)}, 75),
        ("8m", {"A": (0, 91), "E": (91, 195), "O": (195, 205)}, 205),
        ("5m_vs_6m", {"A": (0, 52), "E": (52, 130), "O": (130, 140)}, 140),
        ("3s5z", {"A": (0, 91), "E": (91, 195), "O": (195, 205)}, 205),
    ],
)
def test_blocks_of_smax(task, blocks, obs):
    layout = smax_layout(task, *SIZES[task])
    assert (layout.task, layout.obs_size, layout.n_agents) == (task, obs, SIZES[task][0])
    assert [ranges_of(layout, agent) for agent in range(layout.n_agents)] == [blocks] * layout.n_agents


@pytest.mark.parametrize(
    ("task", "blocks", "obs", "actions"),
    [
        ("3m", {"E": (4, 19), "A": (19, 29), "O": (29, 30)}, 30, 9),
        ("8m", {"E": (4, 44), "A": (44, 79), "O": (79, 80)}, 80, 14),
        ("5m_vs_6m", {"E": (4, 34), "A": (34, 54), "O": (54, 55)}, 55, 12),
        ("3s5z", {"E": (4, 68), "A": (68, 124), "O": (124, 128)}, 128, 14),
    ],
)
def test_blocks_of_smac(task, blocks, obs, actions):
    env = smac_env("smac", map_name=task)
    layout = smac_layout(task, env)
    assert (layout.obs_size, env.n_actions) == (obs, actions)
    assert [ranges_of(layout, agent) for agent in range(layout.n_agents)] == [blocks] * layout.n_agents
    assert layout.feature_names[0][:4] == ("move.north", "move.south", "move.east", "move.west")
    assert layout.agents[0].loose == (0, 1, 2, 3)


def test_blocks_of_smaclite_are_those_of_smac():
    lite, smac = smac_layout("3s5z", smac_env("smaclite", map_name="3s5z")), smac_layout("3s5z")
    assert lite == smac
    assert ranges_of(smac_layout("10m_vs_11m", smac_env("smaclite", map_name="10m_vs_11m")))["E"] == (4, 59)


def test_worked_examples():
    smac, smax = smac_layout("3s5z"), smax_layout("5m_vs_6m", 5, 6)
    assert smac.find(2, "E5.health") == (48,)
    assert smac.find(2, "A6.distance") == (109,)
    assert smac.find(2, "O.shield") == (125,)
    assert smax.find(3, "E2.health") == (78,)
    assert smax.find(3, "A4.y") == (41,)
    assert smax.find(3, "O.cooldown") == (133,)
    # A unit's name is all that is known of it; an agent is no ally of its own.
    assert smax.find(3, "E2") == tuple(range(78, 91))
    with pytest.raises(UserError, match="agent 'agent_3' of 5m_vs_6m has no feature 'A3'; did you mean"):
        smax.find(3, "A3")


# --- Names against the environments' states --------------------------------------------------------------------------


def expected_smac(game, agent, name):
    """A named feature of the double, from the game's state."""
    me = game.agents[agent]
    stem, _, part = name.partition(".")
    if stem == "move":
        return game.available()[agent][2 + ("north", "south", "east", "west").index(part)]
    unit = me if stem == "O" else (game.enemies if stem[0] == "E" else game.agents)[int(stem[1:])]
    far = np.hypot(unit.x - me.x, unit.y - me.y)
    if me.health == 0 or unit.health == 0 or far >= 9:
        return 0.0
    if part == "attackable":
        return game.available()[agent][6 + int(stem[1:])]
    if part.startswith("type_"):
        return float(unit.kind == int(part[5:]))
    values = {"visible": 1.0, "distance": far / 9, "x": (unit.x - me.x) / 9, "y": (unit.y - me.y) / 9}
    return (values | {"health": unit.health, "shield": unit.shield})[part]


@pytest.mark.parametrize("package", ["smac", "smaclite"])
def test_every_named_feature_is_what_the_battle_says(package):
    env = smac_env(package, map_name="3s5z")
    layout = smac_layout("3s5z", env)
    env.reset()
    rng, compared = np.random.default_rng(0), set()
    for _ in range(12):
        for agent, row in enumerate(env.get_obs()):
            for i, name in enumerate(layout.feature_names[agent]):
                assert row[i] == pytest.approx(expected_smac(env.game, agent, name), abs=1e-6), (agent, name)
                compared.add(name)
        if env.step([int(rng.choice(np.flatnonzero(row))) for row in env.get_avail_actions()])[
            -2 - (package != "smac")
        ]:
            break
    assert len(compared) > 128


SMAX_STATE = """
import json, jax
from jaxmarl.environments.smax.smax_env import SMAX, map_name_to_scenario
env = SMAX(scenario=map_name_to_scenario("3s5z"))
_, state = env.reset(jax.random.key(0))
# The teams face each other within sight; one enemy and one agent are dead.
places = jax.numpy.array([[10.0 + 0.3 * i, 10.0 + i] for i in range(8)] + [[13.0, 9.5 + i] for i in range(8)])
alive = state.unit_alive.at[12].set(False).at[1].set(False)
health = state.unit_health.at[3].mul(0.5) * alive
moves = state.prev_movement_actions.at[5].set(jax.numpy.array([0.25, -0.5]))
cooldowns = state.unit_weapon_cooldowns.at[2].set(0.75).at[9].set(0.5)
state = state.replace(unit_positions=places, unit_alive=alive, unit_health=health, prev_movement_actions=moves,
    unit_weapon_cooldowns=cooldowns)
obs = env.get_obs(state)
full = env.unit_type_health[state.unit_types], env.unit_type_weapon_cooldowns[state.unit_types]
facts = {"places": places, "alive": alive, "health": health / full[0], "cooldowns": cooldowns / full[1],
    "moves": moves, "types": state.unit_types, "sight": env.unit_type_sight_ranges[state.unit_types],
    "obs": jax.numpy.stack([obs[f"ally_{i}"] for i in range(8)])}
names = {"unit": env.unit_features, "own": env.own_features}
print(json.dumps({name: value.tolist() for name, value in facts.items()} | names))
"""


@pytest.mark.skipif(importlib.util.find_spec("jaxmarl") is None, reason="needs jaxmarl")
def test_every_named_feature_of_smax_is_what_its_state_says():
    """In a process of its own: JAX's threads and pytest's forks do not mix."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SMAX_STATE]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=300)
    facts = json.loads(done.stdout.splitlines()[-1])
    layout = smax_layout("3s5z", 8, 8)
    parts = battle_parts({"family": "smax", "n_enemies": 8}, 8, 205)
    assert [len(part.features) for part in parts] == [len(facts[key]) for key in ("unit", "unit", "own")]
    for agent in range(8):
        for i, name in enumerate(layout.feature_names[agent]):
            value = facts["obs"][agent][i]
            assert value == pytest.approx(expected_smax(facts, agent, name, value), abs=1e-5), (agent, name)


def expected_smax(facts, agent, name, value):
    """A named feature of SMAX from its state; ``last_action`` is not part of what the test sets."""
    stem, _, part = name.partition(".")
    unit = agent if stem == "O" else int(stem[1:]) + 8 * (stem[0] == "E")
    me, it = np.array(facts["places"][agent]), np.array(facts["places"][unit])
    seen = facts["alive"][unit] and np.linalg.norm(it - me) < facts["sight"][agent]
    if not facts["alive"][agent] or not seen:
        return 0.0
    if part.startswith("type_"):
        return float(facts["types"][unit] == int(part[5:]))
    x, y = me / 32 if stem == "O" else (it - me) / facts["sight"][agent]
    moved = dict(zip(("moved_x", "moved_y"), facts["moves"][unit], strict=True))
    values = {"x": x, "y": y, "health": facts["health"][unit], "cooldown": facts["cooldowns"][unit], **moved}
    return values.get(part, value)


# --- Any sizes -------------------------------------------------------------------------------------------------------


def assert_tiled(layout):
    """Every element has a name of its own, and blocks and loose features are all of them, once."""
    for agent, names in enumerate(layout.feature_names):
        assert len(names) == len(set(names)) == layout.obs_size
        found = [i for letter in layout.agents[agent].blocks for i in layout.find(agent, letter)]
        assert sorted([*found, *layout.agents[agent].loose]) == list(range(layout.obs_size))
        assert f"A{agent}." not in " ".join(names)


@given(n_agents=st.integers(1, 12), n_enemies=st.integers(1, 12), types=st.integers(0, 9))
def test_blocks_of_smax_tile_the_observation_for_any_sizes(n_agents, n_enemies, types):
    layout = smax_layout("mine", n_agents, n_enemies, types)
    assert_tiled(layout)
    blocks = layout.agents[0].blocks
    assert len(blocks["E"]) == (7 + types) * n_enemies
    assert len(blocks.get("A", ())) == (7 + types) * (n_agents - 1)
    assert len(blocks["O"]) == 4 + types


FLAGS = ("obs_all_health", "obs_own_health", "obs_last_action", "obs_pathing_grid", "obs_terrain_height")


@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 4), st.tuples(*[st.integers(0, 1)] * 2)),
    flags=st.tuples(*[st.booleans()] * len(FLAGS)),
)
def test_blocks_of_smac_tile_the_observation_for_any_sizes_and_settings(sizes, flags):
    env = smac_env("smac", map_name="3m")
    type(env).MAPS["drawn"] = (*sizes, 10)
    env = smac_env("smac", map_name="drawn", **dict(zip(FLAGS, flags, strict=True)))
    layout = smac_layout("drawn", env)
    assert layout.agents[0].blocks, "the parts add up"
    assert_tiled(layout)
    assert not any(part.isdecimal() for name in layout.feature_names[0] for part in name.split(".")[1:])
    blocks = layout.agents[0].blocks
    assert len(blocks["E"]) == np.prod(env.get_obs_enemy_feats_size())
    assert len(blocks.get("A", ())) == np.prod(env.get_obs_ally_feats_size())
    assert len(blocks.get("O", ())) == env.get_obs_own_feats_size()
    assert len(blocks.get("T", ())) == env.get_obs_move_feats_size() - 4


V2 = {"n_units": 5, "n_enemies": 6, "team_gen": {"unit_types": ["stalker", "zealot", "colossus"]}}


@pytest.mark.parametrize("race", ["10gen_terran", "10gen_protoss"])
@pytest.mark.parametrize("options", [{}, {"conic_fov": True}, {"obs_timestep_number": True, "obs_own_pos": False}])
def test_smacv2_adds_its_own_features(race, options):
    env = smac_env("smacv2", capability_config=V2, map_name=race, **{"obs_own_pos": True, **options})
    layout = smac_layout(race, env)
    assert_tiled(layout)
    shield = ["shield"] if "protoss" in race else []
    place = ["x", "y"] if options.get("obs_own_pos", True) else []
    facing = ["facing_x", "facing_y"] if "conic_fov" in options else []
    own = [name.removeprefix("O.") for name in layout.agents[0].blocks["O"]]
    assert own == ["health", *shield, *place, *facing, "type_0", "type_1", "type_2"]
    assert (layout.feature_names[0][-1] == "time.step") == ("obs_timestep_number" in options)
    env.reset()
    assert all(len(row) == layout.obs_size for row in env.get_obs())
    (x,) = layout.find(2, "O.x") if place else (None,)
    assert x is None or env.get_obs()[2][x] == pytest.approx(env.game.agents[2].x / 64)


def test_rows_that_a_version_makes_longer_keep_their_blocks_and_go_by_number():
    env = smac_env("smac", map_name="3m")
    env.get_obs_ally_feats_size = lambda: (2, 7)
    facts = battle_facts(env)
    layout = layout_for("3m", 3, 34, facts)
    assert_tiled(layout)
    assert layout.agents[0].blocks["A"][:8] == (*(f"A1.{k}" for k in range(7)), "A2.0")
    assert layout.agents[0].blocks["O"] == ("O.health",)


def test_smac_with_a_step_number_is_refused():
    """SMAC then gives one feature more than it declares."""
    with pytest.raises(UserError, match="obs_timestep_number=True makes SMAC give one feature more"):
        battle_facts(smac_env("smac", map_name="3m", obs_timestep_number=True))


@pytest.mark.parametrize(
    ("n_agents", "obs_size", "info"),
    [
        (3, 76, {"family": "smax", "n_enemies": 3}),
        (3, 20, {"family": "smax", "n_enemies": 3}),
        (3, 75, {"family": "smax"}),
        (3, 31, battle_facts(smac_env("smac", map_name="3m"))),
        (5, 30, battle_facts(smac_env("smac", map_name="3m"))),
        (3, 30, {"n_enemies": 3}),
        (3, 30, {}),
    ],
)
def test_sizes_that_do_not_add_up_leave_features_by_index(n_agents, obs_size, info):
    layout = layout_for("3m", n_agents, obs_size, info)
    assert layout == plain_layout("3m", n_agents, obs_size)
    assert mask_for(layout, "lh", "random").draw_per_episode
    with pytest.raises(UserError, match=r"no preset 'paper' for 3m .*: use masks_preset=random"):
        mask_for(layout, "lh", "paper")


def test_an_environment_may_say_itself_what_it_shows():
    info = {"observation": [["time", None, ["step"]], ["E", 2, ["x", "y"]], ["A", 1, ["x"]], ["O", None, ["x"]]]}
    layout = layout_for("my-game", 2, 7, json.loads(json.dumps(info)))
    assert layout.feature_names[1] == ("time.step", "E0.x", "E0.y", "E1.x", "E1.y", "A0.x", "O.x")
    assert layout.agents[0].blocks.keys() == {"E", "A", "O"}
    assert name_features([Part("A", 2, ("x",))], 1) == (("A0.x", "A2.x"), {"A": ("A0.x", "A2.x")})
