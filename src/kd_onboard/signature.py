"""Who vouches for a bundle: Ed25519 signatures over all of its folder, and the counter against older bundles.

``signature.json`` signs the bytes of ``profile.json``, which names the sha256 of every file, the list of all files and
folders, and a counter that grows with each bundle of a key. A robot remembers the largest counter that it accepted.
Only :func:`verify` and :func:`admit` with a key need ``cryptography``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kd_onboard.bundle import SIGNATURE, Bundle, read_file
from kd_onboard.errors import BundleError, TrustError
from kd_onboard.fields import Fields, parse_object
from kd_onboard.folders import check_own_file, own_folder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT, VERSION, ALGORITHM = "kd-marl/bundle-signature", 2, "ed25519"
LARGEST_COUNTER = (1 << 63) - 1
# Environment variable of the folder in which accepted counters are noted.
STATE_VARIABLE = "KD_ONBOARD_STATE"
_KEYS = {"format", "version", "algorithm", "counter", "public_key", "signature"}
_LARGEST_KEY = 1 << 16


@dataclass(frozen=True)
class Signed:
    """A signature.

    Attributes:
        key: fingerprint of the public key: the first 16 hexadecimal digits of its sha256, which people compare.
        counter: of the bundle, among those of that key.
    """

    key: str
    counter: int

    def __str__(self) -> str:
        return f"{self.key}, counter {self.counter}"


def message(bundle: Bundle, counter: int) -> bytes:
    """Return the bytes that are signed."""
    head = f"{FORMAT} {VERSION}\ncounter {counter}\nprofile {hashlib.sha256(bundle.sealed).hexdigest()}\n"
    return (head + "".join(f"{path}\n" for path in bundle.listing)).encode()


def fingerprint(key: bytes) -> str:
    """Return the fingerprint of a public key's 32 bytes."""
    return hashlib.sha256(key).hexdigest()[:16]


def verify(bundle: Bundle, public: str | os.PathLike[str] | None) -> Signed:
    """Check a bundle's signature.

    Args:
        bundle: the bundle, as :func:`kd_onboard.read_bundle` found it.
        public: file of the key that must have signed it; None: the key that the signature names, which proves nothing.

    Raises:
        BundleError: there is no signature, it is damaged, of another key or of another bundle.
        TrustError: the key cannot be read, or ``cryptography`` is not installed.
    """
    return _verified(bundle, public)[0]


def _verified(bundle: Bundle, public: str | os.PathLike[str] | None) -> tuple[Signed, bytes]:
    """Return the signature, and the 32 bytes of its key."""
    wanted = None if public is None else _load_public(public)
    key, counter, signature = _read(bundle)
    if wanted is not None and wanted != key:
        raise BundleError(
            f"{bundle.folder} is signed by the key {fingerprint(key)}, not by {fingerprint(wanted)}: do not trust it"
        )
    ed25519, invalid = _cryptography()
    try:
        ed25519.from_public_bytes(key).verify(signature, message(bundle, counter))
    except invalid:
        raise BundleError(
            f"the signature of {bundle.folder} is wrong: this bundle is not the one that was signed"
        ) from None
    return Signed(fingerprint(key), counter), key


def admit(bundle: Bundle, public: str | os.PathLike[str] | None, runs_its_code: bool, trust: bool) -> None:
    """Admit a bundle to this machine, or refuse it.

    With a key, its signature must be that key's, and its counter at least the largest that was accepted here of that
    key and task. Without one, its code is not run unless the user trusts it.

    Args:
        bundle: the bundle.
        public: file of the key that must have signed it, or None.
        runs_its_code: its C is to be compiled and run.
        trust: run it although no key vouches for it.

    Raises:
        BundleError: it has no valid signature of the key, or an older counter.
        TrustError: nobody vouches for code that is to be run, or the counter cannot be noted.
    """
    if public is not None:
        _note(bundle, *_verified(bundle, public))
    elif runs_its_code and not trust:
        signed = "is signed by somebody" if (bundle.folder / SIGNATURE).is_file() else "is not signed"
        raise TrustError(
            f"{bundle.folder} {signed}, and its C is code that would run here: name the public key that must have "
            "signed it (--key FILE, key= in Python), or trust it if you exported it yourself (--trust, trust=True)"
        )


def _note(bundle: Bundle, signed: Signed, key: bytes) -> None:
    """Refuse an older counter than the one noted, and note a newer one."""
    folder = own_folder(STATE_VARIABLE, "XDG_STATE_HOME", "~/.local/state")
    task = bundle.task.name
    note = folder / f"{hashlib.sha256(key + task.encode()).hexdigest()[:32]}.json"
    noted = 0
    if os.path.lexists(note):
        check_own_file(note)
        try:
            noted = Fields(parse_object(read_file(note, _LARGEST_KEY), str(note)), str(note)).whole(
                "counter", 1, LARGEST_COUNTER
            )
        except BundleError as error:
            raise TrustError(f"{error}: it notes which bundles were accepted here; mend or delete it") from None
    if signed.counter < noted:
        raise BundleError(
            f"{bundle.folder} has the counter {signed.counter}, and {noted} was accepted here before: it is an older "
            f"bundle of {task}; sign it again if you want it, or delete {note}"
        )
    if signed.counter > noted:
        temporary = note.with_name(f"{note.name}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps({"key": signed.key, "task": task, "counter": signed.counter}) + "\n")
            temporary.chmod(0o600)
            os.replace(temporary, note)
        except OSError as error:
            raise TrustError(
                f"cannot note the counter in {folder} ({error.strerror or error}): name another folder in "
                f"{STATE_VARIABLE}"
            ) from None


def _read(bundle: Bundle) -> tuple[bytes, int, bytes]:
    """Read the key, the counter and the signature of ``signature.json``."""
    path = bundle.folder / SIGNATURE
    if not os.path.lexists(path):
        raise BundleError(f"{bundle.folder} is not signed: it has no {SIGNATURE}")
    values = parse_object(read_file(path, _LARGEST_KEY), str(path))
    if set(values) != _KEYS:
        raise BundleError(f"{path} is damaged: expected {', '.join(sorted(_KEYS))} and nothing else")
    found = (values["format"], values["version"], values["algorithm"])
    if found != (FORMAT, VERSION, ALGORITHM) or type(values["version"]) is not int:
        raise BundleError(f"{path} is no {FORMAT} version {VERSION} of {ALGORITHM}: sign the bundle again")
    fields = Fields(values, str(path))
    counter = fields.whole("counter", 1, LARGEST_COUNTER)
    return _bytes(fields, "public_key", 32), counter, _bytes(fields, "signature", 64)


def _bytes(fields: Fields, name: str, length: int) -> bytes:
    text = fields.text(name)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    # Encoded again, because base64 has several spellings of the same bytes.
    if len(data) != length or base64.b64encode(data).decode() != text:
        fields.fail(name, f"{length} bytes in base64")
    return data


def _load_public(path: str | os.PathLike[str]) -> bytes:
    path = Path(path).expanduser()
    try:
        data = read_file(path, _LARGEST_KEY)
    except BundleError as error:
        raise TrustError(f"cannot read the key: {error}") from None
    ed25519, _ = _cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise TrustError(f"{path} is no public key: give the file that ends with .pub") from None
    if not isinstance(key, ed25519):
        raise TrustError(f"{path} is no Ed25519 key: kd-marl bundle keygen makes one")
    return key.public_bytes_raw()


def _cryptography() -> tuple[type[Ed25519PublicKey], type[Exception]]:
    """Import what verifies, late: only a robot that verifies needs it.

    Raises:
        TrustError: it is not installed.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise TrustError("to verify a signature needs cryptography: pip install 'kd-onboard[verify]'") from None
    return Ed25519PublicKey, InvalidSignature
