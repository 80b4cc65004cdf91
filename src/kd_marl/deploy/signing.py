"""Ed25519 signatures of bundles: over the exact bytes of `profile.json`, which names the sha256 of every other file."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kd_core import files
from kd_core.errors import UserError
from kd_onboard.bundle import PROFILE, SIGNATURE, Bundle
from kd_onboard.errors import BundleError

FORMAT, VERSION, ALGORITHM = "kd-marl/bundle-signature", 1, "ed25519"
PRIVATE_SUFFIX, PUBLIC_SUFFIX = ".key", ".pub"
_KEYS = ("format", "version", "algorithm", "public_key", "signature")


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


def sign(bundle: Bundle, private: Path) -> str:
    """Sign a bundle that has been checked, in place of an earlier signature.

    Returns:
        The key's fingerprint.

    Raises:
        UserError: the key cannot be read.
    """
    key = _load_private(private)
    public = key.public_key()
    signature = {
        "format": FORMAT,
        "version": VERSION,
        "algorithm": ALGORITHM,
        "public_key": _text(public.public_bytes_raw()),
        "signature": _text(key.sign(bundle.sealed)),
    }
    files.write_json(bundle.folder / SIGNATURE, signature)
    return fingerprint(public)


def verify(bundle: Bundle, public: Path | None = None) -> str:
    """Check a bundle's signature.

    Args:
        bundle: the bundle, as `read_bundle` found it.
        public: the key that must have signed it; None: whichever the signature names, which proves no origin.

    Returns:
        The fingerprint of the key that signed it.

    Raises:
        BundleError: there is no signature, it is damaged, of another key or of another profile.
        UserError: ``public`` cannot be read.
    """
    wanted = None if public is None else _load_public(public)
    path = bundle.folder / SIGNATURE
    if not path.is_file():
        raise BundleError(f"{bundle.folder} is not signed: it has no {SIGNATURE}")
    try:
        values = files.read_json(path)
    except (UserError, RecursionError) as error:
        raise BundleError(f"{path} is damaged: no JSON object") from error
    if set(values) != set(_KEYS) or not all(type(values[name]) is str for name in ("public_key", "signature")):
        raise BundleError(f"{path} is damaged: expected {', '.join(_KEYS)} and nothing else")
    found = (values["format"], values["version"], values["algorithm"])
    if found != (FORMAT, VERSION, ALGORITHM) or type(values["version"]) is not int:
        raise BundleError(f"{path} is no {FORMAT} version {VERSION} of {ALGORITHM}: sign the bundle again")
    key = Ed25519PublicKey.from_public_bytes(_bytes(path, values["public_key"], 32))
    if wanted is not None and wanted.public_bytes_raw() != key.public_bytes_raw():
        raise BundleError(
            f"{bundle.folder} is signed by the key {fingerprint(key)}, not by {fingerprint(wanted)}: do not trust it"
        )
    try:
        key.verify(_bytes(path, values["signature"], 64), bundle.sealed)
    except InvalidSignature:
        raise BundleError(
            f"the signature of {bundle.folder} is wrong: {PROFILE} is not the one that was signed"
        ) from None
    return fingerprint(key)


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return the first 16 hexadecimal digits of the key's sha256, which people compare."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _load_private(path: Path) -> Ed25519PrivateKey:
    data = _read_key(path)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path} is no private key without a password: kd-marl bundle keygen makes one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{path} is no Ed25519 key: kd-marl bundle keygen makes one")
    return key


def _load_public(path: Path) -> Ed25519PublicKey:
    data = _read_key(path)
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path} is no public key: give the file that ends with {PUBLIC_SUFFIX}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UserError(f"{path} is no Ed25519 key: kd-marl bundle keygen makes one")
    return key


def _read_key(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the key {path}: {error.strerror or error}") from error


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(path: Path, text: str, length: int) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BundleError(f"{path} is damaged: what should be base64 is not") from error
    # Re-encoded, because base64 has several spellings of the same bytes.
    if len(data) != length or _text(data) != text:
        raise BundleError(f"{path} is damaged: expected {length} bytes in base64")
    return data
