"""The C of an agent: it compiles without a warning, decides as torch does, refuses bad input, and is small."""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pytest
import torch

from deployed import FLAGS, OPTIMISATIONS, Program, compiled_bytes, compiler, episodes, network, write_c
from kd_core.costs.footprint import footprint
from kd_marl.deploy import c_products, csource, replay
from kd_marl.deploy.csource import largest_feature
from kd_marl.deploy.weights import agent_weights


@pytest.mark.parametrize("flags", OPTIMISATIONS, ids=" ".join)
@pytest.mark.parametrize("sizes", [(18, 16, 5), (100, 32, 14), (1, 3, 2)], ids=str)
def test_c_decides_as_torch_does(tmp_path, sizes, flags):
    step = network(*sizes)
    program = Program(write_c(tmp_path, step), step, *flags)
    assert program.size() == 4 * sizes[1]
    features, available = episodes(sizes[0], sizes[2], count=40, length=50)
    expected, actions = replay.run(replay.torch_step(step), features, available, sizes[1])
    for e in range(len(features)):
        program.reset()
        found = [program.logits(row) for row in features[e]]
        assert all(status == 0 for status, _ in found)
        np.testing.assert_allclose([row for _, row in found], expected[e], rtol=0, atol=1e-5)
        program.reset()
        assert [program.act(*now) for now in zip(features[e], available[e], strict=True)] == actions[e].tolist()


@pytest.mark.parametrize("inputs", [1, 15, 16, 33, 100])
def test_turned_products_add_the_same_in_the_same_order(tmp_path, monkeypatch, inputs):
    step, counts = network(inputs, 24, 7), []

    def turned(model):
        text, count = c_products.turn_products(model)
        counts.append(count)
        return text, count

    monkeypatch.setattr(csource, "turn_products", turned)
    ours = Program(write_c(tmp_path / "turned", step), step, "-O2")
    monkeypatch.setattr(csource, "turn_products", lambda model: (model, 0))
    generated = Program(write_c(tmp_path / "generated", step), step, "-O2")
    assert counts == [5], "aligner, gates, the candidate's two, and the head"
    for program in (ours, generated):
        program.reset()
    for row in episodes(inputs, 7, count=1, length=50)[0][0]:
        assert ours.logits(row)[1].tobytes() == generated.logits(row)[1].tobytes()


def test_exponential_and_tanh_of_the_program_are_exact_to_float32(tmp_path):
    # One unit, reset and update closed: the next state is tanh(x), and the logit repeats it.
    step = network(1, 1, 1)
    with torch.no_grad():
        for parameter in step.parameters():
            parameter.zero_()
        step.fc1.weight[:] = 1.0
        step.rnn.weight_ih[2] = 1.0
        step.rnn.bias_ih[1] = -100.0
        step.fc2.weight[:] = 1.0
    program = Program(write_c(tmp_path, step), step, "-O2")
    for x in np.concatenate([np.linspace(0, 12, 5001), [50.0, 87.0, 1e4, 1e30]]).astype(np.float32):
        program.reset()
        assert program.logits([x])[1][0] == pytest.approx(np.tanh(np.float64(x)), abs=2e-7)


def test_bad_input_is_refused_and_leaves_the_agent_as_it_was(tmp_path):
    step = network(4, 8, 3)
    program = Program(write_c(tmp_path, step), step, "-O3", "-march=native", "-ffast-math")
    program.reset()
    good, everything = np.ones(4, np.float32), np.ones(3)
    assert program.act(good, everything) >= 0
    before = program.state.copy()
    assert before.any()
    limit = largest_feature(agent_weights(step))
    for bad in (np.nan, -np.nan, np.inf, -np.inf, np.nextafter(limit, np.float32(np.inf)), -3e38):
        for place in range(4):
            row = good.copy()
            row[place] = bad
            assert program.act(row, everything) == -1
            status, written = program.logits(row)
            assert status == -1 and np.isnan(written).all()
    assert program.act(good, np.zeros(3)) == -1
    np.testing.assert_array_equal(program.state, before)
    assert program.act(good, [0, 200, 0]) == 1
    program.reset()
    assert not program.state.any()


def test_nothing_overflows_up_to_the_largest_feature():
    for seed in range(20):
        weights = agent_weights(network(7, 5, 3, seed=seed, scale=10.0 ** (seed % 5)))
        limit = largest_feature(weights)
        signs = np.sign(weights["align.weight"])
        with np.errstate(over="raise", invalid="raise"):
            for row in signs * limit:
                aligned = np.maximum(weights["align.weight"] @ row + weights["align.bias"], np.float32(0))
                for gate in weights["gru.weight_ih"]:
                    assert np.isfinite(np.abs(gate) @ aligned)


def test_the_first_of_equal_logits_is_taken_as_torch_does(tmp_path):
    step = network(3, 4, 6)
    with torch.no_grad():
        step.fc2.weight.zero_()
        step.fc2.bias[:] = torch.tensor([0.0, 2.0, 1.0, 2.0, 2.0, 0.0])
    program = Program(write_c(tmp_path, step), step, "-O2")
    program.reset()
    assert program.act(np.ones(3), np.ones(6)) == 1
    assert program.act(np.ones(3), [1, 0, 1, 1, 1, 1]) == 3
    assert program.act(np.ones(3), [1, 0, 1, 0, 0, 1]) == 2


MAIN = """
#include <stdio.h>
#define KD_AGENT_PREFIXED_ONLY
#include "one/kd_agent.h"
#include "two/kd_agent.h"
int main(void) {
    static const float x[KD_ONE_INPUTS] = {1.0f, -2.0f, 0.5f}, y[KD_TWO_INPUTS] = {0.25f, 3.0f};
    static const unsigned char all[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    struct kd_one first, second;
    struct kd_two other;
    int t;
    kd_one_init(&first);
    kd_one_init(&second);
    kd_two_init(&other);
    for (t = 0; t < 6; t++) {
        printf("%d %d %d\\n", kd_one_act(&first, x, all), t % 2 ? kd_one_act(&second, x, all) : -1,
               kd_two_act(&other, y, all));
    }
    return 0;
}
"""


def test_several_agents_are_one_program_and_two_of_a_kind_do_not_disturb_each_other(tmp_path):
    one, two = network(3, 4, 5, seed=1), network(2, 6, 3, seed=2)
    write_c(tmp_path / "one", one, "kd_one")
    write_c(tmp_path / "two", two, "kd_two")
    (tmp_path / "main.c").write_text(MAIN)
    sources = ["main.c", "one/kd_agent.c", "two/kd_agent.c"]
    subprocess.run([compiler(), *FLAGS, "-O2", *sources, "-o", "program", "-lm"], cwd=tmp_path, check=True)
    out = subprocess.run([tmp_path / "program"], check=True, capture_output=True, text=True).stdout

    def actions(step, row):
        state, taken = step.init_hidden(), []
        for _ in range(6):
            with torch.no_grad():
                logits, state = step(torch.tensor([row]), state)
            taken.append(int(logits.argmax()))
        return taken

    first, other = actions(one, [1.0, -2.0, 0.5]), actions(two, [0.25, 3.0])
    expected = [(first[t], first[t // 2] if t % 2 else -1, other[t]) for t in range(6)]
    assert [tuple(map(int, line.split())) for line in out.splitlines()] == expected


def test_a_program_with_one_agent_uses_the_generic_names(tmp_path):
    write_c(tmp_path, network(3, 4, 5))
    (tmp_path / "main.c").write_text(
        '#include "kd_agent.h"\n'
        "int main(void) {\n"
        "    float x[KD_AGENT_INPUTS] = {0}, logits[KD_AGENT_ACTIONS];\n"
        "    unsigned char all[KD_AGENT_ACTIONS] = {1};\n"
        "    struct kd_agent agent;\n"
        "    kd_agent_init(&agent);\n"
        "    if (kd_agent_size() != KD_AGENT_WIDTH * sizeof(float) || KD_AGENT_FORMAT_VERSION != 1) return 1;\n"
        "    return kd_agent_act(&agent, x, all) != 0 || kd_agent_logits(&agent, x, logits) != 0;\n"
        "}\n"
    )
    subprocess.run([compiler(), *FLAGS, "main.c", "kd_agent.c", "-o", "program"], cwd=tmp_path, check=True)
    subprocess.run([tmp_path / "program"], check=True)


LIMITS = {32: (72 * 1024, 4 * 1024), 16: (36 * 1024, 2 * 1024)}


@pytest.mark.parametrize("width", LIMITS)
@pytest.mark.parametrize("inputs", [8, 128])
def test_flash_and_ram_are_within_the_formula_and_the_project_s_limits(tmp_path, width, inputs):
    step = network(inputs, width, 14)
    write_c(tmp_path, step)
    text, ram = compiled_bytes(tmp_path, width)
    told = footprint(inputs, width, 14)
    assert told.weights == 4 * sum(parameter.numel() for parameter in step.parameters())
    assert 0.9 * told.flash <= text <= told.flash <= LIMITS[width][0]
    assert 0.85 * told.ram <= ram <= told.ram <= LIMITS[width][1]
    undefined = subprocess.run(["nm", "-u", "agent.o"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert set(re.findall(r"U (\w+)", undefined)) <= {"memcpy", "memset"}


def test_a_name_cannot_break_out_of_a_comment(tmp_path):
    step = network(2, 3, 2)
    write_c(tmp_path, step, name="*/ #error @PREFIX@ \n ünder")
    Program(tmp_path, step, "-O2")
