"""Signatures: a bundle is genuine with its own, and any other, or any changed bit, is refused in one line."""

from __future__ import annotations

import json
import shutil
import stat

import pytest

from kd_marl.cli import main
from kd_marl.deploy import signing
from kd_onboard import signature
from kd_onboard.bundle import read_bundle
from kd_onboard.errors import BundleError
from onboard_bundles import write_bundle


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        signing.generate(folder / name)
    return folder


@pytest.fixture(scope="module")
def signed(tmp_path_factory, keys):
    bundle = write_bundle(tmp_path_factory.mktemp("signed") / "bundle")
    signing.sign(read_bundle(bundle), keys / "mine.key")
    return bundle


def test_keys_are_a_pair_and_the_secret_one_is_its_owner_s_alone(tmp_path, capsys):
    assert main(["bundle", "keygen", str(tmp_path / "robots")]) == 0
    private, public = tmp_path / "robots.key", tmp_path / "robots.pub"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b"PRIVATE" in private.read_bytes() and b"PRIVATE" not in public.read_bytes()
    before = private.read_bytes()
    capsys.readouterr()
    assert main(["bundle", "keygen", str(tmp_path / "robots")]) == 2
    assert "a key that is overwritten is lost" in capsys.readouterr().err
    assert private.read_bytes() == before
    assert main(["bundle", "keygen", "."]) == 2
    assert capsys.readouterr().err == "error: '.' is no name of a key: give one without suffix, such as robots\n"


def test_the_command_line_signs_and_verifies(tiny_bundle, tmp_path, keys, capsys):
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    assert main(["bundle", "verify", str(folder), "--key", str(keys / "mine.pub")]) == 1
    assert "is not signed" in capsys.readouterr().err
    assert main(["bundle", "check", str(folder)]) == 0
    assert "not signed" in capsys.readouterr().out
    assert main(["bundle", "sign", str(folder), "--key", str(keys / "mine.key")]) == 0
    assert main(["bundle", "verify", str(folder), "--key", str(keys / "mine.pub")]) == 0
    assert main(["bundle", "check", str(folder), "--key", str(keys / "mine.pub")]) == 0
    assert main(["bundle", "check", str(folder)]) == 0
    capsys.readouterr()
    for command in ("verify", "check"):
        assert main(["bundle", command, str(folder), "--key", str(keys / "other.pub")]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and "is signed by the key" in lines[0]
    # A file that is none of the profile's business does not escape either.
    (folder / "weights" / "speaker_0.body.safetensors").write_bytes(b"")
    for command in ("verify", "check", "sign"):
        key = "mine.key" if command == "sign" else "mine.pub"
        assert main(["bundle", command, str(folder), "--key", str(keys / key)]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("faulty: ")


def test_every_flipped_bit_of_a_signature_is_refused(signed, keys, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(signed, folder)
    path, bundle = folder / "signature.json", read_bundle(folder)
    good = path.read_bytes()
    for index in range(8 * len(good)):
        bad = bytearray(good)
        bad[index // 8] ^= 1 << index % 8
        # Rewriting a file in place makes some file systems wait for the disk.
        path.unlink()
        path.write_bytes(bad)
        with pytest.raises(BundleError) as caught:
            signature.verify(bundle, keys / "mine.pub")
        assert "\n" not in str(caught.value)
    path.write_bytes(good)
    assert signature.verify(bundle, keys / "mine.pub") == signature.verify(bundle, None)


def test_a_signature_is_of_one_profile_only(signed, keys, tmp_path):
    other = write_bundle(tmp_path / "other", on_fault="hold")
    shutil.copy(signed / "signature.json", other)
    with pytest.raises(BundleError, match="this bundle is not the one that was signed"):
        signature.verify(read_bundle(other), keys / "mine.pub")


def test_a_signature_that_names_another_key_proves_nothing(signed, keys, tmp_path):
    forged = tmp_path / "forged"
    shutil.copytree(signed, forged)
    signing.sign(read_bundle(forged), keys / "other.key")
    values = json.loads((forged / "signature.json").read_text())
    mine = json.loads((signed / "signature.json").read_text())
    (forged / "signature.json").write_text(json.dumps({**values, "public_key": mine["public_key"]}))
    with pytest.raises(BundleError, match=r"the signature of .* is wrong"):
        signature.verify(read_bundle(forged), keys / "mine.pub")


BAD_KEYS = {
    "cannot read the key": lambda keys: keys / "nothing.pub",
    "is no public key": lambda keys: keys / "mine.key",
}


@pytest.mark.parametrize("message", BAD_KEYS)
def test_a_wrong_key_file_is_a_user_s_mistake(signed, keys, capsys, message):
    assert main(["bundle", "verify", str(signed), "--key", str(BAD_KEYS[message](keys))]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]


def test_a_public_key_does_not_sign(tiny_bundle, tmp_path, keys, capsys):
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    assert main(["bundle", "sign", str(folder), "--key", str(keys / "mine.pub")]) == 2
    assert "is no private key" in capsys.readouterr().err
    assert not (folder / "signature.json").exists()
