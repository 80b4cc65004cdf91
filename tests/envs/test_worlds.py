"""Worlds: what is drawn is where the environments' own observations and rewards say that it is."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from epymarl_lite.envs import gymma_fn
from kd_core.errors import UserError
from kd_envs import jax_support
from kd_envs.hetero_mask.known_layouts import layout_for
from kd_envs.worlds import Road, Shape, World, read_world, world_from

SPREAD, LISTENER, ADVERSARY = (
    "pz-mpe-simple-spread-v3",
    "pz-mpe-simple-speaker-listener-v4",
    "pz-mpe-simple-adversary-v3",
)
needs_jax = pytest.mark.skipif(not jax_support.available(), reason="JaxMARL is not installed")


def features(key, obs):
    """Name -> value of each agent's observation."""
    layout = layout_for(key, *obs.shape)
    return [
        {name: value for name, value in zip(names, row, strict=False) if name is not None}
        for names, row in zip(layout.feature_names, obs.tolist(), strict=True)
    ]


def check_particles(key, world, obs):
    """The observations, which are relative to each agent, say where the things are."""
    agents = [shape for shape in world.shapes if shape.agent is not None]
    landmarks = [shape for shape in world.shapes if shape.agent is None]
    assert [shape.agent for shape in agents] == list(range(len(obs)))
    goal = next((shape for shape in landmarks if shape.kind == "goal"), None)
    assert (goal is None) == (key == SPREAD)
    for me, seen in zip(agents, features(key, obs), strict=True):
        if "P.x" in seen:
            assert (me.x, me.y) == pytest.approx((seen["P.x"], seen["P.y"]), abs=1e-5)
        for shape in world.shapes:
            for stem in shape.features:
                if f"{stem}.x" in seen:
                    assert (shape.x - me.x, shape.y - me.y) == pytest.approx(
                        (seen[f"{stem}.x"], seen[f"{stem}.y"]), abs=1e-5
                    ), (me.name, stem)
        if "G.red" in seen:
            # The speaker sees the colour of the goal, which is that of the landmark drawn as the goal.
            colour = [seen["G.red"], seen["G.green"], seen["G.blue"]]
            drawn = [int(goal.colour[at : at + 2], 16) for at in (1, 3, 5)]
            assert np.argmax(colour) == np.argmax(drawn)


@needs_jax
@pytest.mark.parametrize("key", [SPREAD, LISTENER, ADVERSARY])
def test_batched_particles_are_where_the_observations_say(key):
    from kd_envs.mpe import batched_mpe

    envs = batched_mpe(3, key=key, time_limit=4, seed=2)
    views = envs.reset()
    for world, obs in zip(envs.worlds(range(3)), views.obs, strict=True):
        check_particles(key, world, obs)
    rows = [0, 2]
    for step in range(3):
        views = envs.step(rows, np.full((2, views.obs.shape[1]), step)).views
        for world, obs in zip(envs.worlds(rows), views.obs, strict=True):
            check_particles(key, world, obs)


@pytest.mark.parametrize("key", [SPREAD, LISTENER, ADVERSARY])
def test_single_particles_are_where_the_observations_say(key):
    env = gymma_fn(key=key, time_limit=4, max_cycles=5, seed=2)
    env.reset()
    for step in range(3):
        check_particles(key, read_world(env), np.asarray(env.get_obs()))
        env.step([step] * env.n_agents)
    env.close()


@needs_jax
def test_units_are_where_the_observations_say_and_every_lost_point_of_health_has_its_attack():
    from kd_envs.smax import SmaxBatch

    envs = SmaxBatch(4, "3m", seed=5)
    views, sight, damage = envs.reset(), 9.0, 9.0
    worlds = envs.worlds(range(4))
    layout = layout_for("3m", 3, views.obs.shape[2], envs.env_info)
    rows, hits = [0, 1, 2, 3], 0
    for _ in range(12):
        available = views.avail_actions
        # Attack where anything is in reach, else go to the enemy.
        actions = np.where(available[..., 5:].any(-1), 5 + available[..., 5:].argmax(-1), 1)
        before = {row: world for row, world in zip(rows, worlds, strict=True)}
        outcome = envs.step(rows, actions)
        worlds, views = envs.worlds(rows), outcome.views
        for row, world, obs in zip(rows, worlds, views.obs, strict=True):
            lost = [
                max(0.0, was.health) - max(0.0, now.health)
                for was, now in zip(before[row].shapes, world.shapes, strict=True)
            ]
            taken = np.zeros(6)
            for attacker, target in world.attacks:
                assert before[row].shapes[attacker].kind != before[row].shapes[target].kind
                taken[target] += damage
            for now, fell, hit in zip(world.shapes, lost, taken, strict=True):
                # The last blow may be more than what was left.
                assert fell == pytest.approx(hit) if now.alive else fell <= hit
            hits += len(world.attacks)
            for agent, seen in enumerate(features_of(layout, obs)):
                me = world.shapes[agent]
                if not me.alive:
                    continue
                assert (me.x / 32, me.y / 32, me.health / me.full_health) == pytest.approx(
                    (seen["O.x"], seen["O.y"], seen["O.health"]), abs=1e-5
                )
                for shape in world.shapes:
                    stem = shape.features[0]
                    if seen.get(f"{stem}.health"):
                        place = (me.x + sight * seen[f"{stem}.x"], me.y + sight * seen[f"{stem}.y"])
                        assert (shape.x, shape.y) == pytest.approx(place, abs=1e-4)
        going = [k for k, over in enumerate(outcome.terminated | outcome.truncated) if not over]
        rows, worlds = [rows[k] for k in going], [worlds[k] for k in going]
        views = views._replace(**{name: getattr(views, name)[going] for name in views._fields})
    assert hits > 20


def features_of(layout, obs):
    return [dict(zip(names, row, strict=False)) for names, row in zip(layout.feature_names, obs.tolist(), strict=True)]


@needs_jax
@pytest.mark.slow
def test_units_have_their_own_types():
    from kd_envs.smax import SmaxBatch

    envs = SmaxBatch(1, "3s5z", seed=1)
    envs.reset()
    (world,) = envs.worlds([0])
    assert [shape.name for shape in world.shapes[2:4]] == ["stalker 2", "zealot 3"]
    assert [shape.name for shape in world.shapes[8:9]] == ["enemy stalker 0"]
    assert world.shapes[0].full_health == 160 and world.shapes[3].radius == 0.5


# ---- an environment of the user's own --------------------------------------------------------------------------------

ROBOT = {"name": "robot", "kind": "agent", "agent": 0, "x": np.float32(1.5), "y": 2, "radius": 0.5}


def test_a_world_of_the_users_own_is_found_behind_wrappers():
    given = {"bounds": [0, 0, 4, 4], "shapes": [ROBOT, {**ROBOT, "name": "charger", "kind": "landmark", "agent": None}]}
    inner = SimpleNamespace(world=lambda: given)
    world = read_world(SimpleNamespace(_env=SimpleNamespace(env=inner)))
    assert world == World(
        (0, 0, 4, 4), (Shape("robot", "agent", 1.5, 2.0, 0.5, 0), Shape("charger", "landmark", 1.5, 2.0, 0.5))
    )
    made = dataclasses.replace(world, roads=(Road("lane", ((0.0, 0.0), (4.0, 4.0)), 3.2, "g"),))
    assert read_world(SimpleNamespace(world=lambda: made)) is made
    assert read_world(SimpleNamespace()) is None
    assert read_world(SimpleNamespace(world="a name")) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bounds": [0, 0, 0, 4]}, r"bounds \[0, 0, 0, 4\]: expected \[left, bottom, right, top\]"),
        ({"bound": 1}, "did you mean 'bounds'"),
        ({"shapes": []}, "no shapes"),
        ({"shapes": [{**ROBOT, "kind": "robot"}]}, "of kind 'robot'; valid: agent, goal"),
        ({"shapes": [{**ROBOT, "x": float("nan")}]}, "x nan: expected a finite number"),
        ({"shapes": [{**ROBOT, "raduis": 1}]}, "did you mean 'radius'"),
        ({"shapes": [{"name": "robot", "kind": "agent", "x": 1, "y": 1}]}, "shape 0 of world.. lacks radius"),
        ({"shapes": [ROBOT], "attacks": [(0, 3)]}, r"attack \(0, 3\): expected two indices of its 1 shapes"),
        ({"shapes": ["robot"]}, "shape 0 of world.. is str: expected a dict"),
        ({"roads": [1]}, "has roads: return kd_envs.worlds.World itself"),
        ({"shapes": 5}, "shapes 5: expected a list"),
        ({"shapes": [ROBOT], "attacks": None}, "attacks None: expected a list"),
        ({"shapes": [ROBOT], "attacks": [5]}, "the attack 5: expected two indices"),
        ({"shapes": [{**ROBOT, "colour": "red"}]}, "colour 'red': expected #rrggbb"),
        ({"shapes": [{**ROBOT, "agent": "robot"}]}, "agent 'robot': expected the index of an agent, or None"),
        ({"shapes": [{**ROBOT, "features": "E1"}]}, "features 'E1': expected a list"),
        ({"shapes": [{**ROBOT, "radius": -1}]}, "radius -1: expected 0 or more"),
        ({"shapes": [{**ROBOT, "sight": 10**400}]}, "sight 10+: expected a finite number"),
    ],
)
def test_a_world_that_is_none_is_refused_by_its_key(changes, message):
    with pytest.raises(UserError, match=message):
        world_from({"bounds": [0, 0, 4, 4], "shapes": [ROBOT], **changes})


def test_numpys_own_numbers_are_numbers():
    shape = {**ROBOT, "agent": np.int64(0), "alive": np.bool_(True), "label": 3, "features": [4]}
    world = world_from({"bounds": np.array([0, 0, 4, 4]), "shapes": [shape], "attacks": [(np.int64(0), 0)]})
    json.dumps([dataclasses.asdict(world.shapes[0]), world.attacks])
    assert (world.shapes[0].label, world.shapes[0].features) == ("3", ("4",))


def test_a_world_that_fails_is_one_line():
    def world():
        raise ZeroDivisionError("no\nbattery")

    with pytest.raises(UserError, match=r"^world\(\) failed with ZeroDivisionError: no battery \(line \d+\): correct"):
        read_world(SimpleNamespace(world=world))
