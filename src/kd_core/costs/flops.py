"""The arithmetic of one decision: ptflops' count, and the closed formula that must give the same number.

One decision is one agent's policy network run for one step: input layer, ReLU, recurrent cell, output layer, with a
batch of one. All numbers are FLOPs = 2 x ptflops' count, because a multiply-add is two operations.

What ptflops 0.7 counts, per decision, with ``d`` inputs, width ``w`` and ``a`` actions:

- a linear layer: one per weight and one per bias, ``d*w + w`` and ``w*a + a``;
- a ReLU: one per element, ``w``;
- a GRU cell: one per weight, ``6*w*w``; one per bias, ``6*w``; and ``7*w`` for its element-wise additions and products;
- a layer norm: one per element, ``w``;
- attention over ``k`` steps: ``k*w`` for the scores, ``3*k`` for scale, bias and softmax, ``k*w`` for what is read;
- an addition of two layers' outputs: one per element;
- hearing bits (`Hearing`): half of one per weight, since a bit adds its row of weights or takes it away;
- nothing for the sigmoids and tanh of the GRU cell, the softmax over actions and the choice of an action.

So biases and element-wise operations are counted like multiply-adds, that is, twice what they cost. The excess is about
1 % of the count at width 256 and a tenth at width 16, to the student's disadvantage. Inputs that are mostly zeros
(one-hot agent ids) count in full: the network multiplies by them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from ptflops import get_model_complexity_info
from torch import Tensor, nn

OPERATIONS_PER_COUNT = 2


class AgentStep(nn.Module):
    """One agent's policy network for one step, of the shape that every agent here has.

    Args:
        d_in: number of inputs.
        width: hidden width.
        n_actions: number of actions.
        use_rnn: a GRU cell between the two linear layers, else a linear layer with a ReLU.
    """

    def __init__(self, d_in: int, width: int, n_actions: int, use_rnn: bool = True) -> None:
        super().__init__()
        self.width = width
        self.use_rnn = use_rnn
        self.fc1 = nn.Linear(d_in, width)
        self.rnn: nn.Module = nn.GRUCell(width, width) if use_rnn else nn.Linear(width, width)
        self.fc2 = nn.Linear(width, n_actions)
        self.relu = nn.ReLU()

    def init_hidden(self) -> Tensor:
        """Return zeros of shape (1, width)."""
        return self.fc1.weight.new_zeros(1, self.width)

    def forward(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Run one step.

        Args:
            inputs: (rows, d_in).
            hidden: (rows, width), the state before the step.

        Returns:
            logits (rows, n_actions) and the state after the step (rows, width).
        """
        features = self.relu(self.fc1(inputs))
        state = self.rnn(features, hidden) if self.use_rnn else self.relu(self.rnn(features))
        return self.fc2(state), state


class Hearing(nn.Linear):
    """A layer whose inputs are 1, -1 or 0: it adds rows of weights or takes them away, and multiplies nothing.

    Args:
        inbox: bits that are heard.
        width: of the layer that they are added to.
    """

    def __init__(self, inbox: int, width: int) -> None:
        super().__init__(inbox, width, bias=False)


class _OneDecision(nn.Module):
    """The agent as ptflops calls a network: one tensor in, a batch of one, starting from the initial hidden state."""

    def __init__(self, agent: nn.Module) -> None:
        super().__init__()
        self.agent: Any = agent  # nn.Module does not promise init_hidden

    def forward(self, inputs: Tensor) -> Tensor:
        return self.agent(inputs, self.agent.init_hidden())[0]


def _nothing(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """Stand in for ptflops' hook on nn.ReLU: the function that it calls is counted already."""


def _additions(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """Count an addition for each weight, as ptflops' hook on `Hearing`."""
    counted: Any = module  # ptflops adds the attribute
    counted.__flops__ += _hearing(inputs[0].shape[-1], output.shape[-1])


def agent_flops(agent: nn.Module, d_in: int) -> int:
    """Count the FLOPs of one decision of one agent by ptflops, on a copy of the network.

    Args:
        agent: a network with EPyMARL's interface, ``init_hidden() -> (1, width)`` and ``forward(inputs (rows, d_in),
            hidden (rows, width)) -> (logits, hidden)``, made of modules. Written as ``nn.ReLU`` or as
            ``torch.nn.functional.relu``, an activation counts the same; ``torch.relu`` is not seen. Nor are ``+``,
            ``*``, ``@`` and ``torch.softmax``; ``torch.add``, ``torch.mul``, ``torch.matmul`` and
            ``torch.nn.functional.softmax`` are.
        d_in: number of inputs of the agent.

    Returns:
        FLOPs, multiply-adds counted as two.

    Raises:
        RuntimeError: ptflops could not run the network.
    """
    with torch.no_grad():
        count, _ = get_model_complexity_info(
            _OneDecision(copy.deepcopy(agent)),
            (d_in,),
            as_strings=False,
            print_per_layer_stat=False,
            custom_modules_hooks={nn.ReLU: _nothing, Hearing: _additions},
        )
    if count is None:
        raise RuntimeError(f"ptflops could not run {type(agent).__name__} on {d_in} inputs: see its message above")
    return OPERATIONS_PER_COUNT * int(count)


def closed_formula(
    d_in: int,
    width: int,
    n_actions: int,
    use_rnn: bool = True,
    inbox: int = 0,
    outbox: int = 0,
    number_bits: int = 1,
) -> int:
    """Compute the FLOPs of one decision of an `AgentStep` without running it: equal to `agent_flops`, term by term.

    A bit that is heard costs an addition a weight; a number that is heard or said, a multiply-add.

    Args:
        d_in: number of inputs.
        width: hidden width.
        n_actions: number of actions.
        use_rnn: a GRU cell in the middle, else a linear layer with a ReLU.
        inbox: numbers that it hears (`kd_controllers.talking_net`); 0: none.
        outbox: numbers that it sends; 0: none.
        number_bits: of each; 1: they are signs.

    Returns:
        FLOPs, multiply-adds counted as two.
    """
    middle = _gru(width) if use_rnn else _linear(width, width) + width
    heard = _hearing(inbox, width) if number_bits == 1 else inbox * width
    talk = heard + width * outbox
    return OPERATIONS_PER_COUNT * (_linear(d_in, width) + width + middle + _linear(width, n_actions) + talk)


def attention_formula(d_in: int, width: int, n_actions: int, window: int, feed_forward: int) -> int:
    """Compute the FLOPs of a decision with attention (`kd_controllers.attention_net`): equal to `agent_flops`.

    Args:
        d_in: number of inputs.
        width: hidden width.
        n_actions: number of actions.
        window: steps that are attended to, all of them filled.
        feed_forward: hidden units of the feed-forward layer, as a multiple of the width.

    Returns:
        FLOPs, multiply-adds counted as two.
    """
    wide = feed_forward * width
    norms, residuals = 2 * width, 2 * width
    attention = _linear(width, 3 * width) + 2 * window * width + 3 * window + _linear(width, width)
    fed_forward = _linear(width, wide) + wide + _linear(wide, width)
    block = norms + attention + fed_forward + residuals
    around = _linear(d_in, width) + width + _gru(width) + _linear(width, n_actions)
    return OPERATIONS_PER_COUNT * (around + block)


def personal_formula(d_in: int, width: int, n_actions: int) -> int:
    """Compute the FLOPs of one decision of an agent with personalised information (`kd_controllers.personal_net`).

    Args:
        d_in: number of inputs.
        width: hidden width.
        n_actions: number of actions.

    Returns:
        FLOPs, multiply-adds counted as two: equal to `agent_flops`.
    """
    guess = 2 * _linear(width, width) + width
    return OPERATIONS_PER_COUNT * (_linear(d_in, width) + width + _gru(width) + guess + _linear(2 * width, n_actions))


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _hearing(inbox: int, width: int) -> int:
    """Count an addition for each weight, of which two are one count; half a count at the end is a whole one."""
    return -(-inbox * width // OPERATIONS_PER_COUNT)


def _gru(width: int) -> int:
    """Count weights, biases and element-wise operations of a GRU cell."""
    return 6 * width * width + 6 * width + 7 * width


def flops_per_decision(flops_per_agent: Sequence[int]) -> float:
    """Average over agents, so that teams of unequal agents compare with teams of equal ones.

    Args:
        flops_per_agent: FLOPs of one decision of each agent.
    """
    assert flops_per_agent, "a team has at least one agent"
    return sum(flops_per_agent) / len(flops_per_agent)


def flops_per_episode(flops_per_agent: Sequence[int], mean_episode_length: float) -> float:
    """Compute the FLOPs that a whole team spends in an episode (the paper's Figure 3).

    Args:
        flops_per_agent: FLOPs of one decision of each agent.
        mean_episode_length: steps.
    """
    return sum(flops_per_agent) * mean_episode_length


def parameter_count(module: nn.Module) -> int:
    """Count the parameters, frozen ones included; a shared one counts once."""
    return sum(parameter.numel() for parameter in module.parameters())
