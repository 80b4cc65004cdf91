"""`read_bundle`: a whole bundle is accepted, and every damage is refused with one line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_onboard import Bundle, BundleError, profile_text, read_bundle
from kd_onboard.tensors import read_tensors
from onboard_bundles import SEEN, WIDTHS, change_profile, replace_file, student, write_bundle


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundles") / "spread")


@pytest.fixture
def bundle(whole, tmp_path):
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "bundle")


def refusal(folder):
    with pytest.raises(BundleError) as error:
        read_bundle(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_whole_bundle_tells_each_agents_interface(whole):
    bundle = read_bundle(whole)
    assert [agent.inputs for agent in bundle.agents] == [len(seen) for seen in SEEN]
    assert [agent.width for agent in bundle.agents] == list(WIDTHS)
    assert [feature.index for feature in bundle.agents[1].features] == list(SEEN[1])
    assert bundle.task.n_actions == 5 and bundle.profile.on_fault == "raise"
    weights, network = bundle.weights(bundle.agents[2]), student().network.agent_network(2)
    np.testing.assert_array_equal(weights["gru.weight_hh"], network.rnn.weight_hh.detach().numpy())
    np.testing.assert_array_equal(weights["align.weight"], network.fc1.weight.detach().numpy())
    with pytest.raises(ValueError, match="read-only"):
        weights["align.bias"][0] = 1.0


@pytest.mark.parametrize("path", ["profile.json", "weights", "onnx", "c"])
def test_no_flipped_bit_is_accepted(bundle, path):
    files = [bundle / path] if path == "profile.json" else [f for f in (bundle / path).rglob("*") if f.is_file()]
    rng = np.random.default_rng(0)
    for file in files:
        data = file.read_bytes()
        for bit in rng.integers(8 * len(data), size=500 if path == "profile.json" else 25):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            file.write_bytes(damaged)
            refusal(bundle)
        file.write_bytes(data)
    read_bundle(bundle)


@pytest.mark.parametrize("cut", [0, 1, 7, 100, -1])
def test_a_shortened_file_is_refused(bundle, cut):
    for file in [f for f in bundle.rglob("*") if f.is_file()]:
        data = file.read_bytes()
        file.write_bytes(data[:cut])
        assert "damaged" in refusal(bundle)
        file.write_bytes(data)


def test_missing_surplus_and_linked_files_are_refused(bundle, tmp_path):
    weights = sorted((bundle / "weights").iterdir())[0]
    kept = tmp_path / "kept"
    weights.rename(kept)
    assert "lacks weights/" in refusal(bundle)
    weights.symlink_to(kept)
    assert "neither a plain file nor a folder" in refusal(bundle)
    weights.unlink()
    os.mkfifo(weights)
    assert "neither a plain file nor a folder" in refusal(bundle)
    weights.unlink()
    kept.rename(weights)
    (bundle / "notes.txt").write_text("hello")
    assert refusal(bundle).endswith("has a file that its profile does not list: notes.txt")
    (bundle / "notes.txt").unlink()
    (bundle / "signature.json").write_text("{}")
    read_bundle(bundle)
    assert "no folder" in refusal(tmp_path / "nowhere")
    assert "no student bundle" in refusal(tmp_path)


def edit(path, value):
    """A change of one field, named by its path."""

    def change(profile):
        *parents, last = path
        for part in parents:
            profile = profile[part]
        if value is KeyError:
            del profile[last]
        else:
            profile[last] = value

    return change


WRONG = [
    (("format",), "kd-marl/teacher", "is of format 'kd-marl/teacher' version 1, expected 'kd-marl/student-bundle'"),
    (("version",), 2, "version 2, expected"),
    (("version",), True, "version True, expected"),
    (("version",), [1], "expected 'kd-marl/student-bundle' version 1"),
    (("on_fault",), "guess", "'on_fault' is 'guess', expected one of raise, hold, noop"),
    (("task", "n_agents"), 4, "describes 3 agents, but its task has 4"),
    (("task", "n_agents"), 3.0, "'n_agents' is 3.0, expected a whole number"),
    (("task", "name"), "a\nb", "'name' is 'a\\nb', expected a printable text"),
    (("task",), None, "'task' is None, expected an object"),
    (("measured",), KeyError, "lacks 'measured': expected an object"),
    (("agents", 1, "index"), 2, "'index' is 2, expected 1"),
    (("agents", 1, "inputs"), 4, "'inputs' is 4, expected the number of its different features, 5"),
    (("agents", 1, "width"), "8", "'width' is '8', expected a whole number"),
    (("agents", 1, "width"), 1 << 40, "expected a whole number from 1 to"),
    (("agents", 1, "width"), 9, "tensor 'align.bias' of agent 1 ('agent_1') is (8,), expected (9,)"),
    (("agents", 1, "parameters"), 1, "1 parameters, its weights are"),
    (("agents", 1, "actions"), ["a"], "names 1 actions, but the task has 5"),
    (("agents", 1, "actions", 0), 3, "expected names, or null"),
    (("agents", 1, "network", "type"), "lstm", "'type' is 'lstm', expected one of gru"),
    (("agents", 1, "weights"), [], "expected different files, at least one"),
    (("agents", 1, "weights", 0), "../secret", "expected plain paths inside the bundle"),
    (("agents", 1, "weights", 0), "weights/other", "which 'files' does not list"),
    (("agents", 1, "onnx"), "/etc/passwd", "'onnx' is '/etc/passwd'"),
    (("agents", 1, "c", "prefix"), "x; rm -rf", "'prefix' is 'x; rm -rf'"),
    (("agents", 1, "c", "folder"), "onnx", "is outside its folder onnx"),
    (("agents", 1, "noop_action"), 5, "'noop_action' is 5, expected a whole number from 0 to 4"),
    (("agents", 1, "draw_sizes"), [4, 9], "expected null, or [low, high] from 1 to 5"),
    (("agents", 1, "features", 0, "index"), 99, "'index' is 99"),
    (("agents", 1, "features", 0, "index"), 1, "'inputs' is 5, expected the number of its different features"),
    (("agents", 1, "features", 0, "derived_from"), [0], "expected null for the environment's own"),
    (("agents", 1, "flops_per_decision"), -1, "expected a number of at least 0"),
    (("agents", 1, "flops_per_decision"), 10**400, "a number is too large"),
    (("provenance", "seed"), 10**400, "a number is too large"),
    (("task", "n_agents"), 10_000, "expected a whole number from 1 to 1000"),
    (("agents", 1), "agent", "agents[1] is 'agent', expected an object"),
    (("files", "../evil"), {"sha256": "0" * 64, "bytes": 0}, "lists the file '../evil'"),
    (("files", "a\\..\\b"), {"sha256": "0" * 64, "bytes": 0}, "expected a plain path inside the bundle"),
    (("files", "ghost"), {"sha256": "0" * 64, "bytes": 0}, "lacks ghost"),
    (("files", "ghost"), {"sha256": "A" * 64, "bytes": 0}, "'sha256' is 'AAAA"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG, ids=[".".join(map(str, w[0])) for w in WRONG])
def test_a_wrong_field_is_named(bundle, path, value, message):
    change_profile(bundle, edit(path, value))
    assert message in refusal(bundle)


def test_json_that_parsers_read_differently_is_refused(bundle):
    text = (bundle / "profile.json").read_text()
    file = bundle / "profile.json"
    for damaged, message in [
        (text.replace("{", '{"version": 1, ', 1), "a key appears twice"),
        (text.replace('"version": 1', '"version": NaN'), "NaN is no JSON number"),
        (text.replace('"version": 1', '"version": 1' + "0" * 5000), "no valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "expected a JSON object, found list"),
        ("", "no valid JSON"),
        (text.encode()[:-10] + b"\xff", "no valid JSON"),
    ]:
        file.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
        assert message in refusal(bundle)


def test_the_checksum_covers_the_whole_profile(bundle):
    profile = json.loads((bundle / "profile.json").read_text())
    file = bundle / "profile.json"
    file.write_text(profile_text(profile))
    data = file.read_bytes()
    assert hashlib.sha256(data.replace(profile_checksum(data), b"0" * 64)).hexdigest().encode() == profile_checksum(
        data
    )
    read_bundle(bundle)
    file.write_bytes(data + b" ")
    assert refusal(bundle).endswith("its checksum is another; copy the bundle again")
    file.write_bytes(data.replace(profile_checksum(data), b"x" * 63))
    assert refusal(bundle).endswith("it has no checksum of its own")
    file.write_bytes(data.replace(profile_checksum(data), profile_checksum(data).upper()))
    assert "checksum is another" in refusal(bundle)


def profile_checksum(data):
    return json.loads(data)["checksum"].encode()


def tensors_file(header, payload=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + payload


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


BAD_TENSORS = [
    (b"", "too few"),
    (b"\xff" * 8, "does not fit"),
    (tensors_file({}, length=1 << 62), "does not fit"),
    (tensors_file(b"x" * ((1 << 20) + 1)), "does not fit"),
    (tensors_file({}, b"1234"), "4 bytes follow the last tensor"),
    (tensors_file({"a": entry([2], 0, 4)}, b"1234"), "do not hold float32 of shape"),
    (tensors_file({"a": entry([1], 0, 4)}), "ends beyond the file"),
    (tensors_file({"a": entry([1], 4, 8)}, bytes(8)), "begins at byte 4, expected 0"),
    (tensors_file({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)), "begins at byte 4, expected 8"),
    (tensors_file({"a": entry([1], 0, 4, "F64")}, bytes(4)), "'dtype' is 'F64', expected one of F32"),
    (tensors_file({"a": entry([0], 0, 0)}), "expected sizes of at least 1"),
    (tensors_file({"a": entry([-1], 0, -4)}), "expected sizes of at least 1"),
    (tensors_file({"a": entry([True], 0, 4)}, bytes(4)), "expected sizes of at least 1"),
    (tensors_file({"a": entry([1], 0.0, 4)}, bytes(4)), "expected two positions"),
    (tensors_file({"a": entry([1] * 5, 0, 4)}, bytes(4)), "expected a list of at most 4"),
    (tensors_file({"a/b": entry([1], 0, 4)}, bytes(4)), "is no tensor's name"),
    (tensors_file({"a": entry([1], 0, 4)}, struct.pack("<f", float("nan"))), "values that are not finite"),
    (tensors_file({"a": 3}, bytes(4)), "'a' is 3, expected an object"),
]


@pytest.mark.parametrize(("data", "message"), BAD_TENSORS, ids=[message for _, message in BAD_TENSORS])
def test_a_safetensors_file_with_a_fault_is_refused(data, message):
    with pytest.raises(BundleError) as error:
        read_tensors(data, "file")
    assert message in str(error.value) and "\n" not in str(error.value)


@given(
    st.dictionaries(st.sampled_from("abcde"), st.lists(st.integers(1, 4), max_size=3), max_size=4), st.integers(0, 99)
)
def test_what_the_library_writes_is_read_exactly(shapes, seed):
    rng = np.random.default_rng(seed)
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    arrays = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
    found = read_tensors(safetensors.numpy.save(arrays, metadata={"by": "test"}), "file")
    assert found.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value)


VALID = safetensors.numpy.save({"a": np.ones((2, 3), np.float32), "b": np.zeros(5, np.float32)})


@settings(max_examples=2000)
@given(
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 9)
)
def test_a_mutated_safetensors_file_is_read_wholly_or_refused(changes, cut):
    damaged = bytearray(VALID)
    for place, value in changes:
        damaged[place] = value
    try:
        tensors = read_tensors(bytes(damaged[: len(damaged) - cut]), "file")
    except BundleError as error:
        assert "\n" not in str(error)
        return
    assert sum(value.nbytes for value in tensors.values()) == 4 * 11
    assert all(np.isfinite(value).all() for value in tensors.values())


def test_weights_that_do_not_fit_are_refused(bundle):
    path = "weights/agent_1.body.safetensors"
    tensors = safetensors.numpy.load((bundle / path).read_bytes())
    replace_file(bundle, path, safetensors.numpy.save({**tensors, "critic.weight": np.ones(3, np.float32)}))
    assert "tensor 'critic.weight' of agent 1 ('agent_1') is (3,), expected no such tensor" in refusal(bundle)
    replace_file(bundle, path, safetensors.numpy.save({**tensors, "align.bias": np.ones(8, np.float32)}))
    assert "two weight files of agent 1 ('agent_1') have a tensor 'align.bias'" in refusal(bundle)
    replace_file(bundle, path, safetensors.numpy.save({**tensors, "head.bias": np.full(5, np.inf, np.float32)}))
    assert "values that are not finite" in refusal(bundle)


def test_a_file_that_changes_after_the_check_is_not_used(bundle):
    read = read_bundle(bundle)
    path = read.agents[0].onnx
    (bundle / path).write_bytes(b"something else")
    with pytest.raises(BundleError, match="damaged"):
        read.read(path)


def test_a_team_that_names_one_file_again_and_again_is_read_once(bundle, monkeypatch):
    def crowd(profile):
        (first, *_), task = profile["agents"], profile["task"]
        profile["agents"] = [{**first, "index": index, "name": f"agent_{index}"} for index in range(1000)]
        task["n_agents"] = 1000
        keep = {*first["weights"], first["onnx"], first["c"]["header"], *first["c"]["sources"]}
        for path in set(profile["files"]) - keep:
            del profile["files"][path]
            (bundle / path).unlink()

    change_profile(bundle, crowd)
    for folder in sorted(bundle.rglob("*/"), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    reads = []
    real = Bundle.read
    monkeypatch.setattr(Bundle, "read", lambda self, path: reads.append(path) or real(self, path))
    assert len(read_bundle(bundle).agents) == 1000
    assert len(reads) == len(set(reads))
