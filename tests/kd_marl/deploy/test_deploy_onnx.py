"""The ONNX of an agent: its ports, its numbers against float64 and torch, and int8 kept only where it agrees."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deployed import episodes, float64_steps, network
from kd_controllers.student_net import HeteroStudent
from kd_marl.deploy import int8, replay
from kd_marl.deploy.onnx_graph import policy_model, quantisable_model
from kd_marl.deploy.weights import agent_weights
from kd_onboard.tensors import weights_digest


def serialised(model):
    return model.SerializeToString(deterministic=True)


def test_ports_have_their_names_types_and_a_dynamic_batch():
    session = int8.session(serialised(policy_model(agent_weights(network(5, 8, 3)))))

    def ports(values):
        return [(value.name, value.type, value.shape) for value in values]

    assert ports(session.get_inputs()) == [
        ("features", "tensor(float)", ["batch", 5]),
        ("available", "tensor(bool)", ["batch", 3]),
        ("state", "tensor(float)", ["batch", 8]),
    ]
    assert ports(session.get_outputs()) == [
        ("logits", "tensor(float)", ["batch", 3]),
        ("masked_logits", "tensor(float)", ["batch", 3]),
        ("action", "tensor(int64)", ["batch"]),
        ("next_state", "tensor(float)", ["batch", 8]),
    ]


def test_unavailable_actions_are_masked_and_never_chosen():
    step = network(5, 8, 3)
    session = int8.session(serialised(policy_model(agent_weights(step))))
    available = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 1, 0]], bool)
    features = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    ports = {"features": features, "available": available, "state": np.zeros((4, 8), np.float32)}
    logits, masked, action = session.run(["logits", "masked_logits", "action"], ports)
    np.testing.assert_array_equal(masked, np.where(available, logits, np.float32(-1e10)))
    assert action.tolist() == [
        int(np.where(row, value, -np.inf).argmax()) for row, value in zip(available, logits, strict=True)
    ]


@settings(max_examples=25)
@given(
    st.integers(1, 20), st.integers(1, 24), st.integers(1, 9), st.integers(0, 10**6), st.sampled_from([0.3, 1.0, 4.0])
)
def test_all_graphs_compute_the_equations_of_the_network(inputs, width, n_actions, seed, scale):
    step = network(inputs, width, n_actions, seed, scale)
    weights = agent_weights(step)
    features, available = episodes(inputs, n_actions, count=3, length=12, seed=seed)
    expected = float64_steps(weights, features)
    for model in (policy_model(weights), quantisable_model(weights)):
        found, actions = replay.run(int8.onnx_step(serialised(model)), features, available, width)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(actions, np.where(available, found, -np.inf).argmax(-1))


@pytest.mark.parametrize("sharing", ["none", "group", "all"])
def test_each_agent_of_a_team_decides_as_in_the_joint_torch_network(sharing):
    visible = [(0, 2, 5), (1, 2, 3, 4), (0, 2, 5), (0, 1, 2, 3, 4, 5)]
    torch.manual_seed(3)
    team = HeteroStudent([8, 12, 8, 12], visible, n_actions=4, sharing=sharing).eval()
    with torch.no_grad():
        for parameter in team.parameters():
            parameter.mul_(2.0)
    obs = torch.randn(50, 60, 4, 6)
    _, available = episodes(1, 4, count=50 * 4, length=60)
    available = available.reshape(50, 4, 60, 4).transpose(0, 2, 1, 3)
    with torch.no_grad():
        expected = team.unroll(obs)[0].numpy()
    for agent, indices in enumerate(visible):
        weights = agent_weights(team.agent_network(agent))
        step = int8.onnx_step(serialised(policy_model(weights)))
        features = np.ascontiguousarray(obs[:, :, agent][..., list(indices)].numpy())
        found, actions = replay.run(step, features, available[:, :, agent], team.widths[agent])
        np.testing.assert_allclose(found, expected[:, :, agent], rtol=0, atol=1e-5)
        masked = np.where(available[:, :, agent], expected[:, :, agent], -np.inf)
        np.testing.assert_array_equal(actions, masked.argmax(-1))


def test_equal_networks_have_equal_digests_and_no_others():
    weights = agent_weights(network(4, 5, 3))
    assert weights_digest(weights) == weights_digest({name: value.copy() for name, value in reversed(weights.items())})
    for name in weights:
        changed = {key: value.copy() for key, value in weights.items()}
        changed[name].flat[-1] = np.nextafter(changed[name].flat[-1], np.float32(9))
        assert weights_digest(changed) != weights_digest(weights)


def seen_by(step, count=20, scale=1.0, seed=0):
    """What one agent met, and the share of its decisions at which a quantised network chooses as torch does."""
    features, available = episodes(6, 4, count=count, length=20, seed=seed)
    met = replay.Seen((scale * features).astype(np.float32), available, available.sum(-1) > 1)
    float32 = replay.run(replay.torch_step(step), met.features, available, 16)[1]

    def agreement(model):
        # By itself: each episode alone, decisions with a choice only.
        quantised = int8.onnx_step(model)
        alone = [replay.run(quantised, met.features[[e]], available[[e]], 16)[1][0] for e in range(count)]
        return (np.array(alone) == float32)[met.acting].mean()

    return met, agreement


def test_int8_is_kept_where_it_agrees_and_as_much_of_it_as_does(monkeypatch):
    step = network(6, 16, 4)
    met, agreement = seen_by(step)
    kept = int8.quantise_checked(agent_weights(step), [met])
    assert kept.model is not None and kept.agreement[0] >= int8.LEAST_AGREEMENT
    names = {tensor.name for tensor in onnx.load_model_from_string(kept.model).graph.initializer}
    assert any(name.endswith("_quantized") for name in names)
    assert kept.agreement[0] == pytest.approx(agreement(kept.model))

    monkeypatch.setattr(int8, "LEAST_AGREEMENT", 1.01)
    refused = int8.quantise_checked(agent_weights(step), [met])
    assert refused.model is None and refused.scope == "the gates" and 0.9 < refused.agreement[0] <= 1.0


def test_int8_must_agree_for_every_agent_that_runs_it(monkeypatch):
    step = network(6, 16, 4)
    with torch.no_grad():
        step.fc1.weight[:, 5] = 0.0
    # One scale for all features: one that is large, though it decides nothing, leaves nothing of the others.
    uneven = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 300.0])
    pairs = [seen_by(step, seed=1), seen_by(step, scale=uneven, seed=2)]
    met = [pair[0] for pair in pairs]
    model = int8.quantise(agent_weights(step))
    alone = [agreement(model) for _, agreement in pairs]
    assert alone[0] != alone[1]
    monkeypatch.setattr(int8, "EXCLUDED", {"all": ()})
    monkeypatch.setattr(int8, "LEAST_AGREEMENT", min(alone))
    assert int8.quantise_checked(agent_weights(step), met) == int8.Quantised(model, pytest.approx(tuple(alone)), "all")
    # Between the two, where their mean might still pass.
    monkeypatch.setattr(int8, "LEAST_AGREEMENT", min(alone) + 1e-6)
    assert int8.quantise_checked(agent_weights(step), met).model is None


def test_where_nobody_decides_nothing_is_known_of_int8():
    step = network(6, 16, 4)
    met, _ = seen_by(step, count=2)
    idle = dataclasses.replace(met, acting=np.zeros_like(met.acting))
    weights = agent_weights(step)
    assert int8.quantise_checked(weights, [idle]) == int8.Quantised(None, (None,), None)
    both = int8.quantise_checked(weights, [idle, met])
    assert both.agreement[0] is None and both.agreement[1] is not None
