"""Masks: presets, masks that users write, and the widths that follow from what is seen."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_core.errors import UserError
from kd_envs.hetero_mask import ObservationMask, default_widths, layout_for, mask_for, plain_layout, read_masks
from kd_envs.hetero_mask.known_layouts import KNOWN_LAYOUTS
from kd_envs.hetero_mask.layouts import FeatureLayout
from kd_envs.hetero_mask.presets import FOLDER, LHA_WIDTHS, random_sizes, tasks_with_presets
from mpe_layouts import ADVERSARY, MPE_IDS, MPE_LAYOUTS, SPEAKER_LISTENER, SPREAD, seen
from smac_layouts import SIZES

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

    assert set(tasks_with_presets()) == {*KNOWN_LAYOUTS, *SIZES}
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
        (SPREAD, "no/such/file.yaml", r"masks: cannot read no/such/file.yaml: No such file"),
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


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"agents": []}, "layout lacks task, obs_size"),
        ({"task": "drones", "obs_size": 2, "agents": 5}, "layout cannot be read"),
        ({"task": "drones", "obs_size": 3, "agents": []}, "layout has obs_size 3, but obs_shape is 2"),
    ],
)
def test_a_stated_layout_with_a_fault_is_refused_in_one_line(stated, words):
    with pytest.raises(UserError, match=words) as caught:
        layout_for("own", 2, 2, {"layout": stated})
    assert "\n" not in str(caught.value) and "kd-marl env check" in str(caught.value)


def test_a_missing_preset_of_a_stated_layout_names_those_that_it_has():
    agent = {"name": "a", "features": ["x", "V.x"], "blocks": {"V": ["V.x"]}, "derived": []}
    stated = {"task": "drones", "obs_size": 2, "agents": [agent] * 2, "presets": {"camera": [["V"], ["x"]]}}
    with pytest.raises(UserError, match="drones has no masks_preset 'paper': use camera or random"):
        mask_for(layout_for("own", 2, 2, {"layout": stated}), limits="lh")
