"""Quantisation-aware finishing: training with the int8 C's weights, which are the student's at the end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kd_controllers.student_net import HeteroStudent
from kd_core.errors import UserError
from kd_learners.int8_weights import Int8Weights
from kd_marl.deploy import replay
from kd_marl.deploy.weights import agent_weights
from kd_onboard import int8
from tiny_students import make_learner, same, weights

VISIBLE = ([0, 1, 2], [0, 1, 2, 4, 5])


def team(sharing="none"):
    torch.manual_seed(0)
    student = HeteroStudent([8, 8], VISIBLE, 5, sharing)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(2.0)
    features = torch.randn(20, 15, 2, 6) * torch.tensor([0.1, 1.0, 30.0, 1.0, 0.0, 2.0])
    return student, features, Int8Weights(student, features.abs().amax((0, 1)).numpy())


def played(step, features):
    may = np.ones((*features.shape[:2], 5), bool)
    return replay.run(step, features, may, 8)


def test_settled_weights_are_those_of_the_int8_c_which_then_decides_alike():
    student, features, quantised = team()
    rounded = []
    for settled in (False, True):
        if settled:
            quantised.settle()
        alike = []
        for agent, seen in enumerate(VISIBLE):
            network = student.agent_network(agent)
            mine = np.ascontiguousarray(features[:, :, agent, seen].numpy())
            numbers = int8.quantise(
                agent_weights(network), int8.calibrate(agent_weights(network), mine.reshape(-1, len(seen)))
            )
            expected, found = played(replay.torch_step(network), mine), played(replay.int8_step(numbers), mine)
            alike.append(np.abs(expected[0] - found[0]).max())
        rounded.append(max(alike))
    assert rounded[1] < 0.2 * rounded[0]


@pytest.mark.parametrize("sharing", ["none", "all"])
def test_a_block_computes_with_rounded_weights_and_leaves_the_exact_ones_with_their_gradients(sharing):
    student, features, quantised = team(sharing)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    with quantised.in_place():
        inside = {name: value.clone() for name, value in student.state_dict().items()}
        student.unroll(features)[0].square().sum().backward()
    assert same(before, student.state_dict())
    changed = [name for name in before if not torch.equal(before[name], inside[name])]
    assert all("bias" not in name for name in changed) and len(changed) == 4
    gradients = [parameter.grad.clone() for parameter in student.parameters()]
    quantised.settle()
    assert same(inside, student.state_dict())
    student.zero_grad()
    student.unroll(features)[0].square().sum().backward()
    for expected, found in zip(gradients, student.parameters(), strict=True):
        torch.testing.assert_close(expected, found.grad)


def test_rounding_twice_changes_nothing_more():
    student, _, quantised = team()
    quantised.settle()
    once = {name: value.clone() for name, value in student.state_dict().items()}
    quantised.settle()
    for name, value in student.state_dict().items():
        torch.testing.assert_close(value, once[name], rtol=1e-6, atol=1e-9)


def test_the_last_part_of_a_run_is_trained_for_int8_and_the_student_keeps_the_rounded_weights(results, tmp_path):
    given = {"distill_on": "expert", "quantise_share": 0.5}
    plain, finishing = (make_learner(results, tmp_path, quantise=form, **given) for form in (None, "int8"))
    for learner in (plain, finishing):
        learner.train(None, 10, 0)
    assert same(weights(plain), weights(finishing)), "until then nothing is rounded"
    for learner in (plain, finishing):
        learner.train(None, 20, 0)
    assert not same(weights(plain), weights(finishing))
    exact = weights(finishing)["width_8.weight_hh"].clone()
    finishing.finish()
    kept = weights(finishing)["width_8.weight_hh"]
    assert not torch.equal(exact, kept)
    steps = kept[0, :, 0] / (kept[0, :, 0].abs().max() / 127)
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"quantise": "int4"}, "quantise is 'int4': choose null or int8"),
        ({"quantise": "int8", "quantise_share": 1.5}, "quantise_share is 1.5"),
        ({"quantise": "int8", "message_bits": 2}, "quantise=int8 is for the students that C is written of"),
        ({"quantise": "int8", "agent": "attention_rnn"}, "set agent=rnn and message_bits=0"),
    ],
)
def test_what_int8_is_not_for_is_refused_in_one_line(results, tmp_path, updates, message):
    with pytest.raises(UserError, match=message):
        make_learner(results, tmp_path, **updates)
