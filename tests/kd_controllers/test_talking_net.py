"""Students that talk: the joint unroll computes what boards compute that pass each other their bits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kd_controllers.messages import Messages, Radio
from kd_controllers.student_net import HeteroStudent
from kd_controllers.talking_net import TalkingStudent
from kd_core.costs.flops import agent_flops, closed_formula, parameter_count

FEATURES, ACTIONS = 6, 3
LINE = ((0, 1), (0, 2), (1, 0), (1, 2))


def everyone(n):
    return tuple((i, j) for i in range(n) for j in range(n) if i != j)


@st.composite
def teams(draw):
    """Widths, sights, sharing and radio of two to four agents."""
    n = draw(st.integers(2, 4))
    visible = [draw(st.sampled_from([[0, 3], [1], list(range(FEATURES))])) for _ in range(n)]
    widths = [draw(st.sampled_from([3, 5, 8])) for _ in range(n)]
    links = tuple(sorted(draw(st.sets(st.sampled_from(everyone(n)), min_size=1))))
    number_bits = draw(st.sampled_from([1, 2, 4]))
    bits, latency, every = number_bits * draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    messages = Messages(bits, links, latency, 0.0, every, number_bits)
    return TalkingStudent(widths, visible, ACTIONS, draw(st.sampled_from(["none", "group", "all"])), messages)


def radio_of(student, batch, time):
    """Silent agents, lost messages."""
    n = student.n_agents
    return Radio((torch.rand(batch, time, n) > 0.3).float(), (torch.rand(batch, time, n, n) > 0.3).float())


def one_by_one(student, obs, radio):
    """Every agent's own network, step by step, with the bits passed by hand."""
    batch, time = obs.shape[:2]
    messages, n = student.messages, student.n_agents
    networks = [student.agent_network(i) for i in range(n)]
    states = [torch.zeros(batch, width) for width in student.widths]
    nothing = [torch.zeros(batch, messages.numbers)] * n
    said = [nothing] * messages.latency
    logits = torch.zeros(batch, time, n, ACTIONS)
    for t in range(time):
        outboxes = []
        for i, network in enumerate(networks):
            parts = [said[t][j] * radio.delivered[:, t, i, j, None] for j in messages.speakers(i)]
            inbox = torch.cat(parts, dim=-1) if parts else None
            seen = obs[:, t, i, list(student.visible[i])]
            logits[:, t, i], states[i], outbox = network(seen, states[i], inbox)
            outboxes.append(outbox * radio.speaks[:, t, i, None] if messages.is_heard(i) else nothing[i])
        said.append(outboxes)
    return logits


@given(teams())
def test_all_agents_at_once_compute_what_boards_compute_that_pass_each_other_their_bits(student):
    obs = torch.randn(3, 5, student.n_agents, FEATURES)
    radio = radio_of(student, 3, 5)
    with torch.no_grad():
        logits, _ = student.unroll(obs, radio)
        torch.testing.assert_close(logits, one_by_one(student, obs, radio), rtol=0, atol=5e-6)


@given(teams())
def test_step_by_step_is_the_whole_sequence(student):
    obs = torch.randn(2, 6, student.n_agents, FEATURES)
    radio = radio_of(student, 2, 6)
    with torch.no_grad():
        logits, embedding = student.unroll(obs, radio)
        state = torch.zeros(2, student.n_agents, student.state_size)
        for t in range(6):
            now = Radio(radio.speaks[:, t], radio.delivered[:, t])
            step_logits, state = student.advance(obs[:, t : t + 1], state, now)
            torch.testing.assert_close(step_logits, logits[:, t], rtol=0, atol=5e-6)
            torch.testing.assert_close(state[..., : student.max_width], embedding[:, t], rtol=0, atol=5e-6)


@given(teams())
def test_episodes_of_different_lengths_are_each_computed_alone(student):
    length = torch.tensor([3, 1, 5])
    obs = torch.randn(9, student.n_agents, FEATURES)
    whole = radio_of(student, 1, 9)
    radio = Radio(whole.speaks[0], whole.delivered[0])
    with torch.no_grad():
        packed, _ = student.unroll_packed(obs, length, radio)
        first = 0
        for steps in length.tolist():
            part = slice(first, first + steps)
            own = Radio(radio.speaks[None, part], radio.delivered[None, part])
            alone, _ = student.unroll(obs[None, part], own)
            torch.testing.assert_close(packed[part], alone[0], rtol=0, atol=5e-6)
            first += steps


def reached(student, changed, obs, radio=None):
    """The (step, agent) whose logits differ when an agent sees something else at step 1."""
    other = obs.clone()
    other[:, 1, changed] += 1.0
    with torch.no_grad():
        moved = (student.unroll(obs, radio)[0] != student.unroll(other, radio)[0]).any(-1).any(0)
    return {(int(t), int(i)) for t, i in moved.nonzero()}


def test_what_an_agent_sees_reaches_its_hearers_when_its_message_does():
    torch.manual_seed(3)
    # A line, 0 -> 1 -> 2, heard two steps later; enough bits that some flips.
    student = TalkingStudent([8] * 3, [list(range(FEATURES))] * 3, ACTIONS, "none", Messages(32, ((0, 1), (1, 2)), 2))
    obs = torch.randn(4, 7, 3, FEATURES)
    own = {(t, 0) for t in range(1, 7)}
    assert reached(student, 0, obs) == own | {(t, 1) for t in range(3, 7)} | {(t, 2) for t in range(5, 7)}
    assert reached(student, 2, obs) == {(t, 2) for t in range(1, 7)}
    silent = torch.ones(4, 7, 3)
    silent[:, :, 0] = 0
    assert reached(student, 0, obs, Radio(silent)) == own
    lost = torch.ones(4, 7, 3, 3)
    lost[:, :, 1, 0] = 0
    assert reached(student, 0, obs, Radio(torch.ones(4, 7, 3), lost)) == own


def test_nothing_is_heard_at_the_first_step():
    student = TalkingStudent([4, 6], [[0], [1]], ACTIONS, "none", Messages(5, everyone(2)))
    obs = torch.randn(3, 1, 2, FEATURES)
    with torch.no_grad():
        logits, _ = student.unroll(obs)
        for group in student.groups:
            group.hear_weight.zero_()
        assert torch.equal(student.unroll(obs)[0], logits)


def test_a_speaker_learns_from_what_its_hearers_need_and_absent_links_stay_zero():
    torch.manual_seed(1)
    student = TalkingStudent([8, 8, 4], [[0], [1], [2]], ACTIONS, "none", Messages(3, ((0, 2),)))
    optimiser = torch.optim.Adam(student.parameters(), lr=0.05)
    for _ in range(3):
        optimiser.zero_grad()
        logits, _ = student.unroll(torch.randn(5, 4, 3, FEATURES))
        logits[:, :, 2].square().sum().backward()
        speaks = student.groups[1].speak_weight.grad
        assert speaks[0].abs().sum() > 0 and speaks[1].abs().sum() == 0
        assert student.groups[1].aligner_weight.grad[0].abs().sum() > 0
        optimiser.step()
    narrow, wide = student.groups
    assert torch.count_nonzero(narrow.hear_weight[0, 0]) > 0
    assert torch.count_nonzero(narrow.hear_weight[0, 1:]) == 0
    assert torch.count_nonzero(wide.hear_weight) == 0


@pytest.mark.parametrize(("bits", "least", "most"), [(2, 0.99, 1.0), (0, 0.4, 0.6)])
def test_an_agent_that_sees_nothing_learns_to_do_what_another_tells_it(bits, least, most):
    torch.manual_seed(2)
    sights = [[0], [1]]
    messages = Messages(bits, ((0, 1),), loss=0.0)
    student = TalkingStudent([8, 8], sights, 2, "none", messages) if bits else HeteroStudent([8, 8], sights, 2)
    optimiser = torch.optim.Adam(student.parameters(), lr=0.02)
    for _ in range(200):
        obs = torch.zeros(64, 4, 2, 2)
        obs[..., 0] = torch.randint(0, 2, (64, 4, 1)).float()
        logits, _ = student.unroll(obs)
        # Agent 1 shall do at each step what agent 0 saw at the one before.
        wanted = obs[:, :-1, 0, 0].long()
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(logits[:, 1:, 1].flatten(0, 1), wanted.flatten()).backward()
        optimiser.step()
    right = (logits[:, 1:, 1].argmax(-1) == wanted).float().mean().item()
    assert least <= right <= most


@pytest.mark.parametrize("number_bits", [1, 4])
@pytest.mark.parametrize("agent", [0, 1, 2])
def test_an_agents_own_network_pays_for_what_it_hears_and_says(agent, number_bits):
    # 0 and 1 hear each other, 2 hears both and is heard by nobody.
    student = TalkingStudent(
        [8, 4, 8], [[0, 1]] * 3, ACTIONS, "none", Messages(5 * number_bits, LINE, number_bits=number_bits)
    )
    network, width = student.agent_network(agent), student.widths[agent]
    inbox, outbox = [(5, 5), (5, 5), (10, 0)][agent]
    silent = 2 * width + width + 6 * width**2 + 6 * width + width * ACTIONS + ACTIONS
    assert parameter_count(network) == silent + (inbox + outbox) * width
    formula = closed_formula(2, width, ACTIONS, inbox=inbox, outbox=outbox, number_bits=number_bits)
    assert agent_flops(network, 2) == formula
    # A sign that is heard is an addition a weight, a number a multiply-add.
    hearing = inbox * width * (1 if number_bits == 1 else 2)
    assert formula - closed_formula(2, width, ACTIONS) == hearing + 2 * width * outbox
