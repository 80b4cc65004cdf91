"""ptflops' count against the closed formula and against a count by hand, and what must not change it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kd_controllers.talking_net import TalkingStep
from kd_core.costs.flops import (
    AgentStep,
    agent_flops,
    closed_formula,
    flops_per_decision,
    flops_per_episode,
    parameter_count,
)


class FunctionalAgent(nn.Module):
    """EPyMARL's way of writing the same network: the activation is a function, not a module."""

    def __init__(self, d_in, width, n_actions):
        super().__init__()
        self.width = width
        self.fc1 = nn.Linear(d_in, width)
        self.rnn = nn.GRUCell(width, width)
        self.fc2 = nn.Linear(width, n_actions)

    def init_hidden(self):
        return self.fc1.weight.new_zeros(1, self.width)

    def forward(self, inputs, hidden):
        state = self.rnn(F.relu(self.fc1(inputs)), hidden)
        return self.fc2(state), state


@pytest.mark.parametrize("use_rnn", [True, False])
@pytest.mark.parametrize(("d_in", "width", "n_actions"), [(1, 1, 1), (18, 16, 5), (21, 256, 5), (205, 32, 14)])
def test_ptflops_and_the_closed_formula_agree(d_in, width, n_actions, use_rnn):
    agent = AgentStep(d_in, width, n_actions, use_rnn)
    assert agent_flops(agent, d_in) == closed_formula(d_in, width, n_actions, use_rnn)


def test_the_smallest_agent_counted_by_hand():
    # 2 inputs, width 3, 4 actions. Linear 2*3 + 3; ReLU 3; GRU 18*3 weights + 18 biases + 21 others; Linear 3*4 + 4.
    assert closed_formula(2, 3, 4) == 2 * ((6 + 3) + 3 + (54 + 18 + 21) + (12 + 4))


def test_an_activation_counts_the_same_as_module_or_as_function():
    assert agent_flops(FunctionalAgent(18, 16, 5), 18) == agent_flops(AgentStep(18, 16, 5), 18)


def test_weights_dominate_the_count_at_the_teachers_width():
    weights_only = 2 * (18 * 256 + 6 * 256 * 256 + 256 * 5)
    assert 1 < closed_formula(18, 256, 5) / weights_only < 1.02


def test_a_student_of_width_32_is_more_than_28_times_cheaper_than_the_teacher():
    assert closed_formula(18, 256, 5) / closed_formula(18, 32, 5) > 28.6


def test_counting_leaves_the_agent_as_it_was():
    agent = AgentStep(4, 8, 3).train()
    attributes = set(vars(agent.fc1))
    inputs, before = torch.randn(2, 4), [p.clone() for p in agent.parameters()]
    agent_flops(agent, 4)
    assert agent.training
    assert set(vars(agent.fc1)) == attributes
    assert all(torch.equal(old, new) for old, new in zip(before, agent.parameters(), strict=True))
    assert agent(inputs, agent.init_hidden().expand(2, -1))[0].shape == (2, 3)


def test_a_frozen_agent_counts_in_full():
    agent = AgentStep(4, 8, 3).requires_grad_(False)
    assert agent_flops(agent, 4) == closed_formula(4, 8, 3)
    assert parameter_count(agent) == (4 * 8 + 8) + (6 * 8 * 8 + 6 * 8) + (8 * 3 + 3)


def test_a_shared_network_has_its_parameters_counted_once():
    shared = nn.Linear(2, 3)
    assert parameter_count(nn.ModuleList([shared, shared])) == 9


def test_a_network_that_does_not_take_the_inputs_is_named(capsys):
    with pytest.raises(RuntimeError, match="could not run AgentStep on 5 inputs"):
        agent_flops(AgentStep(4, 8, 3), 5)
    capsys.readouterr()  # ptflops prints the traceback


def test_unequal_agents_are_averaged_per_decision_and_summed_per_episode():
    assert flops_per_decision([100, 200, 600]) == 300
    assert flops_per_episode([100, 200, 600], mean_episode_length=24.5) == 900 * 24.5


@pytest.mark.parametrize(("inbox", "outbox"), [(0, 0), (6, 0), (0, 3), (32, 16)])
def test_speaking_and_hearing_count(inbox, outbox):
    network = TalkingStep(5, 8, 4, inbox, outbox)
    assert agent_flops(network, 5) == closed_formula(5, 8, 4, inbox=inbox, outbox=outbox)
    # A row of 8 weights is added for each bit heard, and a column of 8 multiplied and added for each bit said.
    talk = 8 * inbox + 2 * 8 * outbox
    assert closed_formula(5, 8, 4, inbox=inbox, outbox=outbox) - closed_formula(5, 8, 4) == talk


def test_sixteen_bits_cost_less_than_a_sixth_of_a_student_that_is_32_wide():
    silent = closed_formula(14, 32, 5)
    assert 1.1 < closed_formula(14, 32, 5, inbox=32, outbox=16) / silent < 1.15
