"""One agent of a bundle: every backend decides as the torch network does, and bad input is never acted on."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_onboard import (
    BACKENDS,
    BackendError,
    BundleError,
    FaultError,
    Generator,
    OnboardAgent,
    SavedError,
    TrustError,
    onnx_backend,
    read_bundle,
)
from kd_onboard.backend import make_backend
from kd_onboard.c_backend import compile_agent
from onboard_bundles import ACTIONS, SEEN, change_profile, student, write_bundle

# What numpy warns of is a fault of ours: on a robot it would end in a log, or in an exception nobody expects.
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
FLOAT32 = [name for name in BACKENDS if name != "onnx-int8"]
STEPS = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundles") / "spread")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_ONBOARD_CACHE", str(tmp_path_factory.mktemp("compiled")))
        yield


def episode(agent, steps=STEPS, seed=0):
    rng = np.random.default_rng(seed)
    features = 3 * rng.standard_normal((steps, len(SEEN[agent]))).astype(np.float32)
    available = rng.random((steps, ACTIONS)) < 0.6
    available[np.arange(steps), rng.integers(ACTIONS, size=steps)] = True
    return features, available


@torch.no_grad()
def torch_logits(agent, features):
    """By torch's own GRUCell, step by step."""
    network, hidden, rows = student().network.agent_network(agent), None, []
    hidden = network.init_hidden()
    for row in torch.from_numpy(features):
        logits, hidden = network(row[None], hidden)
        rows.append(logits[0].numpy())
    return np.array(rows)


@pytest.mark.parametrize("backend", FLOAT32)
@pytest.mark.parametrize("agent", range(len(SEEN)))
def test_every_backend_chooses_what_torch_chooses(folder, agent, backend):
    features, available = episode(agent)
    expected = np.where(available, torch_logits(agent, features), -np.inf).argmax(1)
    runner = OnboardAgent.load(folder, agent, backend, trust=True)
    assert [runner.act(*step) for step in zip(features, available, strict=True)] == expected.tolist()
    assert len(set(expected)) > 2
    runner.reset()
    assert [runner.act(*step) for step in zip(features, available, strict=True)] == expected.tolist()


@pytest.mark.parametrize("backend", ["numpy", "onnx"])
def test_the_logits_are_torchs(folder, backend):
    features, _ = episode(1)
    bundle = read_bundle(folder)
    network = make_backend(bundle, bundle.agent(1), backend)
    network.available[:] = True
    found = []
    for row in features:
        network.features[:] = row
        network.decide()
        found.append(network.logits.copy())
    np.testing.assert_allclose(np.array(found), torch_logits(1, features), atol=1e-5)


def test_onnx_runtime_is_called_in_public_where_its_inner_objects_have_other_names(folder, monkeypatch):
    runtime = pytest.importorskip("onnxruntime")
    bundle, calls = read_bundle(folder), []

    class Renamed:
        """A later runtime's session."""

        def __init__(self, *args, **options):
            self.inside = runtime.InferenceSession(*args, **options)
            for name in ("get_inputs", "get_outputs", "io_binding"):
                setattr(self, name, getattr(self.inside, name))

        def run_with_iobinding(self, binding):
            calls.append(binding)
            self.inside.run_with_iobinding(binding)

    today = make_backend(bundle, bundle.agent(1), "onnx")
    monkeypatch.setattr(
        onnx_backend, "_runtime", lambda: SimpleNamespace(**{**vars(runtime), "InferenceSession": Renamed})
    )
    later = make_backend(bundle, bundle.agent(1), "onnx")
    for row in episode(1, steps=5)[0]:
        for network in (today, later):
            network.features[:], network.available[:] = row, True
        assert today.decide() == later.decide()
        assert today.logits.tolist() == later.logits.tolist()
    assert len(calls) == 5


def test_every_backend_draws_the_same_actions_with_the_same_seed(folder):
    """Their logits differ in the last bits at most, and none of these draws is that close to a border."""
    features, available = episode(2)
    found = []
    for backend in FLOAT32:
        runner, generator = OnboardAgent.load(folder, 2, backend, trust=True), Generator(11, 2)
        found.append([runner.sample(*step, generator) for step in zip(features, available, strict=True)])
        runner.reset()
        generator = Generator(11, 2)
        assert [runner.sample(*step, generator) for step in zip(features, available, strict=True)] == found[-1]
    assert found[1:] == found[:-1]
    runner.reset()
    assert [runner.act(*step) for step in zip(features, available, strict=True)] != found[0]


def test_a_fault_draws_nothing(tmp_path):
    runner = OnboardAgent.load(write_bundle(tmp_path / "bundle", on_fault="hold"), 0)
    generator, everything = Generator(5), np.ones(ACTIONS, bool)
    last = runner.sample(np.ones(3, np.float32), everything, generator)
    assert runner.sample(np.full(3, np.nan), everything, generator) == last
    following = Generator(5)
    following.next()
    assert generator.next() == following.next()


@pytest.mark.parametrize("backend", FLOAT32)
def test_logits_and_state_of_the_last_decision_can_be_read(folder, backend):
    features, available = episode(1, steps=6)
    runner = OnboardAgent.load(folder, 1, backend, trust=True)
    for _ in range(2):
        assert runner.logits() is None and not runner.state().any()
        for step, expected in zip(zip(features, available, strict=True), torch_logits(1, features), strict=True):
            action = runner.act(*step)
            np.testing.assert_allclose(runner.logits(), expected, atol=1e-5)
            assert action == np.where(step[1], runner.logits(), -np.inf).argmax()
            assert runner.state().shape == (runner.profile.width,) and runner.state().any()
        runner.state()[:] = runner.logits()[:] = 9
        assert np.abs(runner.state()).max() <= 1 and runner.logits().max() != 9
        runner.reset()


@pytest.mark.parametrize("to", FLOAT32)
@pytest.mark.parametrize("backend", FLOAT32)
def test_a_memory_saved_by_one_backend_goes_on_in_another(folder, backend, to):
    features, available = episode(1, steps=30)
    first, second = (OnboardAgent.load(folder, 1, name, trust=True) for name in (backend, to))
    for step in zip(features[:10], available[:10], strict=True):
        first.act(*step)
    saved = first.save()
    rest = [first.act(*step) for step in zip(features[10:], available[10:], strict=True)]
    second.act(features[20], available[20])
    second.restore(saved)
    assert second.logits() is None and second.save() == saved
    assert [second.act(*step) for step in zip(features[10:], available[10:], strict=True)] == rest


def test_a_memory_of_another_agent_or_export_is_refused_and_changes_nothing(folder, tmp_path):
    runner, other = OnboardAgent.load(folder, 1), OnboardAgent.load(folder, 2)
    runner.act(np.ones(5, np.float32), np.ones(ACTIONS, bool))
    before = runner.save()
    with pytest.raises(
        SavedError, match=r"^agent 1 \('agent_1'\): the memory was saved by an agent with other weights"
    ):
        runner.restore(other.save())
    with pytest.raises(SavedError, match="is damaged"):
        runner.restore(before[:-1] + b"x")
    assert runner.save() == before
    with pytest.raises(SavedError, match="the 3 bytes are no saved memory"):
        runner.restore(b"abc")


def test_what_was_done_before_is_restored_for_hold(tmp_path):
    folder = write_bundle(tmp_path / "bundle", on_fault="hold")
    runner = OnboardAgent.load(folder, 0)
    last = runner.act(np.ones(3, np.float32), np.ones(ACTIONS, bool))
    later = OnboardAgent.load(folder, 0)
    later.restore(runner.save())
    assert later.act(np.full(3, np.nan), np.ones(ACTIONS, bool)) == last


def test_an_agent_is_found_by_its_name_too(folder):
    named = OnboardAgent.load(folder, "agent_2", "numpy")
    assert named.profile.index == 2
    with pytest.raises(BundleError, match=r"has no agent 7: choose one of 0 \(agent_0\)"):
        OnboardAgent.load(folder, 7)


BAD = [
    ("too few", np.zeros(2, np.float32), np.ones(ACTIONS, bool), r"features of shape \(2,\) given, expected \(3,\)"),
    ("a batch", np.zeros((1, 3), np.float32), np.ones(ACTIONS, bool), r"shape \(1, 3\) given"),
    ("nan", np.array([0, np.nan, 0], np.float32), np.ones(ACTIONS, bool), r"feature 1 \('.+'\) is nan"),
    ("infinite", [0.0, 0.0, float("-inf")], np.ones(ACTIONS, bool), r"feature 2 \('.+'\) is -inf"),
    ("too large for float32", np.array([0, 0, 1e200]), np.ones(ACTIONS, bool), r"feature 2 \('.+'\) is 1e\+200"),
    ("overflows the network", np.array([0, 3e38, 0], np.float32), np.ones(ACTIONS, bool), "expected a finite number"),
    ("text", ["a", "b", "c"], np.ones(ACTIONS, bool), "features of type <U1 given"),
    ("complex", np.zeros(3, np.complex64), np.ones(ACTIONS, bool), "features of type complex64"),
    ("objects", [None, 1.0, 2.0], np.ones(ACTIONS, bool), "features of type object"),
    ("ragged", [[1.0], [1.0, 2.0]], np.ones(ACTIONS, bool), "features of shape"),
    ("nothing available", np.zeros(3, np.float32), np.zeros(ACTIONS, bool), "no action is available"),
    ("wrong actions", np.zeros(3, np.float32), np.ones(ACTIONS + 1, bool), "availability of shape"),
    ("probabilities", np.zeros(3, np.float32), np.full(ACTIONS, 0.5), "not all 0 or 1"),
    ("nan availability", np.zeros(3, np.float32), np.full(ACTIONS, np.nan), "not all 0 or 1"),
    ("no availability", np.zeros(3, np.float32), None, "availability of shape"),
]


@pytest.mark.parametrize("backend", FLOAT32)
@pytest.mark.parametrize(("features", "available", "message"), [case[1:] for case in BAD], ids=[c[0] for c in BAD])
def test_bad_input_raises_one_line_and_leaves_the_state_alone(folder, backend, features, available, message):
    good = episode(0, steps=8, seed=3)
    undisturbed = OnboardAgent.load(folder, 0, backend, trust=True)
    expected = [undisturbed.act(*step) for step in zip(*good, strict=True)]
    runner = OnboardAgent.load(folder, 0, backend, trust=True)
    found = []
    for step in zip(*good, strict=True):
        with pytest.raises(FaultError, match=message) as fault:
            runner.act(features, available)
        assert "\n" not in str(fault.value) and str(fault.value).startswith("agent 0 ('agent_0')")
        found.append(runner.act(*step))
    assert found == expected
    assert runner.faults == 8 and runner.last_fault is not None


@pytest.mark.parametrize("numpy_says", ["ignore", "warn", "raise"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4"])
def test_too_large_features_are_a_fault_whatever_numpy_does_about_overflow(folder, numpy_says, dtype):
    runner = OnboardAgent.load(folder, 0)
    with np.errstate(all=numpy_says), pytest.raises(FaultError, match=r"feature 1 \('.+'\) is -3"):
        runner.act(np.array([0, -3e38, 0], dtype), np.ones(ACTIONS, bool))


def test_a_fault_prints_nothing(folder):
    program = (
        "import sys, numpy, kd_onboard\n"
        "agent = kd_onboard.OnboardAgent.load(sys.argv[1], 0)\n"
        "try:\n    agent.act(numpy.full(3, 3e38, numpy.float32), numpy.ones(5, bool))\n"
        "except kd_onboard.FaultError:\n    print('a fault')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("a fault\n", "")


def test_hold_repeats_the_last_action_only_while_it_is_available(tmp_path):
    runner = OnboardAgent.load(write_bundle(tmp_path / "bundle", on_fault="hold"), 0)
    missing = np.full(3, np.nan)
    everything = np.ones(ACTIONS, bool)
    with pytest.raises(FaultError, match="on_fault is hold, but nothing was done yet"):
        runner.act(missing, everything)
    last = runner.act(np.ones(3, np.float32), everything)
    assert runner.act(missing, everything) == last
    assert runner.act(missing, np.arange(ACTIONS) == last) == last
    with pytest.raises(FaultError, match=f"on_fault is hold, but action {last} is not available"):
        runner.act(missing, np.arange(ACTIONS) != last)
    with pytest.raises(FaultError, match="availability of shape"):
        runner.act(np.ones(3, np.float32), np.ones(2, bool))
    with pytest.raises(FaultError, match="no action is available"):
        runner.act(np.ones(3, np.float32), np.zeros(ACTIONS, bool))
    assert runner.faults == 6
    runner.reset()
    with pytest.raises(FaultError, match="nothing was done yet"):
        runner.act(missing, everything)


def test_noop_takes_the_action_that_does_nothing_only_where_it_is_available(tmp_path):
    folder = write_bundle(tmp_path / "bundle", on_fault="noop")
    runner = OnboardAgent.load(folder, 0)
    assert runner.profile.actions[runner.profile.noop_action] == "no_action"
    assert runner.act([0.0, np.nan, 0.0], [1, 1, 1, 1, 1]) == runner.profile.noop_action
    with pytest.raises(FaultError, match="action 0 is not available"):
        runner.act([0.0, np.nan, 0.0], [0, 1, 1, 1, 1])
    change_profile(folder, lambda profile: profile["agents"][0].update(noop_action=None))
    with pytest.raises(FaultError, match="this agent has no noop"):
        OnboardAgent.load(folder, 0).act([0.0, np.nan, 0.0], [1, 1, 1, 1, 1])


@settings(max_examples=200)
@given(data=st.data())
def test_whatever_is_given_the_action_is_available_or_a_fault_is_raised(folder, data):
    runner = OnboardAgent.load(read_bundle(folder), 0)
    number = st.one_of(st.floats(width=32), st.floats(), st.integers(-(10**40), 10**40), st.none(), st.booleans())
    for _ in range(3):
        features = data.draw(st.lists(number, min_size=2, max_size=4))
        flag = st.one_of(st.booleans(), st.integers(-1, 2), st.floats())
        available = data.draw(st.lists(flag, min_size=4, max_size=6))
        try:
            action = runner.act(features, available)
        except FaultError:
            continue
        assert available[action] == 1


def test_other_number_types_give_the_same_action(folder):
    features, available = episode(0, steps=20)
    exact, doubles, lists = (OnboardAgent.load(folder, 0) for _ in range(3))
    for row, may in zip(features, available, strict=True):
        expected = exact.act(row, may)
        assert doubles.act(row.astype(np.float64)[::1], may.astype(np.int64)) == expected
        assert lists.act(row.tolist(), [float(x) for x in may]) == expected


def test_the_c_program_is_compiled_once_and_may_be_given(folder, tmp_path, monkeypatch):
    bundle = read_bundle(folder)
    first = compile_agent(bundle, bundle.agent(0).c)
    stamp = first.stat().st_mtime_ns
    assert compile_agent(bundle, bundle.agent(0).c) == first and first.stat().st_mtime_ns == stamp
    mine = tmp_path / "mine.so"
    shutil.copy(first, mine)
    monkeypatch.setenv("CC", "no-such-compiler")
    features, available = episode(0, steps=5)
    expected = [OnboardAgent.load(folder, 0).act(*step) for step in zip(features, available, strict=True)][:1]
    assert OnboardAgent.load(folder, 0, "c", library=mine).act(features[0], available[0]) == expected[0]
    with pytest.raises(BackendError, match="'no-such-compiler' is none here"):
        OnboardAgent.load(folder, 0, "c", trust=True)
    monkeypatch.setenv("CC", "gcc 'x")
    with pytest.raises(BackendError, match=r"CC is .* which has no words"):
        OnboardAgent.load(folder, 0, "c", trust=True)


def test_a_backend_that_cannot_run_here_says_so(folder, tmp_path, monkeypatch):
    with pytest.raises(BackendError, match="no backend 'tensorrt': choose one of numpy, onnx"):
        OnboardAgent.load(folder, 0, "tensorrt")
    with pytest.raises(BackendError, match="no int8 ONNX model of agent 0"):
        OnboardAgent.load(folder, 0, "onnx-int8")
    with pytest.raises(BackendError, match="library= is for backend 'c'"):
        OnboardAgent.load(folder, 0, "numpy", library=tmp_path / "x.so")
    with pytest.raises(BackendError, match=r"cannot use .+: compile the bundle's C for this machine"):
        OnboardAgent.load(folder, 0, "c", library=tmp_path / "x.so")
    bundle = read_bundle(folder)
    other = compile_agent(bundle, bundle.agent(1).c)
    with pytest.raises(BackendError, match="undefined symbol"):
        OnboardAgent.load(folder, 0, "c", library=other)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match=r"pip install 'kd-onboard\[onnx\]'"):
        OnboardAgent.load(folder, 0, "onnx")
    monkeypatch.setenv("KD_ONBOARD_CFLAGS", "-no-such-flag")
    with pytest.raises(BackendError, match=r"'cc' cannot compile c/agent_0/kd_agent_0.c: .*no-such-flag"):
        OnboardAgent.load(folder, 0, "c", trust=True)


def test_programs_in_a_folder_that_others_can_write_are_not_run(folder, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("KD_ONBOARD_CACHE", str(shared))
    with pytest.raises(TrustError, match="can be written by others"):
        OnboardAgent.load(folder, 0, "c", trust=True)


def test_a_program_of_another_width_is_refused(folder, tmp_path):
    bundle = read_bundle(folder)
    source, made = tmp_path / "other.c", tmp_path / "other.so"
    prefix = bundle.agent(0).c.prefix
    source.write_text(
        f"unsigned long {prefix}_size(void) {{ return 64; }}\nvoid {prefix}_init(void *a) {{ (void)a; }}\n"
        f"int {prefix}_act(void *a, const float *f, const unsigned char *v) {{ return !a || !f || !v; }}\n"
        f"int {prefix}_logits(void *a, const float *f, float *v) {{ return !a || !f || !v; }}\n"
        f"int {prefix}_last_logits(const void *a, float *v) {{ return !a || !v; }}\n"
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(made), str(source)], check=True)
    assert ctypes.CDLL(str(made))
    with pytest.raises(BackendError, match="a state of 64 bytes, expected 24"):
        OnboardAgent.load(folder, 0, "c", library=made)
