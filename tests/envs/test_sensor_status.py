"""``sensor_status``: an agent is told which of its drawn features an episode shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kd_core.errors import UserError
from kd_envs.hetero_mask import mask_text
from kd_envs.hetero_mask.known_layouts import layout_for
from kd_envs.hetero_mask.mask import ObservationMask
from kd_envs.hetero_mask.naming import features
from kd_envs.hetero_mask.presets import mask_for

SPREAD = layout_for("simple_spread", 3, 18)
ACTIONS = 5


def told(masks="", own_actions=ACTIONS):
    return mask_for(SPREAD, "lh", "random", masks, own_actions, sensor_status=True)


@given(seed=st.integers(0, 10**6), episode=st.integers(0, 100))
def test_it_is_one_where_the_feature_is_shown_and_changes_no_draw(seed, episode):
    plain, mask = mask_for(SPREAD, "lh", "random", own_actions=ACTIONS), told()
    drawn, size = mask.draw(seed, episode), mask.sensed_size
    np.testing.assert_array_equal(drawn[:, :size], plain.draw(seed, episode)[:, :size])
    obs = np.full((3, SPREAD.obs_size), 7.0, np.float32)
    seen = np.where(drawn, mask.extend(obs, np.zeros(3, int)), np.float32(0))
    np.testing.assert_array_equal(seen[:, size : mask.own_start], drawn[:, :size].astype(np.float32))
    as_tensor = mask.apply(torch.from_numpy(obs)[None, None], torch.zeros(1, 1, 3), torch.from_numpy(drawn)[None])
    np.testing.assert_array_equal(as_tensor[0, 0].numpy(), seen)
    np.testing.assert_array_equal(seen[:, mask.own_start :], np.eye(ACTIONS)[[0, 0, 0]])


def test_masks_of_the_buffer_s_episodes_tell_it_too():
    mask = told(own_actions=0)
    drawn = mask.sample(np.random.default_rng(0), 50)
    np.testing.assert_array_equal(drawn[..., : mask.sensed_size], drawn[..., mask.sensed_size :])


def test_who_sees_the_same_in_every_episode_is_told_nothing():
    mask = told("0: [V, L]")
    names = [mask.names(agent) for agent in range(3)]
    assert not any(name.startswith("delivers.") for name in names[0])
    assert [name for name in names[1] if name.startswith("delivers.")] == [
        f"delivers.{name}" for name in SPREAD.feature_names[1][:18]
    ]
    rows = features(mask, 1)
    assert [row["index"] for row in rows] == list(mask.indices(1))
    assert [row.get("status_of") for row in rows if row["name"].startswith("delivers.")] == list(range(18))
    assert [row.get("own_action") for row in rows[-ACTIONS:]] == list(range(ACTIONS))
    assert "delivers" in mask_text(mask, (32, 32, 32), columns=200)


def test_the_mask_keeps_it_on_disk():
    mask = told()
    again = ObservationMask.from_dict(mask.to_dict())
    assert again.sensor_status and again.signature() == mask.signature()
    assert again.signature() != mask_for(SPREAD, "lh", "random", own_actions=ACTIONS).signature()
    assert "sensor_status" not in mask_for(SPREAD, "lh", "random").to_dict()


@pytest.mark.parametrize(("limits", "preset"), [("fo", "random"), ("lh", "paper")])
def test_a_mask_that_never_changes_has_nothing_to_tell(limits, preset):
    with pytest.raises(UserError, match="sensor_status tells which features an episode shows, and this mask shows"):
        mask_for(SPREAD, limits, preset, sensor_status=True)
