"""Whose bundle it is: C of nobody's is not run, a signature covers all of a folder, and an older bundle is refused."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from deployed import compiler
from kd_marl.cli import main
from kd_marl.deploy import signing
from kd_onboard import BundleError, OnboardAgent, TrustError, read_bundle, signature
from kd_onboard.c_backend import compile_agent
from onboard_bundles import ACTIONS, SEEN, change_profile, replace_file, write_bundle

FEATURES, EVERYTHING = np.ones(len(SEEN[0]), np.float32), np.ones(ACTIONS, bool)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundles") / "spread")


@pytest.fixture
def bundle(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "bundle")


@pytest.fixture
def keys(tmp_path):
    for name in ("mine", "other"):
        signing.generate(tmp_path / name)
    return tmp_path


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ONBOARD_CACHE", str(tmp_path / "compiled"))
    monkeypatch.setenv("KD_ONBOARD_STATE", str(tmp_path / "state"))


def sign(folder, keys, name="mine", counter=None):
    return signing.sign(read_bundle(folder), keys / f"{name}.key", counter)


def refusal(kind, *args, **options):
    with pytest.raises(kind) as caught:
        OnboardAgent.load(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_c_that_nobody_vouches_for_is_neither_compiled_nor_run(bundle, keys, tmp_path):
    compiler()
    said = refusal(TrustError, bundle, 0, "c")
    assert "is not signed, and its C is code" in said and "--key" in said and "--trust" in said and "trust=True" in said
    sign(bundle, keys)
    assert "is signed by" in refusal(TrustError, bundle, 0, "c"), "a signature without a key proves nothing"
    assert not (tmp_path / "compiled").exists()
    assert OnboardAgent.load(bundle, 0, "c", trust=True).act(FEATURES, EVERYTHING) in range(ACTIONS)
    assert OnboardAgent.load(bundle, 0, "c", key=keys / "mine.pub").act(FEATURES, EVERYTHING) in range(ACTIONS)


@pytest.mark.parametrize("backend", ["numpy", "onnx", "c"])
def test_with_a_key_every_backend_asks_for_its_signature(bundle, keys, backend):
    assert "is not signed" in refusal(BundleError, bundle, 0, backend, key=keys / "mine.pub")
    sign(bundle, keys, "other")
    assert "is signed by the key" in refusal(BundleError, bundle, 0, backend, key=keys / "mine.pub", trust=True)
    change_profile(bundle, lambda profile: profile.update(on_fault="hold"))
    assert "is not the one that was signed" in refusal(BundleError, bundle, 0, backend, key=keys / "other.pub")


def test_a_program_of_the_user_s_own_needs_no_key(bundle):
    compiler()
    read = read_bundle(bundle)
    library = compile_agent(read, read.agent(0).c)
    assert OnboardAgent.load(bundle, 0, "c", library=library).act(FEATURES, EVERYTHING) in range(ACTIONS)


def add_a_folder(folder):
    (folder / "c" / "more").mkdir()


def add_a_module(folder):
    """A file that a careless import would find."""
    (folder / "numpy.py").write_text("")


def add_a_listed_file(folder):
    (folder / "extra").mkdir()
    (folder / "extra" / "weights.bin").touch()
    replace_file(folder, "extra/weights.bin", b"more")


ADDITIONS = {
    "has a folder that its profile does not list: c/more": add_a_folder,
    "has a file that its profile does not list: numpy.py": add_a_module,
    "is not the one that was signed": add_a_listed_file,
}


@pytest.mark.parametrize("message", ADDITIONS)
def test_nothing_can_be_added_to_a_signed_bundle(bundle, keys, message):
    sign(bundle, keys)
    assert signature.verify(read_bundle(bundle), keys / "mine.pub").counter == 1
    ADDITIONS[message](bundle)
    assert message in refusal(BundleError, bundle, 0, key=keys / "mine.pub")


def test_an_older_bundle_is_refused_where_a_newer_one_was_accepted(whole, tmp_path, keys):
    old, new = (shutil.copytree(whole, tmp_path / name) for name in ("old", "new"))
    assert sign(old, keys).counter == 1 and sign(new, keys).counter == 2
    key = keys / "mine.pub"
    OnboardAgent.load(old, 0, key=key)
    OnboardAgent.load(new, 0, key=key)
    OnboardAgent.load(new, 1, key=key)
    said = refusal(BundleError, old, 0, key=key)
    assert "has the counter 1, and 2 was accepted here before" in said and str(tmp_path / "state") in said
    assert signature.verify(read_bundle(old), key).counter == 1, "to verify is to ask, and changes nothing"
    # Another key's counter, and another task's, are their own.
    sign(old, keys, "other")
    OnboardAgent.load(old, 0, key=keys / "other.pub")
    change_profile(old, lambda profile: profile["task"].update(name="another"))
    sign(old, keys, counter=7)
    OnboardAgent.load(old, 0, key=key)
    OnboardAgent.load(new, 0, key=key)


def test_a_counter_cannot_be_raised_without_the_key(bundle, keys):
    sign(bundle, keys)
    values = json.loads((bundle / "signature.json").read_text())
    (bundle / "signature.json").write_text(json.dumps({**values, "counter": 9}))
    assert "is not the one that was signed" in refusal(BundleError, bundle, 0, key=keys / "mine.pub")
    for wrong in (True, 1.0, "1", 0, -1, 1 << 64, None):
        (bundle / "signature.json").write_text(json.dumps({**values, "counter": wrong}))
        assert "signature.json" in refusal(BundleError, bundle, 0, key=keys / "mine.pub")


def test_counters_of_a_key_only_grow(tiny_bundle, tmp_path, keys, capsys):
    folder = shutil.copytree(tiny_bundle, tmp_path / "tiny")
    words = ["bundle", "sign", str(folder), "--key", str(keys / "mine.key")]
    assert main(words) == 0 and "counter 1" in capsys.readouterr().out
    assert main(words) == 0 and "counter 2" in capsys.readouterr().out
    assert main([*words, "--counter", "2"]) == 2
    assert "counter 2 was used already: give a number above 2" in capsys.readouterr().err
    assert main([*words, "--counter", "40"]) == 0 and "counter 40" in capsys.readouterr().out
    assert main(["bundle", "verify", str(folder), "--key", str(keys / "mine.pub")]) == 0
    assert "counter 40" in capsys.readouterr().out
    (keys / "mine.counter").write_text("many")
    assert main(words) == 2
    assert "mine.counter" in capsys.readouterr().err
    (keys / "mine.counter").unlink()
    assert main([*words, "--counter", "41"]) == 0


@pytest.mark.parametrize("content", [b"", b"x", b"[]", b'{"counter": "3"}', b'{"counter": -1}', b"\xff"])
def test_a_damaged_note_of_the_counter_is_one_line(bundle, keys, tmp_path, content):
    sign(bundle, keys)
    OnboardAgent.load(bundle, 0, key=keys / "mine.pub")
    (note,) = (tmp_path / "state").iterdir()
    note.write_bytes(content)
    assert str(note) in refusal(TrustError, bundle, 0, key=keys / "mine.pub")


def test_a_folder_for_counters_that_others_can_write_is_not_used(bundle, keys, tmp_path):
    sign(bundle, keys)
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    assert "can be written by others" in refusal(TrustError, bundle, 0, key=keys / "mine.pub")


BAD_KEYS = {
    "cannot read the key": lambda keys: keys / "nothing.pub",
    "is no public key": lambda keys: keys / "mine.key",
    "is no plain file": lambda keys: "/dev/zero",
}


@pytest.mark.parametrize("message", BAD_KEYS)
def test_a_wrong_key_file_is_one_line(bundle, keys, message):
    sign(bundle, keys)
    assert message in refusal(TrustError, bundle, 0, key=BAD_KEYS[message](keys))


def test_a_compiled_program_that_others_could_have_changed_is_not_loaded(bundle, tmp_path, monkeypatch):
    compiler()
    before = os.umask(0)
    try:
        read = read_bundle(bundle)
        library = compile_agent(read, read.agent(0).c)
    finally:
        os.umask(before)
    assert library.stat().st_mode & 0o077 == 0, "whatever the umask"
    for mode in (0o722, 0o702):
        library.chmod(mode)
        assert "could have been changed by others" in refusal(TrustError, bundle, 0, "c", trust=True)
    library.chmod(0o700)
    OnboardAgent.load(bundle, 0, "c", trust=True)
    real = library.rename(tmp_path / "elsewhere.so")
    library.symlink_to(real)
    assert "could have been changed by others" in refusal(TrustError, bundle, 0, "c", trust=True)
    library.unlink()
    real.rename(library)
    found = os.lstat(library)
    stranger = os.stat_result([*found[:4], found.st_uid + 1, *found[5:]])
    real_lstat = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path, **o: stranger if str(path) == str(library) else real_lstat(path, **o))
    assert "could have been changed by others" in refusal(TrustError, bundle, 0, "c", trust=True)
