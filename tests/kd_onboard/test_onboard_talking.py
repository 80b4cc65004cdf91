"""Agents that talk: they say and do what the torch network does, and what is missing or malformed is silence."""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import numpy as np
import pytest

from kd_controllers.messages import Messages
from kd_onboard import BundleError, FaultError, Generator, OnboardAgent, SavedError, TalkingAgent, read_bundle
from onboard_bundles import LINKS, change_profile, talking_student, write_bundle, write_talking_bundle
from talking_parity import compared, random_episodes

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
STRICT = "-pedantic-errors -Wall -Wextra -Werror -Wconversion -Wmissing-prototypes -Wshadow -Wcast-qual"
RADIO = Messages(10, LINKS, latency=2, every=2)
# Three numbers, of which the last fills half a byte.
NUMBERS = Messages(12, LINKS, number_bits=4)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_ONBOARD_CACHE", str(tmp_path_factory.mktemp("compiled")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_talking_bundle(tmp_path_factory.mktemp("bundles") / "spread", RADIO)


@pytest.fixture
def agent(folder):
    """The one that hears two others and that nobody hears would say nothing: this one hears one and speaks."""
    return OnboardAgent.load(folder, 0)


@pytest.mark.parametrize(
    ("backend", "flags"),
    [
        ("numpy", ""),
        ("onnx", ""),
        ("c", f"-O2 {STRICT}"),
        ("c", f"-Os {STRICT}"),
        ("c", f"-DKD_AGENT_LEAN_STACK {STRICT}"),
    ],
)
@pytest.mark.parametrize("radio", [RADIO, NUMBERS, Messages(6, LINKS, number_bits=2)], ids=["signs", "4", "2"])
def test_every_backend_says_and_does_what_the_torch_network_does(tmp_path, monkeypatch, backend, flags, radio):
    if backend == "c" and shutil.which("cc") is None:
        pytest.skip("no C compiler is installed")
    monkeypatch.setenv("KD_ONBOARD_CFLAGS", flags)
    run = talking_student(radio)
    folder = write_talking_bundle(tmp_path / "spread", radio)
    counts = compared(run, folder, backend, *random_episodes(run, 8, 25), loss=0.3)
    assert counts["actions"] == 600 and counts["bits"] > 1500 and counts["near"] < 3


def test_messages_are_numbers_of_bytes_that_need_not_fill_the_last(tmp_path):
    for bits, backend in ((1, "c"), (8, "onnx")):
        radio = Messages(bits, LINKS)
        bundle = write_talking_bundle(tmp_path / str(bits), radio)
        run = talking_student(radio)
        counts = compared(run, bundle, backend, *random_episodes(run, 2, 25))
        assert counts["bits"] and OnboardAgent.load(bundle, 0).profile.messages.payload_bytes == 1


def test_a_silent_agent_is_called_as_ever_and_its_c_knows_no_messages(tmp_path, folder):
    bundle = write_bundle(tmp_path / "silent")
    assert type(OnboardAgent.load(bundle, 0)) is OnboardAgent and type(OnboardAgent.load(folder, 0)) is TalkingAgent
    for file in (bundle / "c").rglob("*.?"):
        text = file.read_text()
        assert not any(word in text for word in ("inbox", "outbox", "turn;", "MESSAGE")), file


def test_what_is_malformed_counts_as_missing_and_what_is_no_inbox_is_a_fault(agent):
    features, available = np.ones(3, np.float32), np.ones(5, bool)
    said = []
    for wrong in (None, b"", b"\1", b"\1\2\3", "ab", 7, bytearray(2)):
        agent.reset()
        said.append(agent.act(features, available, [wrong]))
    assert len(set(said)) == 1 and agent.malformed == 6
    # Bits behind the last mean nothing.
    for message in (b"\xff\x03", b"\xff\xff"):
        agent.reset()
        said.append((agent.act(features, available, [message]), agent.act(features, available, [message])))
    assert said[-1] == said[-2]
    for wrong, named in (([], "0 messages"), ([None, None], "2 messages"), (b"ab", "a bytes"), (None, "a NoneType")):
        with pytest.raises(FaultError, match=f"an inbox of {named} given, expected a list of 1"):
            agent.act(features, available, wrong)


@pytest.mark.parametrize("backend", ["numpy", "onnx", "c"])
def test_a_fault_says_nothing_and_neither_state_nor_turn_moves(folder, tmp_path, backend):
    if backend == "c" and shutil.which("cc") is None:
        pytest.skip("no C compiler is installed")
    held = write_talking_bundle(tmp_path / "held", RADIO, on_fault="hold")
    with_fault, without = (OnboardAgent.load(bundle, 0, backend, trust=True) for bundle in (held, folder))
    rng, available = np.random.default_rng(1), np.ones(5, bool)
    given = [(rng.standard_normal(3).astype(np.float32), [rng.bytes(2)]) for _ in range(6)]
    expected = [without.act(features, available, inbox) for features, inbox in given]
    found = []
    for features, inbox in given:
        found.append(with_fault.act(features, available, inbox))
        last = found[-1][0]
        assert with_fault.act(np.full(3, np.nan, np.float32), available, inbox) == (last, None)
        assert with_fault.act(features, available, []) == (last, None)
    assert found == expected and [message is None for _, message in found] == [False, True] * 3
    assert with_fault.faults == 12


def test_an_agent_without_a_choice_is_silent(agent):
    features, one = np.ones(3, np.float32), np.array([0, 0, 1, 0, 0], bool)
    assert agent.act(features, one, [None]) == (2, None)
    agent.reset()
    assert agent.act(features, np.ones(5, bool), [None])[1] is not None


def _messages(agent, key, value):
    def change(profile):
        profile["agents"][agent]["messages"][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_messages(1, "bits", 11), "agent 0 ('agent_0') and agent 1 ('agent_1') disagree on messages: bits 10 and 11"),
        (_messages(2, "latency", 1), "disagree on messages: latency 2 and 1"),
        (_messages(0, "every", 1), "disagree on messages: every 1 and 2"),
        (_messages(0, "number_bits", 2), "disagree on messages: number_bits 2 and 1"),
        (_messages(0, "number_bits", 4), "'number_bits' is 4, expected 1, 2 or 4, and a divisor of bits (10)"),
        (_messages(0, "number_bits", 3), "'number_bits' is 3, expected 1, 2 or 4"),
        (_messages(2, "hears", [0]), "agent 1 ('agent_1') and agent 2 ('agent_2') disagree on a link"),
        (_messages(0, "hears", [1, 2]), "agent 0 ('agent_0') and agent 2 ('agent_2') disagree on a link"),
        (_messages(0, "hears", [0]), "'hears' is [0], expected other agents than 0, from 0 to 2"),
        (_messages(0, "hears", [3]), "'hears' is [3], expected other agents"),
        (_messages(2, "hears", [1, 0]), "each agent once, in their order"),
        (_messages(0, "bits", 0), "'bits' is 0, expected a whole number from 1"),
        (_messages(0, "bits", 2.5), "'bits' is 2.5, expected a whole number"),
        (lambda profile: profile["agents"][2].pop("messages"), "disagree on a link"),
    ],
)
def test_agents_that_disagree_on_bits_or_links_are_refused(folder, tmp_path, change, named):
    bundle = shutil.copytree(folder, tmp_path / "bundle")
    change_profile(bundle, change)
    with pytest.raises(BundleError) as error:
        read_bundle(bundle)
    assert named in str(error.value) and "\n" not in str(error.value)


def test_weights_of_other_bits_than_the_profile_has_are_refused(folder, tmp_path):
    bundle = shutil.copytree(folder, tmp_path / "bundle")

    def change(profile):
        for agent in profile["agents"]:
            agent["messages"]["bits"] = 12

    change_profile(bundle, change)
    with pytest.raises(BundleError, match=r"hear.weight"):
        read_bundle(bundle)


@pytest.mark.parametrize("backend", ["numpy", "onnx", "c"])
def test_a_saved_memory_has_the_turn_and_drawn_actions_have_messages(folder, backend):
    if backend == "c" and shutil.which("cc") is None:
        pytest.skip("no C compiler is installed")
    first, second = OnboardAgent.load(folder, 0, backend, trust=True), OnboardAgent.load(folder, 0)
    rng, available = np.random.default_rng(2), np.ones(5, bool)
    given = [(rng.standard_normal(3).astype(np.float32), available, [rng.bytes(2)]) for _ in range(5)]
    first.act(*given[0])
    saved = first.save()
    second.restore(saved)
    assert second.save() == saved
    generators = Generator(1, 1), Generator(1, 1)
    found, expected = (
        [agent.sample(*row, generator) for row in given[1:]]
        for agent, generator in zip((first, second), generators, strict=True)
    )
    assert found == expected and [message is None for _, message in found] == [True, False] * 2
    for wrong in (saved[:-1], saved[:-8] + saved[-4:], saved[:-8] + b"\2" + saved[-7:]):
        with pytest.raises(SavedError):
            second.restore(wrong)


def test_a_board_loads_the_weights_and_tests_itself(folder, tmp_path):
    cc = shutil.which("cc")
    if cc is None:
        pytest.skip("no C compiler is installed")
    source = folder / "c" / "agent_0"
    options = ["-DKD_AGENT_LOADABLE", "-DKD_AGENT_SELF_TEST", "-shared", "-fPIC", "-O2", "-std=c99", *STRICT.split()]
    subprocess.run([cc, *options, "kd_agent_0.c", "-o", str(tmp_path / "agent.so")], cwd=source, check=True)
    program = ctypes.CDLL(str(tmp_path / "agent.so"))
    data = (source / "kd_agent_0_weights.bin").read_bytes()
    weights = np.frombuffer(data, np.uint8).copy()
    assert program.kd_agent_0_load(ctypes.c_void_p(weights.ctypes.data), ctypes.c_size_t(len(data))) == 0
    assert program.kd_agent_0_test() == 0
