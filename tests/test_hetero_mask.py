"""Feature layouts, masks, presets, the environment wrapper and the table of who sees what."""

import copy
import importlib
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.hetero_mask import (
    MaskedEnv,
    ObservationMask,
    default_widths,
    layout_for,
    mask_for,
    mask_table,
    mask_text,
    plain_layout,
    read_masks,
)
from envs.hetero_mask.layouts import KNOWN_LAYOUTS, AgentLayout, FeatureLayout, ranges
from envs.hetero_mask.presets import FOLDER, LHA_WIDTHS, random_sizes, tasks_with_presets
from kd_marl.errors import UserError

SPREAD = layout_for("pz-mpe-simple-spread-v3", 3, 18)
SPEAKER_LISTENER = layout_for("pz-mpe-simple-speaker-listener-v4", 2, 11)
ADVERSARY = layout_for("pz-mpe-simple-adversary-v3", 3, 10)
MPE_LAYOUTS = [SPREAD, SPEAKER_LISTENER, ADVERSARY]
MPE_IDS = [layout.task for layout in MPE_LAYOUTS]


def seen(mask):
    """Names of what each agent sees, by agent name."""
    return {name: mask.names(i) for i, name in enumerate(mask.layout.agent_names)}


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


# --- Presets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", MPE_LAYOUTS, ids=MPE_IDS)
def test_fo_shows_every_real_feature_and_nothing_else(layout):
    mask = mask_for(layout, "fo", "random")
    assert mask.obs_size == layout.obs_size
    assert not mask.draw_per_episode
    for agent, facts in enumerate(layout.agents):
        assert mask.names(agent) == tuple(name for name in facts.features if name is not None)


def test_paper_preset_shows_the_blocks_of_its_row_that_exist():
    assert seen(mask_for(SPREAD, "lh", "paper")) == {
        "agent_0": tuple(f"{stem}.{axis}" for stem in ("L0", "L1", "L2", "A(P)1", "A(P)2") for axis in "xy"),
        "agent_1": ("V.x", "V.y"),
        "agent_2": ("P.x", "P.y"),
    }
    assert seen(mask_for(SPEAKER_LISTENER, "lh", "paper")) == {
        "speaker_0": ("G.red", "G.green", "G.blue"),  # none of L, V, P exists: it keeps what it has
        "listener_0": ("V.x", "V.y", "M0.0", "M0.1", "M0.2"),  # no A(P), no P
    }
    assert seen(mask_for(ADVERSARY, "lha", "paper")) == {
        "adversary_0": tuple(f"{stem}.{axis}" for stem in ("L0", "L1", "A(P)1", "A(P)2") for axis in "xy"),
        "agent_0": ("A(P)0.x", "A(P)0.y", "A(P)2.x", "A(P)2.y"),  # no V
        "agent_1": ("D(A-A)0", "D(A-A)1"),
    }


@pytest.mark.parametrize("layout", MPE_LAYOUTS, ids=MPE_IDS)
def test_lh_and_lha_have_the_same_mask(layout):
    for preset in ("paper", "random"):
        assert mask_for(layout, "lh", preset).signature() == mask_for(layout, "lha", preset).signature()


def test_preset_files_use_known_tasks_agents_and_blocks():
    import yaml

    assert set(tasks_with_presets()) == set(KNOWN_LAYOUTS)
    for layout in MPE_LAYOUTS:
        data = yaml.safe_load((FOLDER / f"{layout.task}.yaml").read_text())
        assert set(data) == {"paper", "widths"}
        assert set(data["widths"]) == {"paper", "random"}
        assert tuple(data["paper"]) == layout.agent_names
        assert {letter for row in data["paper"].values() for letter in row} <= {"L", "A(P)", "V", "P", "M", "D(A-A)"}
        for widths in data["widths"].values():
            assert tuple(widths) == layout.agent_names
            assert all(LHA_WIDTHS[0] <= width <= LHA_WIDTHS[1] for width in widths.values())


def test_random_preset_draws_8_to_10_of_18_features_anew_each_episode():
    mask = mask_for(SPREAD, "lh", "random")
    draws = np.stack([mask.draw(7, episode) for episode in range(300)])
    counts = draws.sum(-1)
    assert set(np.unique(counts)) == {8, 9, 10}
    assert len(np.unique(draws.reshape(300, -1), axis=0)) == 300
    assert (draws[:, 0] != draws[:, 1]).any()
    # Every feature is as likely as any other: 9 of 18, within four standard errors.
    assert abs(draws.mean((0, 1)) - 0.5).max() < 4 * (0.25 / 900) ** 0.5
    assert mask.indices(0) == tuple(range(18))


def test_random_preset_draws_half_rounded_up_of_fewer_features():
    assert [random_sizes(n) for n in (1, 2, 3, 11, 17, 18, 19)] == [
        (1, 1),
        (1, 1),
        (2, 2),
        (6, 6),
        (9, 9),
        (8, 10),
        (10, 10),
    ]
    for layout, sizes in ((SPEAKER_LISTENER, [2, 6]), (ADVERSARY, [4, 5, 5])):
        mask = mask_for(layout, "lh", "random")
        for episode in range(20):
            drawn = mask.draw(0, episode)
            assert drawn.sum(1).tolist() == sizes
            assert not (drawn & ~mask.visible).any()  # never padding


def test_draws_depend_on_seed_and_episode_alone():
    mask = mask_for(SPREAD, "lh", "random")
    again = ObservationMask.from_dict(mask.to_dict())
    np.testing.assert_array_equal(mask.draw(5, 11), again.draw(5, 11))
    assert (mask.draw(5, 11) != mask.draw(11, 5)).any()
    assert (mask.draw(5, 11) != mask.draw(6, 11)).any()
    fixed = mask_for(SPREAD, "lh", "paper")
    assert fixed.draw(5, 11) is fixed.visible
    with pytest.raises(UserError, match="seed and an episode of at least 0, not -1 and 0"):
        mask.draw(-1, 0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_mask_survives_json_and_draws_only_what_may_be_seen(data):
    n_agents, obs_size = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 25))
    layout = plain_layout("toy", n_agents, obs_size)
    row = st.lists(st.integers(0, obs_size - 1), min_size=1, unique=True)
    masks = {i: data.draw(row) for i in range(n_agents) if data.draw(st.booleans())}
    mask = mask_for(layout, "lh", "random", masks)
    again = ObservationMask.from_dict(json.loads(json.dumps(mask.to_dict(), sort_keys=True)))
    assert again.signature() == mask.signature()
    seed, episode = data.draw(st.integers(0, 2**32)), data.draw(st.integers(0, 1000))
    drawn = mask.draw(seed, episode)
    np.testing.assert_array_equal(drawn, again.draw(seed, episode))
    assert not (drawn & ~mask.visible).any()
    for i in range(n_agents):
        if i in masks:
            assert np.flatnonzero(drawn[i]).tolist() == sorted(masks[i])
        else:
            assert random_sizes(obs_size)[0] <= drawn[i].sum() <= random_sizes(obs_size)[1]


def test_signature_is_that_of_what_is_seen():
    mask = mask_for(SPREAD, "lh", "paper")
    same = mask_for(SPREAD, "lh", masks={0: ["L", "A(P)"], 1: ["V"], 2: ["P"]})
    assert (same.origin, mask.origin) == ("user", "paper")
    assert same.signature() == mask.signature()
    others = [mask_for(SPREAD, "fo"), mask_for(SPREAD, "lh", "random"), mask_for(SPREAD, "lh", masks={0: ["L"]})]
    assert len({m.signature() for m in [mask, *others]}) == 4


def test_derived_features_keep_their_order_through_json():
    layout = layout_for("simple_spread", 12, 72)
    again = FeatureLayout.from_dict(json.loads(json.dumps(layout.to_dict(), sort_keys=True)))
    assert again == layout
    assert again.feature_names == layout.feature_names


# --- Masks that users write ------------------------------------------------------------------------------------------


def test_user_masks_take_blocks_features_stems_and_indices():
    mask = mask_for(SPREAD, "lh", masks={0: ["V", "L1"], "agent_1": ["P.y", 4, "5"], "2": "D(A-A)"})
    assert seen(mask) == {
        "agent_0": ("V.x", "V.y", "L1.x", "L1.y"),
        "agent_1": ("P.y", "L0.x", "L0.y"),
        "agent_2": ("D(A-A)0", "D(A-A)1"),
    }


def test_agents_that_are_not_named_keep_the_preset():
    names = seen(mask_for(SPREAD, "lh", "paper", {"agent_1": ["M"]}))
    assert names["agent_0"] == mask_for(SPREAD, "lh", "paper").names(0)
    assert names["agent_1"] == ("M0.0", "M0.1", "M2.0", "M2.1")
    assert mask_for(SPREAD, "fo", masks={0: ["V"]}).names(1) == mask_for(SPREAD, "fo").names(1)
    mixed = mask_for(SPREAD, "lh", "random", {"agent_1": ["V"]})
    assert mixed.draw_sizes == ((8, 10), (2, 2), (8, 10))
    assert not mask_for(SPREAD, "lh", "random", {0: ["V"], 1: ["V"], 2: ["V"]}).draw_per_episode


def test_masks_are_read_from_text_and_files(tmp_path):
    expected = {0: ["L", "A(P)"], "agent_1": ["V"]}
    assert read_masks("0: [L, A(P)], agent_1: [V]") == expected
    assert read_masks("{0: [L, A(P)], agent_1: [V]}") == expected
    assert read_masks("0: [L, A(P)]\nagent_1: [V]") == expected
    path = tmp_path / "masks.yaml"
    path.write_text("0: [L, A(P)]\nagent_1:\n  - V\n")
    assert read_masks(str(path)) == expected
    assert read_masks(None) == read_masks("") == read_masks({}) == {}


@pytest.mark.parametrize(
    ("layout", "masks", "message"),
    [
        (SPREAD, {0: ["LO.x"]}, r"agent 'agent_0' of simple_spread has no feature 'LO.x'; did you mean .*'L0.x'"),
        (SPREAD, {0: ["A(P)0"]}, r"has no feature 'A\(P\)0'; did you mean 'A\(P\)'"),
        (SPREAD, {0: ["speed"]}, r"no feature 'speed'; valid: A\(P\), A\(P\)1.x"),
        (SPREAD, {0: [20]}, r"no feature 20; its features are 0 to 19$"),
        (SPREAD, {0: [True]}, r"no feature True; its features are 0 to 19$"),
        (SPREAD, {0: [-1]}, r"no feature -1; its features are 0 to 19$"),
        (SPREAD, {0: {"L": 1}}, r"no feature \{'L': 1\}; its features are 0 to 19$"),
        (SPEAKER_LISTENER, {0: [7]}, r"agent 'speaker_0' of .* has no feature 7; its features are 0 to 2$"),
        (SPEAKER_LISTENER, {0: ["V"]}, r"agent 'speaker_0' of .* has no feature 'V'; valid: G, G.blue"),
        (plain_layout("8m", 1, 100), {0: ["E"]}, r"no feature 'E'; its features are 0 to 99$"),
        (layout_for("simple_spread", 12, 72), {0: ["speed"]}, r"no feature 'speed'; its features are 0 to 82$"),
        (
            SPREAD,
            {3: ["V"]},
            r"masks names agent 3, but simple_spread has agents 0 to 2; valid: agent_0, agent_1, agent_2",
        ),
        (SPREAD, {"agnt_1": ["V"]}, r"masks names agent 'agnt_1', but .*; did you mean 'agent_1'"),
        (SPREAD, {0: ["V"], "agent_0": ["P"]}, r"masks names an agent of simple_spread twice"),
        (SPREAD, {0: []}, r"the mask hides everything from agent 'agent_0': give it at least one feature"),
        (SPREAD, {1: None}, r"the mask hides everything from agent 'agent_1'"),
        (SPREAD, "0: [V", r"masks '0: \[V' cannot be read: write it as 0: \[L, A\(P\)\], 1: \[V\]"),
        (SPREAD, "[V]", r"masks '\[V\]' cannot be read: write it as 0:"),
        (SPREAD, "no/such/file.yaml", r"masks names the file no/such/file.yaml, which cannot be read: No such file"),
    ],
)
def test_bad_masks_are_refused_in_one_line(layout, masks, message):
    with pytest.raises(UserError, match=message) as error:
        mask_for(layout, "lh", "random", masks)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("layout", "limits", "preset", "message"),
    [
        (SPREAD, "lhh", "paper", "unknown limits 'lhh'; did you mean 'lh' or 'lha'"),
        (SPREAD, "lh", "papr", "unknown masks_preset 'papr'; did you mean 'paper'"),
        (
            plain_layout("3m", 3, 30),
            "lh",
            "paper",
            "no preset 'paper' for 3m .*: use masks_preset=random, or give every",
        ),
        (
            layout_for("simple_spread", 4, 24),
            "lh",
            "paper",
            "preset 'paper' of simple_spread has no row for agent 'agent_3'",
        ),
    ],
)
def test_unknown_limits_and_presets_are_refused(layout, limits, preset, message):
    with pytest.raises(UserError, match=message):
        mask_for(layout, limits, preset)


def test_masks_that_do_not_fit_the_layout_are_refused():
    with pytest.raises(UserError, match=r"a mask for simple_spread has shape \(3, 20\), not \(2, 18\)"):
        ObservationMask(SPREAD, np.ones((2, 18), bool))
    with pytest.raises(UserError, match="shows agent 'speaker_0' element 3 of its observation, which is only padding"):
        ObservationMask(SPEAKER_LISTENER, np.ones((2, 11), bool))
    with pytest.raises(
        UserError, match="expected a mask of format kd-marl/mask version 1, found kd-marl/mask version 2"
    ):
        ObservationMask.from_dict({**mask_for(SPREAD, "fo").to_dict(), "version": 2})


# --- Widths ----------------------------------------------------------------------------------------------------------


def test_default_widths():
    for limits in ("fo", "lh"):
        assert default_widths(SPREAD, mask_for(SPREAD, limits), limits, 20) == (20, 20, 20)
    assert default_widths(SPREAD, mask_for(SPREAD, "lha", "paper"), "lha", 20) == (32, 16, 16)
    assert default_widths(SPREAD, mask_for(SPREAD, "lha", "random"), "lha", 20) == (32, 24, 16)
    # The user's own mask: by how much an agent sees, in steps of 8.
    mask = mask_for(SPREAD, "lha", masks={0: ["V"], 1: ["V", "P", "L"], 2: ["V", "P", "L0"]})
    assert default_widths(SPREAD, mask, "lha", 20) == (16, 32, 24)
    plain = plain_layout("toy", 2, 6)
    assert default_widths(plain, mask_for(plain, "lha", "random"), "lha", 20) == (24, 24)


# --- The wrapper -----------------------------------------------------------------------------------------------------


class CountingEnv:
    """A `MultiAgentEnv`: agent i's feature k is 1000 * i + 100 * episode + step + k / 100."""

    n_agents, size, episode_limit = 3, 18, 4

    def __init__(self):
        self.episode, self.t = -1, 0

    def reset(self, seed=None, options=None):
        self.episode, self.t = self.episode + 1, 0
        return self.get_obs(), {"seed": seed}

    def step(self, actions):
        self.t += 1
        return self.get_obs(), 1.0, False, self.t >= self.episode_limit, {"actions": list(actions)}

    def get_obs(self):
        base = np.arange(self.size) / 100 + 100 * max(self.episode, 0) + self.t
        return tuple((base + 1000 * i).astype(np.float32) for i in range(self.n_agents))

    def get_obs_agent(self, i):
        raise TypeError("as in a real checkout's gymma")

    def get_state(self):
        return np.concatenate(self.get_obs())

    def get_obs_size(self):
        return self.size

    def get_total_actions(self):
        return 5

    def get_env_info(self):
        return {
            "obs_shape": self.size,
            "n_agents": self.n_agents,
            "n_actions": 5,
            "state_shape": 54,
            "episode_limit": 4,
        }


def test_wrapper_zeroes_what_is_hidden_and_leaves_the_rest():
    inner, mask = CountingEnv(), mask_for(SPREAD, "lh", "paper")
    env = MaskedEnv(inner, mask, seed=1)
    obs, info = env.reset(seed=9)
    assert info == {"seed": 9}
    for rows in (obs, env.get_obs(), env.step([0, 1, 2])[0]):
        assert len(rows) == 3
        for row in rows:
            assert (row.shape, row.dtype) == ((18,), np.float32)
    after, raw = env.get_obs(), inner.get_obs()
    for agent in range(3):
        np.testing.assert_array_equal(after[agent], np.where(mask.visible[agent], raw[agent], 0))
        np.testing.assert_array_equal(env.get_obs_agent(agent), after[agent])
    np.testing.assert_array_equal(env.get_state(), inner.get_state())
    assert env.step([0, 1, 2])[1:] == (1.0, False, False, {"actions": [0, 1, 2]})
    assert (env.get_total_actions(), env.episode_limit, env.n_agents) == (5, 4, 3)
    assert env.get_env_info() == {**inner.get_env_info(), "obs_shape": 18}


def test_wrapper_gives_derived_features():
    env = MaskedEnv(CountingEnv(), mask_for(SPREAD, "lh", masks={1: ["D(A-A)"]}), seed=0)
    env.reset()
    raw = env.env.get_obs()[1].astype(np.float64)
    expected = [0.0] * 18 + [np.hypot(raw[10], raw[11]), np.hypot(raw[12], raw[13])]
    np.testing.assert_allclose(env.get_obs()[1], expected, rtol=1e-6)
    assert env.get_obs_size() == env.get_env_info()["obs_shape"] == 20


def test_wrapper_draws_a_mask_for_each_episode_and_keeps_it():
    mask = mask_for(SPREAD, "lh", "random")
    env = MaskedEnv(CountingEnv(), mask, seed=42)
    for episode in range(4):
        env.reset()
        assert env.episode == episode
        for _ in range(3):
            rows, *_ = env.step([0, 0, 0])
            np.testing.assert_array_equal(np.stack(rows) != 0, mask.draw(42, episode))


def test_hidden_nan_does_not_get_through():
    inner = CountingEnv()
    inner.get_obs = lambda: [np.full(18, np.nan, np.float32)] * 3
    rows = MaskedEnv(inner, mask_for(SPREAD, "lh", "paper"), seed=0).get_obs()
    assert np.isnan(rows[1][:2]).all()
    assert (rows[1][2:] == 0).all()


def test_wrapper_does_not_depend_on_what_reset_returns():
    inner = CountingEnv()
    inner.reset = lambda: ((inner.get_obs(), {}), {"from": "smaclite"})
    rows, info = MaskedEnv(inner, mask_for(SPREAD, "fo"), seed=0).reset()
    assert len(rows) == 3
    assert info == {"from": "smaclite"}
    inner.reset = lambda: None
    assert MaskedEnv(inner, mask_for(SPREAD, "fo"), seed=0).reset()[1] == {}


def test_wrapper_and_mask_can_be_pickled_and_copied():
    env = MaskedEnv(CountingEnv(), mask_for(plain_layout("counting", 3, 18), "lh", "random"), seed=3)
    env.reset()
    for twin in (pickle.loads(pickle.dumps(env)), copy.deepcopy(env)):
        np.testing.assert_array_equal(np.stack(twin.get_obs()), np.stack(env.get_obs()))
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = env.no_such_thing


def test_mask_for_another_environment_is_refused():
    with pytest.raises(UserError, match="mask is for 3 agents with 10 features each, the environment has 3 with 18"):
        MaskedEnv(CountingEnv(), mask_for(ADVERSARY, "fo"), seed=0)


# --- The table -------------------------------------------------------------------------------------------------------


def test_table_says_who_sees_what():
    mask = mask_for(ADVERSARY, "lha", "paper")
    text = mask_text(mask, default_widths(ADVERSARY, mask, "lha", 32))
    assert "simple_adversary: who sees what (paper)" in text
    rows = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]]
        for line in text.splitlines()
        if "│" in line
    }
    assert rows["1 agent_0"] == ["A(P)", "G, L", "A(P)0.x, A(P)0.y, A(P)2.x, A(P)2.y", "4 of 10", "16"]
    assert rows["2 agent_1"] == ["D(A-A)", "G, L, A(P)", "D(A-A)0, D(A-A)1", "2 of 10", "16"]
    assert mask_table(mask).row_count == 3


def test_table_shows_ranges_parts_and_draws():
    assert "0 to 1, 5" in mask_text(mask_for(plain_layout("toy", 1, 6), "lh", masks={0: [0, 1, 5]}))
    assert "L (2 of 6)" in mask_text(mask_for(SPREAD, "lh", masks={0: ["L1"]}))
    text = mask_text(mask_for(SPREAD, "lh", "random"))
    assert "drawn anew each episode" in text
    assert "8-10 of 18" in text
    assert ranges([]) == "none"


# --- The page --------------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parent.parent / "docs" / "masks.md").read_text(encoding="utf-8")


def test_the_page_shows_the_real_table_and_the_real_error():
    assert mask_text(mask_for(ADVERSARY, "lh", "paper"), (32, 32, 32)) in PAGE
    with pytest.raises(UserError) as error:
        mask_for(SPREAD, "lh", masks={0: ["A(P)0"]})
    assert f"\n{error.value}\n" in PAGE


def test_the_masks_on_the_page_work():
    examples = re.findall(r"'masks=(.*)'", PAGE)
    assert len(examples) == 2
    shown = [seen(mask_for(SPREAD, "lh", "paper", example)) for example in examples]
    assert shown[0]["agent_1"] == ("V.x", "V.y", "L0.x", "L0.y", "A(P)2.x")
    assert shown[1]["agent_2"] == ("P.x", "P.y", "D(A-A)0", "D(A-A)1")


def test_the_code_on_the_page_runs(capsys):
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1)
    scope = {}
    exec(code, scope)
    assert "agent_1" in capsys.readouterr().out
    assert scope["mask"].indices(1) == (0, 1, 4, 5, 6, 7, 8, 9)
