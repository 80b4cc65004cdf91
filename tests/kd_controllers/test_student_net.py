"""The students' networks: all at once compute what each computes alone, from what it sees."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kd_controllers.student_net import HeteroStudent
from kd_core.costs.flops import agent_flops, closed_formula, parameter_count
from kd_core.errors import UserError
from tiny_stages import ACTIONS

FEATURES = 6


@st.composite
def teams(draw):
    """Widths, visible features and sharing of two to four agents; widths and sights repeat often."""
    n_agents = draw(st.integers(2, 4))
    sights = draw(
        st.lists(st.sets(st.integers(0, FEATURES - 1), min_size=1).map(sorted), min_size=2, max_size=2).filter(bool)
    )
    visible = [draw(st.sampled_from([*sights, list(range(FEATURES))])) for _ in range(n_agents)]
    widths = [draw(st.sampled_from([3, 5, 8])) for _ in range(n_agents)]
    return widths, visible, draw(st.sampled_from(["none", "group", "all"]))


def one_by_one(student, obs):
    """Every agent alone, step by step, from its visible features only."""
    batch, time = obs.shape[:2]
    logits = torch.zeros(batch, time, student.n_agents, student.n_actions)
    embedding = torch.zeros(batch, time, student.n_agents, student.max_width)
    for i in range(student.n_agents):
        network, state = student.agent_network(i), torch.zeros(batch, student.widths[i])
        for t in range(time):
            logits[:, t, i], state = network(obs[:, t, i, list(student.visible[i])], state)
            embedding[:, t, i, : student.widths[i]] = state
    return logits, embedding


@given(teams())
def test_all_agents_at_once_compute_what_each_computes_alone(team):
    widths, visible, sharing = team
    student = HeteroStudent(widths, visible, ACTIONS, sharing)
    obs = torch.randn(3, 4, len(widths), FEATURES)
    with torch.no_grad():
        for batched, alone in zip(student.unroll(obs), one_by_one(student, obs), strict=True):
            torch.testing.assert_close(batched, alone, rtol=0, atol=2e-6)


@given(teams(), st.sampled_from([1e3, -1e30]))
def test_hidden_features_never_reach_the_output(team, value):
    widths, visible, sharing = team
    student = HeteroStudent(widths, visible, ACTIONS, sharing)
    obs = torch.randn(2, 3, len(widths), FEATURES)
    changed = obs.clone()
    for i, indices in enumerate(visible):
        changed[:, :, i, [k for k in range(FEATURES) if k not in indices]] = value
    with torch.no_grad():
        for before, after in zip(student.unroll(obs), student.unroll(changed), strict=True):
            assert torch.equal(before, after)


@given(teams())
def test_carrying_the_recurrent_state_equals_the_whole_sequence(team):
    widths, visible, sharing = team
    student = HeteroStudent(widths, visible, ACTIONS, sharing)
    obs = torch.randn(2, 5, len(widths), FEATURES)
    with torch.no_grad():
        logits, embedding = student.unroll(obs)
        hidden = torch.zeros(2, len(widths), student.max_width)
        for t in range(5):
            step_logits, hidden = student.advance(obs[:, t : t + 1], hidden)
            torch.testing.assert_close(step_logits, logits[:, t], rtol=0, atol=2e-6)
            torch.testing.assert_close(hidden, embedding[:, t], rtol=0, atol=2e-6)


@given(teams())
def test_the_gradient_of_the_batch_is_that_of_the_agents_alone(team):
    # Without sharing every agent's own network has the gradient that autograd finds for it alone.
    widths, visible, _ = team
    student = HeteroStudent(widths, visible, ACTIONS)
    obs = torch.randn(2, 4, len(widths), FEATURES)
    student.unroll(obs)[0].square().sum().backward()
    for i, group in ((i, g) for g in student.groups for i in g.members):
        network, state, row = student.agent_network(i), torch.zeros(2, widths[i]), group.members.index(i)
        loss = 0.0
        for t in range(4):
            logits, state = network(obs[:, t, i, list(visible[i])], state)
            loss = loss + logits.square().sum()
        loss.backward()
        seen = len(visible[i])
        pairs = [
            (group.aligner_weight.grad[row, :seen].T, network.fc1.weight.grad),
            (group.aligner_bias.grad[row, 0], network.fc1.bias.grad),
            (group.weight_ih.grad[row].T, network.rnn.weight_ih.grad),
            (group.weight_hh.grad[row].T, network.rnn.weight_hh.grad),
            (group.head_weight.grad[row].T, network.fc2.weight.grad),
        ]
        for batched, alone in pairs:
            torch.testing.assert_close(batched, alone, rtol=1e-4, atol=1e-5)


def test_padding_of_the_aligners_stays_zero_in_training():
    student = HeteroStudent([8, 8, 4], [[0, 2, 3, 5], [1], [0, 4]], ACTIONS)
    optimiser = torch.optim.Adam(student.parameters(), lr=0.1)
    for _ in range(5):
        obs = torch.randn(4, 3, 3, FEATURES)
        optimiser.zero_grad()
        logits, embedding = student.unroll(obs)
        (logits.square().sum() + embedding.sum()).backward()
        optimiser.step()
    narrow, wide = student.groups
    assert torch.count_nonzero(wide.aligner_weight[1, 1:]) == 0
    assert torch.count_nonzero(wide.aligner_weight[1, :1]) > 0
    assert narrow.aligner_weight.shape == (1, 2, 4)


@pytest.mark.parametrize(("sharing", "tied"), [("none", set()), ("group", {(0, 1)}), ("all", {(0, 1), (0, 2), (1, 2)})])
def test_sharing_ties_the_body_but_never_the_aligners(sharing, tied):
    # Agents 0, 1, 2 are equally wide, 0 and 1 see the same; agent 3 sees the same with another width.
    student = HeteroStudent([4, 4, 4, 6], [[0, 1], [0, 1], [2], [0, 1]], ACTIONS, sharing)
    networks = [student.agent_network(i) for i in range(4)]
    equal = {
        (i, j)
        for i, j in itertools.combinations(range(3), 2)
        if torch.equal(networks[i].rnn.weight_hh, networks[j].rnn.weight_hh)
        and torch.equal(networks[i].rnn.weight_ih, networks[j].rnn.weight_ih)
        and torch.equal(networks[i].fc2.weight, networks[j].fc2.weight)
    }
    assert equal == tied
    assert not torch.equal(networks[0].fc1.weight, networks[1].fc1.weight)
    sets = {"none": 3, "group": 2, "all": 1}[sharing]

    def body(w):
        return 6 * w * w + 6 * w + w * ACTIONS + ACTIONS

    aligners = 3 * (2 * 4 + 4) + (2 * 6 + 6)
    assert parameter_count(student) == sets * body(4) + body(6) + aligners


@pytest.mark.parametrize(("width", "visible"), [(16, [0, 3]), (32, list(range(FEATURES)))])
def test_an_agents_own_network_has_the_parameters_and_flops_it_needs_and_no_more(width, visible):
    student = HeteroStudent([width, 8], [visible, [1]], ACTIONS)
    network, d_in = student.agent_network(0), len(visible)
    assert parameter_count(network) == d_in * width + width + 6 * width**2 + 6 * width + width * ACTIONS + ACTIONS
    assert agent_flops(network, d_in) == closed_formula(d_in, width, ACTIONS)


def test_an_agent_that_does_not_exist_has_no_network():
    with pytest.raises(IndexError, match="no agent 2: agents are 0 to 1"):
        HeteroStudent([4, 4], [[0], [1]], ACTIONS).agent_network(2)


def test_an_unknown_sharing_names_the_choices():
    with pytest.raises(UserError, match=r"sharing is 'groups'; did you mean 'group'"):
        HeteroStudent([4, 4], [[0], [1]], ACTIONS, "groups")
