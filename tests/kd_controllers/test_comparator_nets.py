"""The other methods' networks: whole episodes, steps and single agents agree, and their arithmetic is counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kd_controllers.attention_net import FEED_FORWARD, AttentionStep, AttentionStudent
from kd_controllers.personal_net import PersonalStep, PersonalStudent
from kd_controllers.student_net import HeteroStudent
from kd_core.costs.flops import agent_flops, attention_formula, closed_formula, personal_formula
from tiny_stages import ACTIONS

FEATURES = 6
WIDTHS, VISIBLE = [8, 5, 8], [[0, 1, 3], [2], [0, 1, 3]]


def team(kind, sharing, **options):
    student = kind(WIDTHS, VISIBLE, ACTIONS, sharing, **options)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return student.eval()


@pytest.mark.parametrize("sharing", ["none", "group", "all"])
@pytest.mark.parametrize(
    ("kind", "options"), [(AttentionStudent, {"window": 1}), (AttentionStudent, {"window": 3}), (PersonalStudent, {})]
)
@torch.no_grad()
def test_whole_episodes_steps_and_single_agents_compute_the_same(kind, options, sharing):
    student, obs = team(kind, sharing, **options), torch.randn(4, 6, len(WIDTHS), FEATURES)
    logits, embedding = student.unroll(obs)
    assert embedding.shape == (4, 6, len(WIDTHS), max(WIDTHS))
    state = torch.zeros(4, len(WIDTHS), student.state_size)
    for t in range(6):
        stepped, state = student.advance(obs[:, t : t + 1], state)
        torch.testing.assert_close(stepped, logits[:, t], rtol=0, atol=1e-5)
    for agent, visible in enumerate(VISIBLE):
        network = student.agent_network(agent)
        hidden = network.init_hidden().expand(4, -1)
        for t in range(6):
            alone, hidden = network(obs[:, t, agent, visible], hidden)
            torch.testing.assert_close(alone, logits[:, t, agent], rtol=0, atol=1e-5)


@torch.no_grad()
def test_attention_equals_a_slow_float64_answer():
    student, obs = team(AttentionStudent, "none", window=3), torch.randn(1, 5, len(WIDTHS), FEATURES)
    logits, embedding = student.unroll(obs)
    net = student.agent_network(0)
    p = {name: value.double().numpy() for name, value in net.state_dict().items()}

    def linear(name, x):
        return p[f"{name}.weight"] @ x + p[f"{name}.bias"]

    def norm(name, x):
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]

    def sigmoid(x):
        return 1.0 / (1.0 + np.exp(-x))

    h, w, keys, values = np.zeros(8), 8, [], []
    for t in range(5):
        x = np.maximum(linear("fc1", obs[0, t, 0, VISIBLE[0]].double().numpy()), 0.0)
        q, k, v = np.split(linear("qkv", norm("norm1", x)), 3)
        keys.append(k)
        values.append(v)
        steps = range(max(0, t - 2), t + 1)
        scores = np.array([q @ keys[s] / np.sqrt(w) + p["bias"][2 - (t - s)] for s in steps])
        share = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        c = x + linear("out", sum(a * values[s] for a, s in zip(share, steps, strict=True)))
        y = c + linear("ff2", np.maximum(linear("ff1", norm("norm2", c)), 0.0))
        from_input = p["rnn.weight_ih"] @ y + p["rnn.bias_ih"]
        from_state = p["rnn.weight_hh"] @ h + p["rnn.bias_hh"]
        r, z = (sigmoid(from_input[s] + from_state[s]) for s in (slice(0, w), slice(w, 2 * w)))
        h = (1 - z) * np.tanh(from_input[2 * w :] + r * from_state[2 * w :]) + z * h
        np.testing.assert_allclose(embedding[0, t, 0], h, atol=1e-5)
        np.testing.assert_allclose(logits[0, t, 0], linear("fc2", h), atol=1e-5)


@pytest.mark.parametrize("kind", [HeteroStudent, AttentionStudent, PersonalStudent])
@pytest.mark.parametrize("sharing", ["none", "all"])
def test_packed_episodes_are_unrolled_like_each_alone(kind, sharing):
    student, length = team(kind, sharing), [3, 1, 6, 6, 2]
    obs = torch.randn(sum(length), len(WIDTHS), FEATURES)
    weights = [torch.randn(sum(length), len(WIDTHS), size) for size in (ACTIONS, max(WIDTHS))]
    found = []
    for packed in (True, False):
        if packed:
            outputs = student.unroll_packed(obs, torch.tensor(length))
        else:
            parts = [student.unroll(one.unsqueeze(0)) for one in obs.split(length)]
            outputs = tuple(torch.cat([x[0] for x in kinds]) for kinds in zip(*parts, strict=True))
        student.zero_grad()
        sum((x * w).sum() for x, w in zip(outputs, weights, strict=True)).backward()
        found.append([*outputs, *(parameter.grad.clone() for parameter in student.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_attention_sees_neither_the_future_nor_what_has_left_the_window():
    student, obs = team(AttentionStudent, "none", window=2), torch.randn(1, 6, len(WIDTHS), FEATURES)
    for group in student.groups:
        # A GRU that forgets at once, so that the window alone remembers.
        group.weight_hh.zero_()
        group.bias_ih[..., group.width : 2 * group.width] = -50.0
    before, _ = student.unroll(obs)
    obs[:, 2] += 1.0
    changed = (student.unroll(obs)[0] - before).abs().amax(dim=(0, 2, 3)) > 1e-6
    assert changed.tolist() == [False, False, True, True, False, False]


@torch.no_grad()
def test_an_agent_that_guesses_right_decides_as_one_that_knows():
    student, obs = team(PersonalStudent, "none"), torch.randn(2, 4, len(WIDTHS), FEATURES)
    logits, embedding = (x.flatten(0, 1) for x in student.unroll(obs))
    guess = student.guess(embedding)
    assert guess[:, 1, 5:].abs().sum() == 0, "the narrow agent guesses five numbers"
    torch.testing.assert_close(student.decide_with(embedding, guess), logits, rtol=0, atol=1e-6)
    assert (student.decide_with(embedding, -guess) - logits).abs().max() > 1e-3


@pytest.mark.parametrize(("d_in", "width", "n_actions", "window"), [(1, 2, 1, 1), (30, 32, 9, 20), (50, 17, 14, 5)])
def test_ptflops_counts_every_networks_arithmetic(d_in, width, n_actions, window):
    attention = agent_flops(AttentionStep(d_in, width, n_actions, window), d_in)
    assert attention == attention_formula(d_in, width, n_actions, window, FEED_FORWARD)
    personal = agent_flops(PersonalStep(d_in, width, n_actions), d_in)
    assert personal == personal_formula(d_in, width, n_actions)
    assert closed_formula(d_in, width, n_actions) < personal < attention


def test_the_smallest_agent_with_attention_counted_by_hand():
    # 1 input, width 2, 1 action, 3 steps, 8 units fed forward: fc1 4, ReLU 2, norms 2 + 2, q k v 18, scores 6, scale,
    # bias and softmax 9, reading 6, out 6, sums 2 + 2, ff 24 + ReLU 8 + 18, GRU 24 + 12 + 14, head 3.
    counts = (4, 2, 2, 2, 18, 6, 9, 6, 6, 2, 2, 24, 8, 18, 24, 12, 14, 3)
    assert attention_formula(1, 2, 1, 3, FEED_FORWARD) == 2 * sum(counts)
