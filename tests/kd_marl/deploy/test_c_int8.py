"""The C with int8 weights: bit for bit the arithmetic of numpy, shipped only where it decides as float32 does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch

from deployed import FLAGS, PUBLIC, Program, compiled_bytes, compiler, episodes, network, write_c
from kd_core.costs.budget import Budget
from kd_core.costs.footprint import LEVELS, footprint
from kd_core.errors import UserError
from kd_marl.cli import main
from kd_marl.deploy import export as exporting
from kd_marl.deploy import int8 as trying
from kd_marl.deploy import replay
from kd_marl.deploy.check import check_bundle
from kd_marl.deploy.weights import agent_weights, largest_feature
from kd_onboard import OnboardAgent, int8, read_bundle
from kd_onboard.errors import BackendError, BundleError
from kd_onboard.numpy_backend import program_backend
from onboard_bundles import LIMIT, change_profile, replace_file, student

SIZES = ((18, 16, 5), (5, 7, 3))


def calibrated(sizes, seed=0, scale=3.0):
    """A network, its int8 numbers, their calibration, and features of all sizes."""
    step = network(*sizes, seed=seed, scale=scale)
    features, _ = episodes(sizes[0], sizes[2], count=2, length=30, seed=seed)
    calibration = int8.calibrate(agent_weights(step), features[0])
    powers = np.random.default_rng(seed).uniform(-4, 4, features.shape)
    wild = (features * 10.0**powers).astype(np.float32)
    wild[1, :3] = np.array([0.0, 1e-40, 0.99 * largest_feature(agent_weights(step))], np.float32)[:, None]
    return step, int8.quantise(agent_weights(step), calibration), calibration, np.concatenate([features, wild])


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("flags", [("-O2",), ("-Os",)], ids=" ".join)
def test_c_and_numpy_compute_the_same_bits(tmp_path, sizes, flags):
    step, numbers, calibration, features = calibrated(sizes)
    program = Program(write_c(tmp_path, step, calibration=calibration), step, *flags)
    assert program.size() == 2 * int8.padded(sizes[1]) + 8
    for episode in features:
        program.reset()
        state = np.zeros((1, sizes[1]), np.int16)
        for row in episode:
            logits, state = int8.step(numbers, row[None], state)
            status, written = program.logits(row)
            assert status == 0 and written.tobytes() == logits.tobytes()
            assert program.struct.view(np.int16)[: sizes[1]].tobytes() == state.tobytes()


def test_the_action_is_that_of_the_largest_available_logit(tmp_path):
    step, numbers, calibration, features = calibrated((18, 16, 5))
    program = Program(write_c(tmp_path, step, calibration=calibration), step, "-O2")
    _, available = episodes(18, 5, *features.shape[:2])
    _, actions = replay.run(replay.int8_step(numbers), features, available, 16)
    for row, may, expected in zip(features, available, actions, strict=True):
        program.reset()
        assert [program.act(*now) for now in zip(row, may, strict=True)] == expected.tolist()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e4, 1e18])
def test_int8_is_near_float32_whatever_the_scale_of_the_features(scale):
    step, numbers, _, features = calibrated((40, 24, 6), scale=1.0)
    weights = {**agent_weights(step)}
    weights["align.weight"] = (weights["align.weight"] / scale).astype(np.float32)
    scaled = (features[:2] * scale).astype(np.float32)
    numbers = int8.quantise(weights, int8.calibrate(weights, scaled[0]))
    expected, _ = replay.run(replay.torch_step(step), features[:2], np.ones((2, 30, 6), bool), 24)
    found, _ = replay.run(replay.int8_step(numbers), scaled, np.ones((2, 30, 6), bool), 24)
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_no_sum_overflows_however_wide_the_network_is():
    weights = {name: np.ones_like(part) for name, part in agent_weights(network(600, 600, 2)).items()}
    numbers = int8.quantise(weights, int8.calibrate(weights, np.ones((1, 600), np.float32)))
    rows = (numbers.align_weight, numbers.align_bias), (numbers.weight, numbers.bias)
    for weight, bias in rows:
        longest = np.abs(weight.astype(np.int64)).sum(1) * int8.MOST_VALUE + np.abs(bias.astype(np.int64))
        assert (1 << 29) < longest.max() < (1 << 31) - (1 << 17)


def test_weights_of_nothing_and_of_the_largest_numbers_have_numbers_too():
    for value in (0.0, 1e-45, 3e38, -3e38):
        weights = {name: np.full_like(part, value) for name, part in agent_weights(network(3, 4, 2)).items()}
        numbers = int8.quantise(weights, int8.Calibration((int8.MOST_EXPONENT, 0, int8.LEAST_EXPONENT), 1))
        logits, state = int8.step(numbers, np.array([[1.0, -2e30, 3e-30]], np.float32), np.zeros((1, 4), np.int16))
        assert np.isfinite(logits).all() and (np.abs(state.astype(int)) <= int8.MOST_VALUE).all()


def test_bad_input_is_refused_as_in_float32_and_a_damaged_memory_is_said(tmp_path):
    step, _, calibration, _ = calibrated((5, 8, 3))
    program = Program(write_c(tmp_path, step, calibration=calibration), step, "-O2")
    good, everything = np.ones(5, np.float32), np.ones(3)
    assert program.act(good, everything) == -4
    program.reset()
    assert program.act(good, everything) >= 0
    before = program.struct.tobytes()
    limit = largest_feature(agent_weights(step))
    for bad in (np.nan, np.inf, -np.inf, np.nextafter(limit, np.float32(np.inf)), -3e38):
        assert program.act(np.array([1, 1, bad, 1, 1], np.float32), everything) == -2
    assert program.act(good, np.zeros(3)) == -1
    assert program.struct.tobytes() == before
    program.struct.view(np.int16)[3] = -32768
    assert program.act(good, everything) == -3 and program.logits(good)[0] == -3


@pytest.mark.parametrize("name", ["gcc", "clang"])
@pytest.mark.parametrize("flags", [("-O0",), ("-O3",), ("-Os",)], ids=" ".join)
def test_strict_compilers_have_nothing_to_say_and_no_library_is_needed(tmp_path, name, flags):
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed: make boards")
    step, _, calibration, _ = calibrated((5, 7, 3))
    write_c(tmp_path, step, calibration=calibration)
    words = [name, *FLAGS, *flags, "-ffreestanding", "-c", "kd_agent_0.c", "-o", "agent.o"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    symbols = subprocess.run(["nm", "agent.o"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert set(re.findall(r"U (\w+)", symbols)) <= {"memcpy", "memset"}
    public = {f"kd_agent_0_{part}" for part in PUBLIC}
    assert set(re.findall(r"[A-TV-Z] (\w+)", symbols)) == public, "everything else is static"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("sizes", [(8, 16, 14), (128, 32, 14), (5, 7, 3)], ids=str)
def test_bytes_are_within_the_formula(tmp_path, sizes, level):
    step, _, calibration, _ = calibrated(sizes)
    write_c(tmp_path, step, calibration=calibration)
    flash, ram = compiled_bytes(tmp_path, sizes[1], level=level, state=2 * int8.padded(sizes[1]) + 8)
    told = footprint(*sizes, level, weights="int8")
    assert flash <= told.flash <= flash + 1536
    assert ram <= told.ram <= ram + 384


@pytest.fixture(scope="module")
def shipped(tiny_student, tmp_path_factory):
    """The tiny student's bundle with int8 C, whatever its agreement is."""
    folder = tmp_path_factory.mktemp("int8") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trying, "LEAST_AGREEMENT", 0.0)
        words = ["export", str(tiny_student.models), "--to", str(folder), "--no-latency", "--no-int8"]
        assert main([*words, "--c-weights", "int8"]) == 0
    return folder


def test_the_bundle_has_int8_c_its_costs_and_its_agreement_and_is_proved(shipped, tiny_bundle):
    bundle, others = check_bundle(shipped), json.loads((tiny_bundle / "profile.json").read_text())["agents"]
    for agent, plain in zip(bundle.profile.raw["agents"], others, strict=True):
        assert 0.0 <= agent["c"]["int8_agreement"] <= 1.0
        assert len(agent["c"]["int8"]["exponents"]) == agent["inputs"]
        told = footprint(agent["inputs"], agent["width"], len(agent["actions"]), weights="int8")
        assert (agent["flash_bytes"], agent["state_bytes"]) == (told.flash, told.state)
        assert agent["weights_bytes"] == plain["weights_bytes"] and "int8" not in plain["c"]
        assert "int8_t" in (shipped / agent["c"]["header"]).with_name(f"{agent['c']['prefix']}_weights.inc").read_text()


def test_the_runtime_plays_the_int8_c(shipped):
    compiler()
    bundle = read_bundle(shipped)
    for profile in bundle.agents:
        agent = OnboardAgent.load(bundle, profile.index, "c", trust=True)
        # What records episodes for boards.
        same = OnboardAgent(profile, program_backend(bundle.weights(profile), profile), "raise")
        numbers = int8.quantise(bundle.weights(profile), profile.c.int8)
        features, available = episodes(profile.inputs, profile.n_actions, 1, 20)
        _, actions = replay.run(replay.int8_step(numbers), features, available, profile.width)
        for player in (agent, same):
            player.reset()
            assert [player.act(*now) for now in zip(features[0], available[0], strict=True)] == actions[0].tolist()


def test_a_program_of_another_calibration_is_refused_as_it_is_loaded(shipped, tmp_path):
    compiler()
    profile = read_bundle(shipped).agents[0]
    library = tmp_path / "agent.so"
    words = [compiler(), "-O2", "-shared", "-fPIC", profile.c.sources[0], "-o", str(library)]
    subprocess.run(words, cwd=shipped, check=True)
    OnboardAgent.load(shipped, 0, "c", library)
    other = shutil.copytree(shipped, tmp_path / "bundle")
    change_profile(other, lambda values: values["agents"][0]["c"]["int8"]["exponents"].__setitem__(0, 3))
    with pytest.raises(BackendError, match="does not compute the network of agent 0"):
        OnboardAgent.load(other, 0, "c", library)


def test_a_budget_of_int8_weights_is_held_to_the_c_that_the_bundle_has(shipped, tiny_bundle, tmp_path):
    told = footprint(10, 12, 5, weights="int8")
    budget = Budget(flash_bytes=told.flash, ram_bytes=told.ram, weights="int8").to_dict()
    for bundle in (shipped, tiny_bundle):
        folder = shutil.copytree(bundle, tmp_path / bundle.parent.name)
        change_profile(folder, lambda values: values["agents"][1].update(budget=budget))
        if bundle == shipped:
            check_bundle(folder)
            continue
        with pytest.raises(BundleError, match="the budget is one of int8 weights, and its C has float32"):
            check_bundle(folder)


def _shift(values):
    values["agents"][1]["c"]["int8"]["align_shift"] += 1


def _power(values):
    values["agents"][1]["c"]["int8"]["exponents"][0] += 1


CONTRADICTIONS = {
    "is not what this version writes for agent 1": _power,
    "is not what this version writes for agent 1|does not hold the weights of agent 1": _shift,
    "expected .* whole numbers from -114 to 127, one a feature": lambda values: values["agents"][1]["c"]["int8"][
        "exponents"
    ].append(1),
    "align_shift.* expected a whole number from 1 to 17": lambda values: values["agents"][1]["c"]["int8"].update(
        align_shift=40
    ),
    "has state_bytes 56, the profile says 32": lambda values: values["agents"][1]["c"].pop("int8"),
}


@pytest.mark.parametrize("message", CONTRADICTIONS)
def test_a_calibration_that_is_not_that_of_the_sources_is_refused(shipped, tmp_path, message):
    folder = shutil.copytree(shipped, tmp_path / "bundle")
    change_profile(folder, CONTRADICTIONS[message])
    with pytest.raises(BundleError, match=message):
        check_bundle(folder)


def test_a_changed_weight_of_the_int8_c_is_refused(shipped, tmp_path):
    folder = shutil.copytree(shipped, tmp_path / "bundle")
    c = json.loads((folder / "profile.json").read_text())["agents"][0]["c"]
    path = f"{c['folder']}/{c['prefix']}_weights.inc"
    text = (folder / path).read_text()
    replace_file(folder, path, re.sub(r"(_scale\[\d+\] = \{\n    )(\d+)", r"\g<1>1\g<2>", text).encode())
    with pytest.raises(BundleError, match="does not hold the weights of agent 0"):
        check_bundle(folder)


def test_int8_c_that_agrees_too_little_is_not_shipped_and_a_line_says_what_to_do(
    tiny_student, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(trying, "LEAST_AGREEMENT", 1.01)
    words = ["export", str(tiny_student.models), "--to", str(tmp_path / "bundle"), "--no-latency", "--no-int8"]
    assert main([*words, "--c-weights", "int8"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"its C has float32 weights: with int8 weights [\d.]+ % of decisions are as in float32", said)
    assert "train the student with quantise=int8" in said
    agents = check_bundle(tmp_path / "bundle").profile.raw["agents"]
    assert all("int8" not in agent["c"] and agent["c"]["int8_agreement"] is not None for agent in agents)


def test_int8_c_without_an_expert_buffer_is_refused_in_one_line(tmp_path):
    options = exporting.Options(int8=False, latency=False, c_weights="int8")
    with pytest.raises(UserError, match="none was found: name it with --buffer, or give --c-weights float32"):
        exporting.export(student(), tmp_path / "bundle", LIMIT, None, options)


def test_the_agreement_is_measured_in_episodes_that_the_calibration_has_not_seen():
    step = network(6, 8, 4)
    features, available = episodes(6, 4, count=4, length=40)
    seen = replay.Seen(features, available, available.sum(-1) > 1)
    found = trying.calibrate_checked(agent_weights(step), [seen])
    other = replace(seen, features=np.where(np.arange(4)[:, None, None] % 2, 100 * features, features))
    assert trying.calibrate_checked(agent_weights(step), [other]).calibration in (found.calibration, None)
    one = replay.Seen(features[:1], available[:1], seen.acting[:1])
    assert trying.calibrate_checked(agent_weights(step), [one]) == trying.Calibrated(None, (None,))
    with torch.no_grad():
        step.fc2.weight.zero_()
        step.fc2.bias.zero_()
    assert trying.calibrate_checked(agent_weights(step), [seen]).agreement == (1.0,)
