"""Feature layouts: every name is what the environment says, and derived features are computed right."""

import importlib

import numpy as np
import pytest
import torch

from kd_core.errors import UserError
from kd_envs.hetero_mask import layout_for, mask_for, plain_layout
from kd_envs.hetero_mask.layouts import AgentLayout, FeatureLayout
from mpe_layouts import MPE_IDS, MPE_LAYOUTS, SPREAD, seen

# --- Layouts against the real environments ---------------------------------------------------------------------------


def mpe_env(module, **kwargs):
    for package in ("mpe2", "pettingzoo.mpe"):
        try:
            return importlib.import_module(f"{package}.{module}").parallel_env(**kwargs)
        except ImportError:
            continue
    pytest.skip("needs mpe2 or a pettingzoo that has MPE")


def from_state(world, agent, name):
    """The value of a named feature, computed from the environment's physical state."""
    me = world.agents[agent]
    stem, _, part = name.partition(".")
    axis = "xy".find(part) if part else None
    if stem in ("V", "P"):
        return (me.state.p_vel if stem == "V" else me.state.p_pos)[axis]
    if stem == "G" and part in ("x", "y"):
        return (me.goal_a.state.p_pos - me.state.p_pos)[axis]
    if stem == "G":
        return me.goal_b.color[["red", "green", "blue"].index(part)]
    if stem.startswith("A(P)"):
        return (world.agents[int(stem[4:])].state.p_pos - me.state.p_pos)[axis]
    if stem.startswith("D(A-A)"):
        return np.linalg.norm(world.agents[int(stem[6:])].state.p_pos - me.state.p_pos)
    if stem.startswith("L"):
        return (world.landmarks[int(stem[1:])].state.p_pos - me.state.p_pos)[axis]
    assert stem.startswith("M")
    return world.agents[int(stem[1:])].state.c[int(part)]


@pytest.mark.parametrize(
    ("module", "kwargs", "n_agents", "obs_size"),
    [
        ("simple_spread_v3", {}, 3, 18),
        ("simple_spread_v3", {"N": 5}, 5, 30),
        ("simple_speaker_listener_v4", {}, 2, 11),
        ("simple_adversary_v3", {}, 3, 10),
        ("simple_adversary_v3", {"N": 4}, 5, 18),
    ],
)
def test_every_named_feature_is_what_the_environment_state_says(module, kwargs, n_agents, obs_size):
    env = mpe_env(module, **kwargs)
    layout = layout_for(f"pz-mpe-{module.replace('_', '-')}", n_agents, obs_size)
    obs, _ = env.reset(seed=3)
    assert tuple(obs) == layout.agent_names
    rng = np.random.default_rng(0)
    for _ in range(4):
        obs, *_ = env.step({agent: int(rng.integers(env.action_space(agent).n)) for agent in env.agents})
        padded = np.stack([np.pad(row, (0, obs_size - len(row))) for row in obs.values()])
        extended = layout.extend(padded)
        for agent, names in enumerate(layout.feature_names):
            for i, name in enumerate(names):
                expected = 0.0 if name is None else from_state(env.unwrapped.world, agent, name)
                assert extended[agent, i] == pytest.approx(expected, abs=1e-6), (agent, name)
    env.close()


@pytest.mark.parametrize(
    "key", ["pz-mpe-simple-spread-v3", "pz-mpe2-simple-spread-v3", "MPE_simple_spread_v3", "simple_spread"]
)
def test_known_task_is_recognised_by_its_key(key):
    assert layout_for(key, 3, 18).task == "simple_spread"


@pytest.mark.parametrize(
    "key", ["lbforaging:Foraging-8x8-2p-3f-v3", "my-simple-spread-v3", "pz-mpe-simple-tag-v3", "8m", ""]
)
def test_unknown_task_gets_features_by_index(key):
    layout = layout_for(key, 2, 4)
    assert layout == plain_layout(key, 2, 4)
    assert layout.feature_names == (("0", "1", "2", "3"),) * 2
    assert mask_for(layout, "lh", "random", {0: [1, "3"], "agent_1": 2}).names(0) == ("1", "3")


def test_pretrained_adversary_is_no_agent_of_the_environment():
    layout = layout_for("pz-mpe-simple-adversary-v3", 2, 10)
    assert layout.agent_names == ("agent_0", "agent_1")
    assert layout.feature_names[1][6:10] == ("A(P)adversary.x", "A(P)adversary.y", "A(P)0.x", "A(P)0.y")
    assert seen(mask_for(layout, "lh"))["agent_1"] == ("D(A-A)adversary", "D(A-A)0")


@pytest.mark.parametrize(
    ("key", "n_agents", "obs_size", "known"),
    [
        ("pz-mpe-simple-spread-v3", 3, 14, "3 agents and 18 features"),
        ("pz-mpe-simple-speaker-listener-v4", 3, 11, "2 agents and 11 features"),
        ("pz-mpe-simple-adversary-v3", 3, 12, "3 agents and 10 features"),
    ],
)
def test_known_task_of_another_size_is_refused(key, n_agents, obs_size, known):
    with pytest.raises(UserError, match=f"{key} gives {n_agents} agents {obs_size} features each.*known with {known}"):
        layout_for(key, n_agents, obs_size)


# --- Extension with derived features ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", MPE_LAYOUTS, ids=MPE_IDS)
def test_extension_is_the_same_in_numpy_and_torch_and_as_a_slow_loop(layout):
    obs = np.random.default_rng(1).normal(size=(2, 5, layout.n_agents, layout.obs_size)).astype(np.float32)
    extended = layout.extend(obs)
    assert extended.shape == (2, 5, layout.n_agents, layout.n_features)
    assert extended.dtype == np.float32
    np.testing.assert_array_equal(extended[..., : layout.obs_size], obs)
    tensor = layout.extend(torch.from_numpy(obs))
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor.numpy(), extended, atol=1e-6)
    for agent, facts in enumerate(layout.agents):
        for k in range(layout.n_derived):
            parts = list(facts.derived.values())[k] if k < len(facts.derived) else ()
            expected = sum((obs[..., agent, p].astype(np.float64) ** 2 for p in parts), np.zeros((2, 5))) ** 0.5
            np.testing.assert_allclose(extended[..., agent, layout.obs_size + k], expected, rtol=1e-5)


def test_agents_with_fewer_derived_features_have_zeros():
    first = AgentLayout("a", ("x", "y", "z"), {}, {"all": (0, 1, 2), "flat": (0, 1)})
    second = AgentLayout("b", ("x", None, None), {}, {"size": (0,)})
    layout = FeatureLayout("toy", (first, second), 3)
    extended = layout.extend(np.array([[2.0, 3.0, 6.0], [-4.0, 0.0, 0.0]]))
    assert extended.tolist() == [[2, 3, 6, 7, pytest.approx(13**0.5)], [-4, 0, 0, 4, 0]]
    assert layout.feature_names == (("x", "y", "z", "all", "flat"), ("x", None, None, "size", None))


def test_extension_is_dropped_when_no_agent_sees_a_derived_feature():
    assert (SPREAD.obs_size, SPREAD.n_features) == (18, 20)
    plain = mask_for(SPREAD, "lh", "paper")
    derived = mask_for(SPREAD, "lh", "paper", {1: ["V", "D(A-A)"]})
    obs = torch.ones(4, 3, 18)
    assert (plain.obs_size, plain.visible.shape, plain.extend(obs).shape) == (18, (3, 18), (4, 3, 18))
    assert (derived.obs_size, derived.visible.shape, derived.extend(obs).shape) == (20, (3, 20), (4, 3, 20))
    assert derived.indices(1) == (0, 1, 18, 19)
    assert derived.indices(0) == plain.indices(0)
