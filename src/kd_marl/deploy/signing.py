"""The secret half of signatures: pairs of keys, and the signature of a checked bundle. `kd_onboard` verifies it."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kd_core import files
from kd_core.errors import UserError
from kd_onboard.bundle import SIGNATURE, Bundle
from kd_onboard.signature import ALGORITHM, FORMAT, LARGEST_COUNTER, VERSION, Signed, fingerprint, message

PRIVATE_SUFFIX, PUBLIC_SUFFIX, COUNTER_SUFFIX = ".key", ".pub", ".counter"


def generate(stem: Path) -> tuple[Path, Path]:
    """Write a new pair of keys, ``STEM.key`` (private, readable by you alone) and ``STEM.pub``, both PEM.

    Raises:
        UserError: one of them exists or cannot be written, or ``stem`` has no name.
    """
    if not stem.name:
        raise UserError(f"'{stem}' is no name of a key: give one without suffix, such as robots")
    private, public = (stem.with_name(stem.name + suffix) for suffix in (PRIVATE_SUFFIX, PUBLIC_SUFFIX))
    for path in (private, public):
        if path.exists():
            raise UserError(f"{path} exists, and a key that is overwritten is lost: give another name")
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        with open(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
    except OSError as error:
        raise UserError(f"cannot write {private}: {error.strerror or error}") from error
    encoding = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    files.write_bytes(public, key.public_key().public_bytes(*encoding))
    return private, public


def sign(bundle: Bundle, private: Path, counter: int | None = None) -> Signed:
    """Sign a bundle that has been checked, in place of an earlier signature.

    Args:
        bundle: what the check has found sound: these bytes are signed, whatever the folder holds by now.
        private: file of the private key; the last counter is noted beside it.
        counter: of this bundle; None: one more than the last.

    Raises:
        UserError: the key or its counter cannot be read, or the counter is not above the last.
    """
    private = private.expanduser()
    key = _load_private(private)
    note = private.with_suffix(COUNTER_SUFFIX)
    last = _last_counter(note)
    number = last + 1 if counter is None else counter
    if not last < number <= LARGEST_COUNTER:
        raise UserError(f"counter {number} was used already: give a number above {last}, as {note} says")
    public = key.public_key().public_bytes_raw()
    signature = {
        "format": FORMAT,
        "version": VERSION,
        "algorithm": ALGORITHM,
        "counter": number,
        "public_key": base64.b64encode(public).decode(),
        "signature": base64.b64encode(key.sign(message(bundle, number))).decode(),
    }
    # The note comes first: a counter that is left out harms nobody, one that is used twice does.
    files.write_json(note, {"counter": number})
    files.write_json(bundle.folder / SIGNATURE, signature)
    return Signed(fingerprint(public), number)


def _last_counter(note: Path) -> int:
    if not note.exists():
        return 0
    last = files.read_json(note).get("counter")
    if type(last) is not int or not 0 <= last <= LARGEST_COUNTER:
        raise UserError(f'{note} holds no counter: write the last one into it, as {{"counter": 7}}')
    return last


def _load_private(path: Path) -> Ed25519PrivateKey:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the key {path}: {error.strerror or error}") from error
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path} is no private key without a password: kd-marl bundle keygen makes one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{path} is no Ed25519 key: kd-marl bundle keygen makes one")
    return key
