"""Sampled actions, logits and saved memories of the C program: as in `kd_onboard`, and hostile bytes refused."""

from __future__ import annotations

import math
import re
import struct
import zlib

import numpy as np
import pytest

from deployed import Program, episodes, network, write_c
from kd_marl.deploy.weights import agent_weights
from kd_onboard import Generator, OnboardError, SavedError, int8, memory
from kd_onboard.sampling import MOST_SEED, draw
from kd_onboard.tensors import weights_digest

NO_ACTION, BAD_FEATURE, BAD_STATE, NOT_INITIALISED, BAD_SAVE, OTHER_WEIGHTS = -1, -2, -3, -4, -5, -6
SIZES = (6, 8, 5)
SEEDS = [(0, 0), (42, 54), (MOST_SEED, MOST_SEED), (1 << 63, 1)]


@pytest.fixture(scope="module")
def in_int8(tmp_path_factory):
    """The form with int8 weights."""
    step = network(*SIZES)
    return Program(write_c(tmp_path_factory.mktemp("int8"), step, calibration=calibration()), step, "-O2")


def calibration():
    return int8.calibrate(agent_weights(network(*SIZES)), episodes(SIZES[0], 1, count=1, length=100)[0][0])


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    step = network(*SIZES)
    return Program(write_c(tmp_path_factory.mktemp("agent"), step), step, "-O2")


def test_random_numbers_are_those_of_the_published_generator():
    """The first numbers of its reference program, which is seeded with 42 and 54 as here."""
    generator = Generator(0)
    generator._state, generator._increment = 0, 54 << 1 | 1
    generator.next()
    generator._state += 42
    generator.next()
    assert [generator.next() for _ in range(5)] == [0xA15C02B7, 0x7B47F409, 0xBA1D3330, 0x83D2F293, 0xBFA4784B]


@pytest.mark.parametrize("flags", [("-O2",), ("-O3", "-march=native", "-ffast-math"), ("-Os",)], ids=" ".join)
def test_the_same_seed_draws_the_same_actions_in_c_and_in_python(tmp_path, flags):
    """However the C is compiled: logits that are equal, to the bit, are all that is needed."""
    step = network(*SIZES)
    program = Program(write_c(tmp_path, step), step, *flags)
    features, available = (part[0] for part in episodes(SIZES[0], SIZES[2], count=1, length=200))
    sequences = set()
    for seed, stream in SEEDS:
        program.reset()
        program.seed(seed, stream)
        generator, drawn, best = Generator(seed, stream), [], []
        for row, may in zip(features, available, strict=True):
            drawn.append(program.sample(row, may))
            status, logits = program.last_logits()
            assert status == 0 and drawn[-1] == draw(logits, may, generator) and may[drawn[-1]]
            best.append(int(np.where(may, logits, -np.inf).argmax()))
        assert drawn != best
        sequences.add(tuple(drawn))
    assert len(sequences) == len(SEEDS)
    program.reset()
    program.seed(*SEEDS[-1])
    assert [program.sample(*now) for now in zip(features, available, strict=True)] == drawn


def test_close_seeds_and_streams_begin_otherwise():
    given = [(seed, stream) for seed in range(50) for stream in range(50)]
    first = [Generator(*pair).next() for pair in given]
    assert len(set(first)) == len(given)
    bits = np.array([[number >> bit & 1 for bit in range(32)] for number in first])
    assert (np.abs(bits.mean(0) - 0.5) < 5 * 0.5 / len(given) ** 0.5).all()


def test_actions_are_drawn_by_the_softmax():
    logits = np.array([0.0, 1.0, -2.0, 5.0, -30.0, 0.5], np.float32)
    available = np.array([1, 1, 1, 0, 1, 1], bool)
    generator, count = Generator(3), 40_000
    found = np.bincount([draw(logits, available, generator) for _ in range(count)], minlength=6)
    weights = np.where(available, np.exp(logits.astype(float)), 0)
    expected = weights / weights.sum()
    assert found[3] == found[4] == 0
    # Five standard deviations.
    assert (np.abs(found / count - expected) <= 5 * np.sqrt(expected * (1 - expected) / count) + 1e-9).all()


def test_the_weights_of_actions_are_exponentials():
    """Of one action beside the best one, by how often the numbers of an even generator fall to it."""
    from kd_onboard.sampling import _weight

    for below in np.linspace(0, 19.99, 400):
        assert _weight(float(below)) / 2**30 == pytest.approx(math.exp(-below), rel=3e-7, abs=1 / 2**30)
    assert _weight(20.0) == 0


@pytest.mark.parametrize("logits", [[1e30, -1e30, 0.0], [-3e38, 3e38, 3e38], [0.0, -0.0, 0.0]])
def test_logits_far_apart_leave_the_largest(logits):
    given, generator = np.array(logits, np.float32), Generator(0)
    found = {draw(given, np.ones(3, bool), generator) for _ in range(50)}
    assert found == set(np.flatnonzero(given == given.max()).tolist())


@pytest.mark.parametrize("seed", [-1, 1 << 64, 1.0, True, None, "1"])
def test_a_seed_that_is_none_is_one_line(seed):
    with pytest.raises(OnboardError, match=r"the seed of a generator is .+, expected a whole number below 2\^64"):
        Generator(seed)
    with pytest.raises(OnboardError, match="the stream of a generator"):
        Generator(0, seed)


def test_a_fault_draws_nothing_and_leaves_agent_and_generator_as_they_were(program):
    program.reset()
    program.generator[:] = 0
    good, everything = np.ones(SIZES[0]), np.ones(SIZES[2])
    assert program.sample(good, everything) == NOT_INITIALISED, "the generator has no seed"
    program.seed(5)
    before = program.generator.tobytes(), program.struct.tobytes()
    assert program.sample(np.full(SIZES[0], np.nan), everything) == BAD_FEATURE
    assert program.sample(good, np.zeros(SIZES[2])) == NO_ACTION
    assert (program.generator.tobytes(), program.struct.tobytes()) == before
    assert program.sample(good, np.arange(SIZES[2]) == 3) == 3 and program.on_fault(everything) == NO_ACTION


def test_the_logits_of_the_decision_before_are_those_it_was_made_by(program):
    program.reset()
    for row in episodes(SIZES[0], SIZES[2], count=1, length=5)[0][0]:
        stepped = program.logits(row)[1]
        assert program.last_logits()[1].tobytes() == stepped.tobytes()
    program.state[0] = np.nan
    assert program.last_logits()[0] == BAD_STATE
    program.struct[:] = 0
    assert program.last_logits()[0] == NOT_INITIALISED


def test_a_memory_goes_from_c_to_python_and_back(program):
    digest = weights_digest(agent_weights(network(*SIZES)))
    program.reset()
    features, available = (part[0] for part in episodes(SIZES[0], SIZES[2], count=1, length=20))
    for now in zip(features[:10], available[:10], strict=True):
        last = program.act(*now)
    status, saved = program.save()
    assert status == 0
    state, found, _ = memory.unpack(saved, np.zeros(SIZES[1], np.float32), SIZES[2], digest, "agent 0")
    assert state.tobytes() == program.state.tobytes() and found == last
    assert memory.pack(state, last, digest) == saved
    before = program.struct.tobytes()
    rest = [program.act(*now) for now in zip(features[10:], available[10:], strict=True)]
    program.reset()
    assert program.restore(saved) == 0 and program.struct.tobytes() == before
    assert [program.act(*now) for now in zip(features[10:], available[10:], strict=True)] == rest
    program.reset()
    assert memory.unpack(program.save()[1], np.zeros(SIZES[1], np.float32), SIZES[2], digest, "agent 0")[1] is None


def test_the_int8_form_draws_saves_and_restores_too(in_int8, program):
    features, available = (part[0] for part in episodes(SIZES[0], SIZES[2], count=1, length=60))
    in_int8.reset()
    in_int8.seed(3)
    generator = Generator(3)
    for now in zip(features[:20], available[:20], strict=True):
        last = in_int8.sample(*now)
        assert last == draw(in_int8.last_logits()[1], now[1], generator)
    status, saved = in_int8.save()
    before = in_int8.struct.tobytes()
    assert status == 0
    rest = [in_int8.act(*now) for now in zip(features[20:], available[20:], strict=True)]
    in_int8.reset()
    assert in_int8.restore(saved) == 0 and in_int8.struct.tobytes() == before
    assert [in_int8.act(*now) for now in zip(features[20:], available[20:], strict=True)] == rest
    digest, like = int8.program_digest(agent_weights(network(*SIZES)), calibration()), np.zeros(SIZES[1], np.int16)
    for word in (b"\0\x80\xff\xff", b"\0\x80\0\0", b"\0\0\1\0", b"\0\0\0\x80"):
        assert in_int8.restore(with_bytes(saved, 24, word)) == BAD_SAVE
        with pytest.raises(SavedError, match="no agent of this bundle"):
            memory.unpack(with_bytes(saved, 24, word), like, SIZES[2], digest, "agent 0")
    state, found, _ = memory.unpack(saved, like, SIZES[2], digest, "agent 0")
    assert memory.pack(state, found, digest) == saved
    # A memory of one form is none of the other.
    program.reset()
    assert program.restore(saved) == OTHER_WEIGHTS and in_int8.restore(program.save()[1]) == OTHER_WEIGHTS


def sealed(body):
    return body + struct.pack("<I", zlib.crc32(body))


def with_bytes(saved, place, data):
    return sealed(saved[:place] + data + saved[place + len(data) : -4])


NAN, TWO = struct.pack("<f", math.nan), struct.pack("<f", 2.0)
HOSTILE = {
    "nothing": (lambda saved: b"", BAD_SAVE, "are no saved memory"),
    "cut": (lambda saved: saved[:-1], BAD_SAVE, "is damaged"),
    "longer": (lambda saved: saved + b"\0", BAD_SAVE, "is damaged"),
    "a flipped bit": (lambda saved: saved[:30] + bytes([saved[30] ^ 1]) + saved[31:], BAD_SAVE, "is damaged"),
    "another form": (lambda saved: with_bytes(saved, 3, b"\2"), BAD_SAVE, "are no saved memory"),
    "other weights": (lambda saved: with_bytes(saved, 4, b"0123456789abcdef"), OTHER_WEIGHTS, "with other weights"),
    "an action that is none": (lambda saved: with_bytes(saved, 20, b"\5\0\0\0"), BAD_SAVE, "no agent of this bundle"),
    "a negative action": (lambda saved: with_bytes(saved, 20, b"\xfe\xff\xff\xff"), BAD_SAVE, "no agent of"),
    "not a number": (lambda saved: with_bytes(saved, 24, NAN), BAD_SAVE, "no agent of this bundle"),
    "beyond one": (lambda saved: with_bytes(saved, 24 + 4 * 7, TWO), BAD_SAVE, "no agent of this bundle"),
    "one unit more": (lambda saved: sealed(saved[:-4] + bytes(4)), BAD_SAVE, "no agent of this bundle"),
    "one unit less": (lambda saved: sealed(saved[:-8]), BAD_SAVE, "no agent of this bundle"),
    "bytes left over": (lambda saved: sealed(saved[:-4] + b"\0"), BAD_SAVE, "no agent of this bundle"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_memory_that_no_agent_of_these_weights_saved_is_refused_and_changes_nothing(program, name):
    change, code, message = HOSTILE[name]
    program.reset()
    program.act(np.ones(SIZES[0]), np.ones(SIZES[2]))
    before, saved = program.struct.tobytes(), program.save()[1]
    assert program.restore(change(saved)) == code
    assert program.struct.tobytes() == before
    with pytest.raises(SavedError, match=f"^agent 0: the .*{message}"):
        digest = weights_digest(agent_weights(network(*SIZES)))
        memory.unpack(change(saved), np.zeros(SIZES[1], np.float32), SIZES[2], digest, "agent 0")


def test_what_has_no_memory_saves_none(program):
    program.struct[:] = 0
    assert program.save() == (NOT_INITIALISED, bytes(28 + 4 * SIZES[1]))


@pytest.mark.parametrize("flags", [("-O2",), ("-Os",)], ids=" ".join)
def test_sampling_takes_no_more_stack_than_the_header_says(tmp_path, flags):
    """Its own frame and that of the draw, above which is the step, as in `act`."""
    step = network(18, 32, 24)
    Program(write_c(tmp_path, step), step, *flags, "-fstack-usage", "-fno-inline")
    usage = (tmp_path / "kd_agent_0.su").read_text()
    frames = {name: int(n) for name, n in re.findall(r":kd_agent_0_(\w+)\t(\d+)\tstatic", usage)}
    above = frames["draw"] + max(frames["random"], frames["share"])
    assert frames["sample"] + above <= frames["act"] + frames["choose"] + 4 * 24 + 128
    assert frames["sample"] <= 4 * 24 + 128
