"""`kd-marl bundle`: whether a student bundle is sound, and who made it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from kd_marl.commands.common import Subparsers, add_parser, onboard_packages


def add(subparsers: Subparsers) -> None:
    """Adds `bundle check`, `keygen`, `sign` and `verify`."""
    parser = add_parser(subparsers, "bundle", "Check, sign or verify a student bundle.", "kd-marl bundle check bundle")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    check = add_parser(
        actions,
        "check",
        "Verify all of a bundle and explain the first fault (exit status 1).",
        "kd-marl bundle check bundle --key robots.pub",
    )
    check.add_argument("bundle", type=Path, help="the bundle's folder")
    check.add_argument("--key", type=Path, metavar="PUBLIC", help="the public key that must have signed it")
    check.set_defaults(run=_check)
    keygen = add_parser(
        actions,
        "keygen",
        "Make a pair of Ed25519 keys, NAME.key (secret) and NAME.pub.",
        "kd-marl bundle keygen robots",
    )
    keygen.add_argument("name", type=Path, help="path of the keys without suffix")
    keygen.set_defaults(run=_keygen)
    sign = add_parser(actions, "sign", "Check a bundle, then sign it.", "kd-marl bundle sign bundle --key robots.key")
    sign.add_argument("bundle", type=Path, help="the bundle's folder")
    sign.add_argument("--key", type=Path, required=True, metavar="PRIVATE", help="NAME.key of bundle keygen")
    sign.set_defaults(run=_sign)
    verify = add_parser(
        actions,
        "verify",
        "Verify that a bundle is whole and signed by a key (exit status 1 if not).",
        "kd-marl bundle verify bundle --key robots.pub",
    )
    verify.add_argument("bundle", type=Path, help="the bundle's folder")
    verify.add_argument("--key", type=Path, required=True, metavar="PUBLIC", help="NAME.pub of bundle keygen")
    verify.set_defaults(run=_verify)


def _check(args: argparse.Namespace) -> int:
    with onboard_packages():
        from kd_marl.deploy import check, signing
    from kd_onboard.bundle import SIGNATURE

    def run() -> str:
        bundle = check.check_bundle(args.bundle)
        files = f"{len(bundle.agents)} agents of {bundle.task.name}, {len(bundle.profile.files)} files"
        if args.key is None and not (args.bundle / SIGNATURE).is_file():
            return f"sound: {files}, not signed"
        key = signing.verify(args.bundle, args.key)
        return f"sound: {files}, signed by {key}" + ("" if args.key else " (whose that is, only verify --key tells)")

    return _said(run)


def _keygen(args: argparse.Namespace) -> int:
    with onboard_packages():
        from kd_marl.deploy import signing

    private, public = signing.generate(args.name.expanduser())
    print(f"secret key: {private} (keep it)\npublic key: {public} (give it to whoever verifies)")
    return 0


def _sign(args: argparse.Namespace) -> int:
    with onboard_packages():
        from kd_marl.deploy import check, signing

    def run() -> str:
        check.check_bundle(args.bundle)
        return f"signed by {signing.sign(args.bundle, args.key)}"

    return _said(run)


def _verify(args: argparse.Namespace) -> int:
    with onboard_packages():
        from kd_marl.deploy import signing
    from kd_onboard.bundle import read_bundle

    def run() -> str:
        read_bundle(args.bundle)
        return f"genuine: signed by {signing.verify(args.bundle, args.key)}"

    return _said(run)


def _said(run: Callable[[], str]) -> int:
    """Prints what ``run`` says, or the bundle's fault."""
    from kd_onboard.errors import BundleError

    try:
        print(run())
    except BundleError as error:
        print(f"faulty: {error}", file=sys.stderr)
        return 1
    return 0
