"""A bundle's agents decide as the trained torch student does, over recorded steps, in every back end."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from kd_core.artifacts.expert_buffer import ExpertBuffer
from kd_marl.deploy import int8, replay
from kd_marl.runs.student_run import load_student
from kd_onboard.agent import OnboardAgent
from kd_onboard.bundle import read_bundle


@pytest.fixture(scope="module")
def recorded(tiny_student):
    """The student, and its teacher's recorded episodes as it would see them."""
    run = load_student(tiny_student.models)
    return run, replay.from_buffer(ExpertBuffer.open(tiny_student.buffer), run.mask, 10**6, seed=0)


def joint(run, episodes):
    """The torch student's logits on the same observations, all agents in one call."""
    with torch.no_grad():
        return run.network.unroll(torch.from_numpy(episodes.obs))[0].numpy()


def test_recorded_features_are_those_that_the_controller_sees(tiny_student, recorded):
    run, episodes = recorded
    buffer = ExpertBuffer.open(tiny_student.buffer)
    raw = buffer.gather(range(buffer.episodes), ("obs", "avail_actions", "length"))
    assert len(episodes.obs) == buffer.episodes
    seen = episodes.features(run.mask, 1)[..., : -run.mask.own_actions]
    np.testing.assert_array_equal(seen, raw["obs"][:, :-1, 1][..., [0, 1, 8, 9, 10]].numpy())
    np.testing.assert_array_equal(episodes.available, raw["avail_actions"][:, :-1].numpy() == 1)
    counts = [int(episodes.acting[e].any(-1).sum()) for e in range(buffer.episodes)]
    assert counts == raw["length"].tolist()


def test_onnx_agrees_with_torch_in_logits_and_actions(recorded, tiny_bundle):
    run, episodes = recorded
    expected = joint(run, episodes)
    for agent in read_bundle(tiny_bundle).agents:
        step = int8.onnx_step((tiny_bundle / agent.onnx).read_bytes())
        available = episodes.available[:, :, agent.index]
        logits, actions = replay.run(step, episodes.features(run.mask, agent.index), available, agent.width)
        np.testing.assert_allclose(logits, expected[:, :, agent.index], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(actions, np.where(available, expected[:, :, agent.index], -np.inf).argmax(-1))


@pytest.mark.parametrize("backend", ["numpy", "onnx", "c"])
def test_the_runtime_takes_the_student_s_actions(recorded, tiny_bundle, tmp_path, monkeypatch, backend):
    if backend == "c" and shutil.which("cc") is None:
        pytest.skip("no C compiler is installed")
    monkeypatch.setenv("KD_ONBOARD_CACHE", str(tmp_path / "compiled"))
    run, episodes = recorded
    expected = joint(run, episodes)
    for profile in read_bundle(tiny_bundle).agents:
        agent = OnboardAgent.load(tiny_bundle, profile.index, backend=backend, trust=True)
        features = episodes.features(run.mask, profile.index)
        available = episodes.available[:, :, profile.index]
        best = np.where(available, expected[:, :, profile.index], -np.inf).argmax(-1)
        for e in range(len(features)):
            agent.reset()
            taken = [agent.act(row, can) for row, can in zip(features[e], available[e], strict=True)]
            assert taken == best[e].tolist()


def test_the_int8_agreement_in_the_profile_is_reproduced(recorded, tiny_bundle):
    run, _ = recorded
    buffer = run.find_buffer()
    episodes = replay.from_buffer(buffer, run.mask, 100, run.facts["seed"])
    for agent in read_bundle(tiny_bundle).agents:
        said = read_bundle(tiny_bundle).profile.raw["agents"][agent.index]
        assert (agent.onnx_int8 is not None) == (said["int8_agreement"] >= int8.LEAST_AGREEMENT)
        if agent.onnx_int8 is None:
            continue
        features, acting = episodes.features(run.mask, agent.index), episodes.acting[:, :, agent.index]
        available = episodes.available[:, :, agent.index]
        float32 = replay.run(
            replay.torch_step(run.network.agent_network(agent.index)), features, available, agent.width
        )
        step = int8.onnx_step((tiny_bundle / agent.onnx_int8).read_bytes())
        small = [replay.run(step, features[[e]], available[[e]], agent.width)[1][0] for e in range(len(features))]
        assert said["int8_agreement"] == pytest.approx((np.array(small) == float32[1])[acting].mean(), abs=1e-6)
