"""Weights that a program loads and the test that it makes of itself: right ones are taken, all others are refused."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from deployed import FLAGS, Program, compiler, episodes, network, write_c, written
from kd_marl.deploy import selftest
from kd_marl.deploy.loadable import weights_file
from kd_marl.deploy.program import Named
from kd_marl.deploy.replay import Seen
from kd_marl.deploy.weights import agent_weights
from kd_onboard import int8

NOT_INITIALISED, OTHER_WEIGHTS, BAD_WEIGHTS, FOREIGN_WEIGHTS, MISALIGNED = -4, -6, -7, -8, -9
SIZES = (6, 8, 5)
LOADABLE = ("-DKD_AGENT_LOADABLE", "-DKD_AGENT_SELF_TEST")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_c(tmp_path_factory.mktemp("agent"), network(*SIZES))


@pytest.fixture(scope="module")
def file(folder):
    return (folder / "kd_agent_0_weights.bin").read_bytes()


@pytest.fixture
def loading(folder, tmp_path):
    """A program without weights, of its own for each test: what was loaded stays in it."""
    shutil.copytree(folder, tmp_path / "agent")
    return Program(tmp_path / "agent", network(*SIZES), "-O2", *LOADABLE)


def decisions(program, seed=0):
    program.reset()
    features, available = (part[0] for part in episodes(SIZES[0], SIZES[2], count=1, length=40, seed=seed))
    actions = [program.act(*now) for now in zip(features, available, strict=True)]
    return actions, program.last_logits()[1].tobytes()


def test_loaded_weights_compute_what_compiled_ones_do_and_are_replaced_without_a_compiler(folder, loading, file):
    compiled = Program(folder, network(*SIZES), "-O2")
    good, everything = np.ones(SIZES[0]), np.ones(SIZES[2])
    loading.reset()
    assert loading.act(good, everything) == NOT_INITIALISED and loading.test() == OTHER_WEIGHTS
    assert loading.last_logits()[0] == loading.save()[0] == NOT_INITIALISED
    assert loading.restore(compiled.save()[1]) != 0
    assert loading.load(file) == 0
    assert loading.act(good, everything) == NOT_INITIALISED, "it was initialised before the weights came"
    assert decisions(loading) == decisions(compiled)
    assert loading.test() == 0
    saved = loading.save()[1]
    assert compiled.restore(saved) == 0 and compiled.struct.tobytes()[:-8] == loading.struct.tobytes()[:-8]
    # Another student of the same agent, in a page of flash that is larger than the file.
    other = network(*SIZES, seed=1)
    later = weights_file(written(other))
    assert loading.load(later + b"\xff" * 500) == 0
    assert loading.act(good, everything) == NOT_INITIALISED, "its memory is that of the weights before"
    assert loading.restore(saved) == OTHER_WEIGHTS
    actions, _ = decisions(loading)
    assert actions != decisions(compiled)[0] and loading.test() == OTHER_WEIGHTS


def resealed(file, place, data):
    body = file[:place] + data + file[place + len(data) : -4]
    return body + struct.pack("<I", zlib.crc32(body))


HOSTILE = {
    "nothing": (lambda file: b"", BAD_WEIGHTS),
    "a header alone": (lambda file: file[:48], BAD_WEIGHTS),
    "half a header": (lambda file: file[:47], BAD_WEIGHTS),
    "cut": (lambda file: file[:-1], BAD_WEIGHTS),
    "a flipped bit of a weight": (lambda file: file[:100] + bytes([file[100] ^ 1]) + file[101:], BAD_WEIGHTS),
    "a flipped bit of the bound": (lambda file: file[:20] + bytes([file[20] ^ 1]) + file[21:], BAD_WEIGHTS),
    "a flipped bit of the end": (lambda file: file[:-1] + bytes([file[-1] ^ 128]), BAD_WEIGHTS),
    "erased flash": (lambda file: b"\xff" * len(file), BAD_WEIGHTS),
    "another version": (lambda file: resealed(file, 3, b"\2"), BAD_WEIGHTS),
    "numbers of another kind": (lambda file: resealed(file, 40, b"\1"), BAD_WEIGHTS),
    "another length": (lambda file: resealed(file, 44, b"\0\1"), BAD_WEIGHTS),
    "other inputs": (lambda file: resealed(file, 4, b"\7"), FOREIGN_WEIGHTS),
    "another width": (lambda file: resealed(file, 8, b"\0\0\1"), FOREIGN_WEIGHTS),
    "other actions": (lambda file: resealed(file, 12, b"\xff\xff\xff\xff"), FOREIGN_WEIGHTS),
    "other features": (lambda file: resealed(file, 16, b"\0\0\0\0"), FOREIGN_WEIGHTS),
    "not a number": (lambda file: resealed(file, 52, struct.pack("<f", float("nan"))), BAD_WEIGHTS),
    "infinity": (lambda file: resealed(file, len(file) - 8, struct.pack("<f", float("-inf"))), BAD_WEIGHTS),
}


def test_a_file_that_is_not_the_agents_is_refused_and_what_was_loaded_stays(loading, file):
    assert loading.load(file) == 0
    kept, before = loading.buffer, decisions(loading)
    for name, (change, code) in HOSTILE.items():
        assert loading.load(change(file)) == code, name
    for offset in (1, 2, 3):
        assert loading.load(file, offset=offset) == MISALIGNED
    assert loading._load(None, 1 << 20) == MISALIGNED
    assert loading.load(file, size=len(file) - 4) == BAD_WEIGHTS
    assert decisions(loading) == before and kept is not loading.buffer


def test_every_cut_and_every_flipped_bit_of_a_file_is_found(loading, file):
    for size in range(0, len(file), 97):
        assert loading.load(file[:size]) == BAD_WEIGHTS
    for place in range(0, len(file), 13):
        changed = bytearray(file)
        changed[place] ^= 1 << place % 8
        assert loading.load(bytes(changed)) in (BAD_WEIGHTS, FOREIGN_WEIGHTS)


def test_features_of_another_meaning_make_another_contract():
    toy = written(network(*SIZES))
    features, actions = toy.features, toy.actions
    swapped = [features[1], features[0], *features[2:]]
    feet = [{**row, "unit": "ft"} for row in features]
    changes = ({}, {"task": "other"}, {"features": swapped}, {"features": feet}, {"actions": [None, *actions[1:]]})
    assert len({weights_file(replace(toy, **change))[16:20] for change in changes}) == len(changes)


@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_strict_compilers_have_nothing_to_say_of_loading_and_testing(folder, tmp_path, name):
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: make boards")
    for macros in (LOADABLE[:1], LOADABLE[1:], LOADABLE):
        for level in ("-O2", "-Os"):
            words = [found, *FLAGS, level, *macros, "-ffreestanding", "-c", "kd_agent_0.c", "-o", str(tmp_path / "x.o")]
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0 and not done.stderr, done.stderr
    symbols = subprocess.run(["nm", str(tmp_path / "x.o")], check=True, capture_output=True, text=True).stdout
    assert set(re.findall(r"U (\w+)", symbols)) <= {"memcpy", "memset"}


def test_a_file_of_options_serves_builds_that_give_no_flags(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "agent")
    (tmp_path / "agent/kd_agent_config.h").write_text("#define KD_AGENT_SELF_TEST\n")
    program = Program(tmp_path / "agent", network(*SIZES), "-O2")
    assert program.test() == 0


def test_the_test_tells_the_first_step_that_differs(folder, tmp_path):
    """A program that was compiled to compute something else, or whose weights were damaged."""
    steps = selftest.choose(agent_weights(network(*SIZES)), [])
    assert len(steps.actions) == selftest.STEPS and len(set(steps.actions.tolist())) > 2
    for step in (0, 3, selftest.STEPS - 1):
        shutil.copytree(folder, tmp_path / f"{step}")
        actions = steps.actions.copy()
        actions[step] = (actions[step] + 1) % SIZES[2]
        changed = selftest.Steps(steps.features, steps.available, actions)
        path = tmp_path / f"{step}/kd_agent_0_test.inc"
        path.write_text(selftest.text(changed, Named(".", "kd_agent_0"), "agent_0"))
        assert Program(tmp_path / f"{step}", network(*SIZES), "-O2", LOADABLE[1]).test() == step + 1
    shutil.copytree(folder, tmp_path / "negated")
    source = tmp_path / "negated/kd_agent_0_weights.inc"
    source.write_text(source.read_text().replace("-0x", "0x"))
    assert Program(tmp_path / "negated", network(*SIZES), "-O2", LOADABLE[1]).test() > 0


def test_steps_are_those_of_an_episode_of_the_buffer_in_which_the_agent_does_most():
    step = network(*SIZES)
    features, available = episodes(SIZES[0], SIZES[2], count=6, length=12)
    features[2, 5] = np.inf
    available[4, 3] = False
    steps = selftest.choose(agent_weights(step), [Seen(features, available, available.any(-1))])
    matches = [e for e in range(6) if (features[e, : len(steps.actions)] == steps.features).all()]
    assert len(matches) == 1 and np.isfinite(steps.features).all() and steps.available.any(1).all()
    assert (available[matches[0], : len(steps.actions)] == steps.available).all()


def test_a_network_without_a_clear_choice_is_tested_where_it_has_none(tmp_path):
    step = network(*SIZES)
    with torch.no_grad():
        step.fc2.weight.zero_()
        step.fc2.bias.zero_()
    program = Program(write_c(tmp_path, step), step, "-O2", LOADABLE[1])
    assert program.test() == 0
    written = (tmp_path / "kd_agent_0_test.inc").read_bytes()
    assert b"TEST_STEPS 1\n" in written
    assert selftest.fault(written, agent_weights(step), Named(".", "kd_agent_0"), "agent_0") == ""


WRONG = {
    "another action": lambda text: re.sub(r"(actions\[\w+\] = \{\n    )(\d)", r"\g<1>4", text),
    "code": lambda text: text + "int kd_agent_0_more(void) { return 1; }\n",
    "code before": lambda text: text.replace("#define", "static int more;\n#define", 1),
    "fewer steps": lambda text: text.replace("TEST_STEPS 8", "TEST_STEPS 7"),
    "a wider row": lambda text: text.replace("    {1, ", "    {1, 1, ", 1),
    "a number in another form": lambda text: text.replace("    {1, ", "    {01, ", 1),
    "not a number": lambda text: re.sub(r"-?0x1\.\w+[+-]?\w+", "NAN", text, count=1),
    "too large": lambda text: re.sub(r"0x1(\.\w*)?p[+-]\d+f", "0x1.0p+127f", text, count=1),
    "nothing": lambda text: "",
    "no end": lambda text: text + " " * (1 << 20),
    "other bytes": lambda text: text.replace("agent_0", "ágent_0", 1),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_list_of_steps_that_proves_nothing_is_refused(folder, name):
    weights, named = agent_weights(network(*SIZES)), Named(".", "kd_agent_0")
    text = (folder / "kd_agent_0_test.inc").read_text()
    assert selftest.fault(text.encode(), weights, named, "agent_0") == ""
    changed = WRONG[name](text)
    assert changed != text
    assert selftest.fault(changed.encode(), weights, named, "agent_0")
    assert selftest.fault(text.encode(), agent_weights(network(*SIZES, seed=1)), named, "agent_0")


def test_the_int8_form_tests_itself_with_steps_of_its_own_and_loads_nothing(tmp_path):
    step = network(*SIZES)
    calibration = int8.calibrate(agent_weights(step), episodes(SIZES[0], 1, count=1, length=100)[0][0])
    folder = write_c(tmp_path, step, calibration=calibration)
    assert Program(folder, step, "-O2", LOADABLE[1]).test() == 0
    written, named = (folder / "kd_agent_0_test.inc").read_bytes(), Named(".", "kd_agent_0")
    assert selftest.fault(written, agent_weights(step), named, "agent_0", calibration) == ""
    words = [compiler(), *FLAGS, LOADABLE[0], "-c", "kd_agent_0.c"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode and "int8 weights are part of their program: leave KD_AGENT_LOADABLE out" in done.stderr
