"""The joint unroll against plain autograd, against finite differences and against the silent GRU."""

import pytest
import torch

from kd_controllers.grouped_gru import grouped_gru
from kd_controllers.talking_gru import Weights, talking_gru
from kd_onboard.messages import thresholds


def arguments(time=5, n=3, batch=2, width=4, numbers=3, latency=1, number_bits=1, dtype=torch.float64):
    """Weights and inputs that need gradients, and the radio: a line of agents, some silent, some messages lost."""
    generator = torch.Generator().manual_seed(1)
    shapes = [
        (time, n, batch, width),
        (n, n * numbers, width),
        (n, width, 3 * width),
        (n, 1, 3 * width),
        (n, width, 3 * width),
        (n, 1, 3 * width),
        (n, width, numbers),
        (n, batch, width),
    ]
    learnt = [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]
    sent = torch.randint(-1, 2, (latency, batch, n, numbers), generator=generator).to(dtype)
    speaks = (torch.rand(time, batch, n, generator=generator) > 0.2).to(dtype)
    heard = (torch.rand(time, n, batch, n, generator=generator) > 0.3).to(dtype)
    heard *= (1 - torch.eye(n, dtype=dtype)).unsqueeze(1)
    changes = [] if number_bits == 1 else [torch.from_numpy(thresholds(number_bits))]
    return learnt, [sent, speaks, heard, *changes]


def run(learnt, radio):
    aligned, *weights, start = learnt
    return talking_gru(aligned, Weights(*weights), start, *radio)


def plain(learnt, radio, offsets=None):
    """The same by autograd, agent by agent; ``offsets`` freeze each message's difference from tanh of its argument."""
    aligned, hear, weight_ih, bias_ih, weight_hh, bias_hh, speak, start = learnt
    sent, speaks, heard, *changes = radio
    steps = 1 + len(changes[0]) if changes else 2
    time, n, _, width = aligned.shape
    messages, states, found = list(sent), [], []
    before = list(start)
    for t in range(time):
        now, said = [], []
        for i in range(n):
            inbox = torch.cat([messages[t][:, j] * heard[t, i, :, j].unsqueeze(-1) for j in range(n)], dim=-1)
            x = torch.relu(aligned[t, i] + inbox @ hear[i])
            from_input, past = x @ weight_ih[i] + bias_ih[i], before[i] @ weight_hh[i] + bias_hh[i]
            r, z = ((from_input + past)[:, k * width : (k + 1) * width].sigmoid() for k in (0, 1))
            candidate = torch.tanh(from_input[:, 2 * width :] + r * past[:, 2 * width :])
            now.append((1 - z) * candidate + z * before[i])
            voice = now[i] @ speak[i]
            soft = torch.tanh(voice)
            # The nearest of the levels; rint would send the tanh of 0 down.
            hard = torch.floor((soft + 1) / 2 * (steps - 1) + 0.5) * 2 / (steps - 1) - 1
            found.append((hard - soft).detach())
            offset = found[-1] if offsets is None else offsets[len(found) - 1]
            said.append((soft + offset) * speaks[t, :, i].unsqueeze(-1))
        messages.append(torch.stack(said, dim=1))
        states.append(torch.stack(now))
        before = now
    return torch.stack(states), torch.stack(messages[len(sent) :]), found


SIZES = [
    {},
    {"latency": 2},
    {"latency": 7},
    {"time": 1},
    {"n": 1},
    {"numbers": 1, "width": 1},
    {"number_bits": 4},
    {"number_bits": 2, "latency": 2},
]


@pytest.mark.parametrize("sizes", SIZES)
def test_it_is_the_plain_network_forward_and_backward(sizes):
    learnt, radio = arguments(**sizes)
    states, said = run(learnt, radio)
    expected, messages, _ = plain(learnt, radio)
    torch.testing.assert_close(states, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(said, messages.detach(), rtol=0, atol=1e-12)
    weights = torch.randn(states.shape, dtype=states.dtype)
    ours = torch.autograd.grad((states * weights).sum(), learnt, allow_unused=True)
    theirs = torch.autograd.grad((expected * weights).sum(), learnt, allow_unused=True)
    for mine, other, x in zip(ours, theirs, learnt, strict=True):
        torch.testing.assert_close(mine, torch.zeros_like(x) if other is None else other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sizes", SIZES)
def test_its_gradients_are_finite_differences_of_the_network_whose_bits_move_like_tanh(sizes):
    learnt, radio = arguments(**sizes)
    offsets = plain(learnt, radio)[2]
    states, _ = run(learnt, radio)
    weights = torch.randn(states.shape, dtype=states.dtype)
    found = torch.autograd.grad((states * weights).sum(), learnt)
    step = 1e-6
    for x, gradient in zip(learnt, found, strict=True):
        flat = x.data.view(-1)
        for index in torch.randperm(flat.numel())[:12].tolist():
            value, ends = flat[index].item(), []
            for moved in (value + step, value - step):
                flat[index] = moved
                ends.append(float((plain(learnt, radio, offsets)[0] * weights).sum()))
            flat[index] = value
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(
                gradient.view(-1)[index].item(), rel=1e-5, abs=1e-6
            )


def test_a_team_that_hears_nothing_is_a_grouped_gru():
    learnt, (sent, speaks, heard) = arguments()
    aligned, _, weight_ih, bias_ih, weight_hh, bias_hh, _, start = learnt
    states, _ = run(learnt, [sent, speaks, torch.zeros_like(heard)])
    time, _, batch, _ = aligned.shape
    from_input = (torch.relu(aligned) @ weight_ih + bias_ih).transpose(0, 1).flatten(1, 2)
    alone = grouped_gru(from_input, weight_hh, bias_hh, start, [batch] * time)
    torch.testing.assert_close(states, alone.unflatten(1, (time, batch)).transpose(0, 1))


@pytest.mark.parametrize("latency", [1, 3])
def test_a_sequence_in_two_halves_is_the_whole(latency):
    learnt, (sent, speaks, heard) = arguments(time=6, latency=latency)
    whole, said = run(learnt, [sent, speaks, heard])
    aligned, *weights, start = learnt
    first, early = run([aligned[:2], *weights, start], [sent, speaks[:2], heard[:2]])
    underway = torch.cat([sent, early])[2:]
    second, late = run([aligned[2:], *weights, first[-1]], [underway, speaks[2:], heard[2:]])
    torch.testing.assert_close(torch.cat([first, second]), whole)
    assert torch.equal(torch.cat([early, late]), said)
