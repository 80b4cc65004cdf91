"""The C of an agent: it compiles without a warning, decides as torch does, refuses bad input, and is small."""

from __future__ import annotations

import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deployed import FLAGS, OPTIMISATIONS, PUBLIC, Program, compiled_bytes, compiler, episodes, network, write_c
from kd_core.costs.footprint import LEVELS, footprint
from kd_marl.deploy import csource, replay
from kd_marl.deploy.program import AgentC, Named, identifiers
from kd_marl.deploy.trace import Trace
from kd_marl.deploy.trace import header as trace_header
from kd_marl.deploy.weights import agent_weights, largest_feature

NO_ACTION, BAD_FEATURE, BAD_STATE, NOT_INITIALISED = -1, -2, -3, -4


@pytest.mark.parametrize("flags", OPTIMISATIONS, ids=" ".join)
@pytest.mark.parametrize("sizes", [(18, 16, 5), (100, 32, 14), (7, 24, 3), (1, 3, 2), (40, 44, 9)], ids=str)
def test_c_decides_as_torch_does(tmp_path, sizes, flags):
    step = network(*sizes)
    program = Program(write_c(tmp_path, step), step, *flags)
    assert program.size() == 4 * sizes[1] + 8
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
@pytest.mark.parametrize("lean", ["-Os", "-DKD_AGENT_LEAN_STACK"])
def test_the_lean_form_computes_the_same_numbers(tmp_path, inputs, lean):
    step = network(inputs, 24, 7)
    folder = write_c(tmp_path, step)
    fast, small = Program(folder, step, "-O2"), Program(folder, step, lean)
    for program in (fast, small):
        program.reset()
    for features, available in zip(*(part[0] for part in episodes(inputs, 7, count=1, length=50)), strict=True):
        assert fast.act(features, available) == small.act(features, available)
        assert fast.struct.tobytes() == small.struct.tobytes()
        assert fast.logits(features)[1].tobytes() == small.logits(features)[1].tobytes()


@pytest.mark.parametrize(("flags", "within"), [(("-O2",), 2e-7), (("-O2", "-march=native"), 4e-7)])
def test_exponential_and_tanh_of_the_program_are_exact_to_float32(tmp_path, flags, within):
    # One unit, reset and update closed: the next state is tanh(x), and the logit repeats it.
    step = network(1, 1, 1)
    with torch.no_grad():
        for parameter in step.parameters():
            parameter.zero_()
        step.fc1.weight[:] = 1.0
        step.rnn.weight_ih[2] = 1.0
        step.rnn.bias_ih[1] = -100.0
        step.fc2.weight[:] = 1.0
    program = Program(write_c(tmp_path, step), step, *flags)
    for x in np.concatenate([np.linspace(0, 12, 5001), [50.0, 87.0, 1e4, 1e30]]).astype(np.float32):
        program.reset()
        assert program.logits([x])[1][0] == pytest.approx(np.tanh(np.float64(x)), abs=within)


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
            assert program.act(row, everything) == BAD_FEATURE
            status, written = program.logits(row)
            assert status == BAD_FEATURE and np.isnan(written).all()
    assert program.act(good, np.zeros(3)) == NO_ACTION
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


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1.5, -3e38])
@pytest.mark.parametrize("flags", OPTIMISATIONS, ids=" ".join)
def test_a_damaged_memory_is_said_and_never_acted_on(tmp_path, poison, flags):
    step = network(4, 8, 3)
    program = Program(write_c(tmp_path, step), step, *flags)
    program.reset()
    good, everything = np.ones(4), np.ones(3)
    assert program.act(good, everything) >= 0
    for place in range(8):
        before = program.state[place]
        program.state[place] = poison
        damaged = program.struct.tobytes()
        assert program.act(good, everything) == BAD_STATE
        assert program.logits(good)[0] == BAD_STATE and program.struct.tobytes() == damaged
        program.state[place] = before
    assert program.act(good, everything) >= 0


def test_an_agent_that_was_never_initialised_says_so(tmp_path):
    step = network(4, 8, 3)
    program = Program(write_c(tmp_path, step), step, "-O2")
    assert program.act(np.ones(4), np.ones(3)) == NOT_INITIALISED
    assert program.logits(np.ones(4))[0] == NOT_INITIALISED
    program.struct[:] = 0.5
    assert program.act(np.ones(4), np.ones(3)) == NOT_INITIALISED
    # Another network's memory is none of its own.
    other = network(4, 8, 3, seed=1)
    stranger = Program(write_c(tmp_path / "other", other), other, "-O2")
    stranger.reset()
    program.struct[:] = stranger.struct
    assert program.act(np.ones(4), np.ones(3)) == NOT_INITIALISED
    program.reset()
    assert program.act(np.ones(4), np.ones(3)) >= 0


def test_c_does_after_a_fault_what_the_bundle_says(tmp_path):
    step = network(4, 8, 3)
    everything = np.ones(3)
    raising = Program(write_c(tmp_path / "raise", step), step)
    raising.reset()
    assert raising.act(np.ones(4), everything) >= 0
    assert raising.on_fault(everything) == NO_ACTION
    holding = Program(write_c(tmp_path / "hold", step, on_fault="hold"), step)
    assert holding.on_fault(everything) == NO_ACTION, "it was never initialised"
    holding.reset()
    assert holding.on_fault(everything) == NO_ACTION, "nothing was done yet"
    last = holding.act(np.ones(4), everything)
    assert holding.act(np.full(4, np.nan), everything) == BAD_FEATURE
    assert holding.on_fault(everything) == last
    assert holding.on_fault(np.arange(3) == last) == last
    assert holding.on_fault(np.arange(3) != last) == NO_ACTION
    holding.reset()
    assert holding.on_fault(everything) == NO_ACTION
    doing_nothing = Program(write_c(tmp_path / "noop", step, on_fault="noop", noop_action=2), step)
    assert doing_nothing.on_fault(everything) == 2
    assert doing_nothing.on_fault([1, 1, 0]) == NO_ACTION


MAIN = """
#include <stdio.h>
#include "c/kd_team.h"
#include "first.h"
#include "second.h"
static int replay_first(void) {
    static struct kd_@FIRST@ agent;
    int t, agreed = 0;
    for (t = 0; t < KD_@FIRST_UPPER@_RECORD_STEPS; t++) {
        if (kd_@FIRST@_record_begins[t]) kd_@FIRST@_init(&agent);
        agreed += kd_@FIRST@_act(&agent, kd_@FIRST@_record_features[t], kd_@FIRST@_record_available[t])
                  == kd_@FIRST@_record_actions[t];
    }
    return agreed == KD_@FIRST_UPPER@_RECORD_STEPS;
}
static int replay_second(void) {
    static struct kd_@SECOND@ agent, undisturbed;
    int t, agreed = 0;
    for (t = 0; t < KD_@SECOND_UPPER@_RECORD_STEPS; t++) {
        if (kd_@SECOND@_record_begins[t]) {
            kd_@SECOND@_init(&agent);
            kd_@SECOND@_init(&undisturbed);
        }
        agreed += kd_@SECOND@_act(&agent, kd_@SECOND@_record_features[t], kd_@SECOND@_record_available[t])
                  == kd_@SECOND@_record_actions[t];
    }
    return agreed == KD_@SECOND_UPPER@_RECORD_STEPS;
}
int main(void) {
    printf("%d %d %d\\n", KD_TEAM_AGENTS, replay_first(), replay_second());
    return 0;
}
"""
TEAMS = [("agent_0", "agent_1"), ("agent", "record"), ("agent_act", "agent_init"), ("agent_0", "agent_0_record")]


@pytest.mark.parametrize("names", TEAMS, ids=" ".join)
def test_a_team_with_its_recordings_is_one_program_whatever_its_agents_are_called(tmp_path, names):
    """Every `*.c` of its folders is compiled, as build systems do."""
    rng = np.random.default_rng(0)
    ids, text, programs = identifiers(names), MAIN, []
    for place, (file, name, identifier) in enumerate(zip(("first", "second"), names, ids, strict=True)):
        step = network(3 + place, 8, 4, seed=place)
        named = Named.of(identifier)
        features = [{"name": f"f{k}", "unit": None} for k in range(3 + place)]
        program = AgentC(agent_weights(step), named, "toy", name, features, ["x"] * 4)
        for path, source in csource.c_files(program).items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(source)
        steps, begins = 30, np.arange(30) % 10 == 0
        seen, may = rng.standard_normal((steps, 3 + place)).astype(np.float32), np.ones((steps, 4), bool)
        _, actions = replay.run(replay.torch_step(step), seen.reshape(3, 10, -1), may.reshape(3, 10, -1), 8)
        recorded = Trace(begins, seen, may, actions.ravel())
        bundle = SimpleNamespace(folder=tmp_path, task=SimpleNamespace(name="toy"))
        profile = SimpleNamespace(name=name, label=name, c=named, inputs=3 + place, n_actions=4)
        (tmp_path / f"{file}.h").write_text(trace_header(recorded, bundle, profile))
        programs.append((name, named))
        text = text.replace(f"@{file.upper()}@", identifier).replace(f"@{file.upper()}_UPPER@", identifier.upper())
    (tmp_path / csource.TEAM_HEADER).write_text(csource.team_header("toy", programs))
    (tmp_path / "main.c").write_text(text)
    sources = ["main.c", *(str(path) for path in sorted(tmp_path.rglob("kd_*.c")))]
    assert len(sources) == 3, "what is no program has no program's suffix"
    subprocess.run([compiler(), *FLAGS, "-O2", *sources, "-o", "program"], cwd=tmp_path, check=True)
    out = subprocess.run([tmp_path / "program"], check=True, capture_output=True, text=True).stdout
    assert out == "2 1 1\n"


def test_two_agents_or_two_recordings_without_their_own_names_are_an_error_that_says_what_to_do(tmp_path):
    for name in ("kd_one_0", "kd_two_1"):
        write_c(tmp_path, network(3, 4, 5), name)
    (tmp_path / "main.c").write_text('#include "kd_one_0.h"\n#include "kd_two_1.h"\nint main(void) { return 0; }\n')
    done = subprocess.run([compiler(), "-c", "main.c"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode and "include kd_team.h" in done.stderr


def test_every_name_of_an_agent_is_its_own_and_ends_in_a_number():
    """So no agent's symbol can be another's, or a generic one."""
    names = ("a_2", "a", "a", "agent", "agent_act", "record", "Robot 1", "robot-1", "../x", "ü", "", "x_record_0", "x")
    found = identifiers(names)
    assert found[:3] == ["a_2", "a_1", "a_2_2"] and len(set(found)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_]+_[0-9]+", name) for name in found)
    assert identifiers(("agent_0", "listener_0")) == ["agent_0", "listener_0"]


COMPILERS = ("gcc", "clang")


@pytest.mark.parametrize("name", COMPILERS)
@pytest.mark.parametrize("sizes", [(18, 16, 5), (1, 3, 2)], ids=str)
@pytest.mark.parametrize(
    "flags", [("-O0",), ("-O3", "-march=native"), ("-Os",), ("-O2", "-DKD_AGENT_LEAN_STACK")], ids=" ".join
)
def test_strict_compilers_have_nothing_to_say_and_no_library_is_needed(tmp_path, name, sizes, flags):
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: make boards")
    write_c(tmp_path, network(*sizes))
    # The compiler's own headers, and none of a C library.
    own = subprocess.run([found, "-print-file-name=include"], check=True, capture_output=True, text=True).stdout.strip()
    words = [found, *FLAGS, *flags, "-ffreestanding", "-nostdinc", "-isystem", own, "-c"]
    done = subprocess.run([*words, "kd_agent_0.c", "-o", "agent.o"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    symbols = subprocess.run(["nm", "agent.o"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert set(re.findall(r"U (\w+)", symbols)) <= {"memcpy", "memset"}
    public = {f"kd_agent_0_{part}" for part in PUBLIC}
    assert set(re.findall(r"[A-TV-Z] (\w+)", symbols)) == public, "everything else is static"


def test_a_program_with_one_agent_uses_the_generic_names(tmp_path):
    write_c(tmp_path, network(3, 4, 5))
    (tmp_path / "main.c").write_text(
        '#include "kd_agent_0.h"\n'
        "int main(void) {\n"
        "    float x[KD_AGENT_INPUTS] = {0}, logits[KD_AGENT_ACTIONS];\n"
        "    unsigned char all[KD_AGENT_ACTIONS] = {1};\n"
        "    unsigned char saved[KD_AGENT_SAVED_BYTES];\n"
        "    struct kd_agent_generator generator;\n"
        "    struct kd_agent agent;\n"
        "    kd_agent_init(&agent);\n"
        "    if (kd_agent_size() != KD_AGENT_WIDTH * sizeof(float) + 8 || KD_AGENT_FORMAT_VERSION != 2) return 1;\n"
        "    if (KD_AGENT_STACK_BYTES < 100 || kd_agent_on_fault(&agent, all) != KD_AGENT_NO_ACTION) return 2;\n"
        "    kd_agent_seed(&generator, 1, 2);\n"
        "    if (kd_agent_sample(&agent, x, all, &generator) != 0 || kd_agent_last_logits(&agent, logits)) return 3;\n"
        "    if (kd_agent_save(&agent, saved) || kd_agent_restore(&agent, saved, sizeof saved)) return 4;\n"
        "    return kd_agent_act(&agent, x, all) != 0 || kd_agent_logits(&agent, x, logits) != 0;\n"
        "}\n"
    )
    subprocess.run([compiler(), *FLAGS, "main.c", "kd_agent_0.c", "-o", "program"], cwd=tmp_path, check=True)
    subprocess.run([tmp_path / "program"], check=True)


def test_the_header_is_one_of_c_plus_plus_too(tmp_path):
    found = shutil.which("g++")
    if found is None:
        pytest.skip("g++ is not installed")
    write_c(tmp_path, network(3, 4, 5))
    (tmp_path / "main.cpp").write_text(
        '#include "kd_agent_0.h"\nint main() { kd_agent agent; kd_agent_init(&agent); return kd_agent_size() != 24; }\n'
    )
    subprocess.run([compiler(), "-c", "kd_agent_0.c"], cwd=tmp_path, check=True)
    subprocess.run([found, "-Wall", "-Werror", "main.cpp", "kd_agent_0.o", "-o", "program"], cwd=tmp_path, check=True)
    subprocess.run([tmp_path / "program"], check=True)


LIMITS = {32: (72 * 1024, 4 * 1024), 16: (36 * 1024, 2 * 1024)}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("width", LIMITS)
@pytest.mark.parametrize("inputs", [8, 128])
def test_flash_and_ram_are_within_the_formula_and_the_project_s_limits(tmp_path, width, inputs, level):
    step = network(inputs, width, 14)
    write_c(tmp_path, step)
    flash, ram = compiled_bytes(tmp_path, width, level=level)
    told = footprint(inputs, width, 14, level)
    assert told.weights == 4 * sum(parameter.numel() for parameter in step.parameters())
    assert flash <= told.flash <= flash + 5120 and told.flash <= LIMITS[width][0]
    assert ram <= told.ram <= LIMITS[width][1]


def test_the_lean_form_takes_a_few_hundred_bytes_of_stack(tmp_path):
    step = network(18, 32, 5)
    write_c(tmp_path, step)
    told = footprint(18, 32, 5, "Os")
    assert compiled_bytes(tmp_path, 32, level="Os")[1] - 4 * 32 - 8 <= told.stack <= 512
    header = (tmp_path / "kd_agent_0.h").read_text()
    assert f"STACK_BYTES {told.stack}\n" in header
    assert f"STACK_BYTES {footprint(18, 32, 5, 'O2').stack}\n" in header


def test_a_name_cannot_break_out_of_a_comment(tmp_path):
    step = network(2, 3, 2)
    write_c(tmp_path, step, name="*/ #error @PREFIX@ \n ünder")
    Program(tmp_path, step, "-O2")
