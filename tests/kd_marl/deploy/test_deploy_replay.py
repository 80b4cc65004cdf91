"""Recorded episodes as a board meets them, and sensors that fail."""

from __future__ import annotations

import numpy as np
import torch

import tagged_episodes
from kd_core.artifacts.expert_buffer import ExpertBuffer
from kd_envs.hetero_mask.layouts import plain_layout
from kd_envs.hetero_mask.mask import ObservationMask
from kd_marl.deploy import replay
from tiny_students import make_learner


def test_a_mask_that_is_drawn_is_drawn_for_each_episode_and_hides_by_zeros(tmp_path):
    buffer = ExpertBuffer.open(tagged_episodes.write(tmp_path, 40))
    layout = plain_layout("toy", tagged_episodes.AGENTS, tagged_episodes.OBS)
    visible = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
    mask = ObservationMask(layout, visible, draw_sizes=[(1, 2), (3, 3)])
    found = replay.from_buffer(buffer, mask, 30, seed=5)
    assert found.obs.shape == (30, tagged_episodes.LIMIT, 2, 5)
    seen = (found.obs != 0).any(axis=1)
    assert set(seen[:, 0].sum(-1)) <= {1, 2} and set(seen[:, 1].sum(-1)) == {3}
    assert len({row.tobytes() for row in seen[:, 1]}) > 1
    assert not seen[:, 0, 3:].any()
    # Tags: 100 times the episode plus the step, each episode once.
    first = found.obs[:, 0].max(axis=(1, 2))
    assert len(set(first)) == 30 and set(first) <= {100.0 * i for i in range(40)}
    lengths = (first / 100).astype(int) % tagged_episodes.LIMIT + 1
    np.testing.assert_array_equal(found.acting.any(-1).sum(1), lengths)
    again = replay.from_buffer(buffer, mask, 30, seed=5)
    np.testing.assert_array_equal(again.obs, found.obs)
    assert len(replay.from_buffer(buffer, mask, 99, seed=5).obs) == 40


def test_a_sensor_that_fails_leaves_zeros_and_nothing_else_changes(results, tmp_path):
    from kd_marl.deploy.sensors import _BlindedMAC
    from tiny_stages import OBS, described, scheme_of
    from tiny_students import student_args

    learner = make_learner(results, tmp_path)
    args = student_args(results, tmp_path)
    mask = described(args).mask
    obs = torch.randn(3, 6, 2, OBS)
    hidden = obs.clone()
    hidden[:, :, 1, [0, 4]] = 0.0
    with torch.no_grad():
        expected, _ = learner.mac.agent.unroll(hidden)
        whole, _ = learner.mac.agent.unroll(obs)
    blind = _BlindedMAC(scheme_of(args), args, mask, agent=1, hidden=[0, 4])
    blind.load_state(learner.mac)
    blind.init_hidden(3)
    with torch.no_grad():
        found, _ = blind.unroll(obs, blind.visible)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found[:, :, 1], whole[:, :, 1])
    torch.testing.assert_close(found[:, :, 0], whole[:, :, 0])
