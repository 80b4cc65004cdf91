"""The work of `kd-marl bundle keygen` and `verify`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from kd_core.errors import UserError
from kd_marl.deploy import signing
from kd_onboard import signature
from kd_onboard.bundle import read_bundle
from kd_onboard.errors import BundleError, TrustError


def keygen(args: argparse.Namespace) -> int:
    """Write a pair of keys; returns the exit status."""
    private, public = signing.generate(args.name.expanduser())
    print(f"secret key: {private} (keep it)\npublic key: {public} (give it to whoever verifies)")
    return 0


def verify(args: argparse.Namespace) -> int:
    """Print whether the bundle is whole and signed by the key; returns the exit status."""
    return print_verdict(lambda: f"genuine: signed by {signature.verify(read_bundle(args.bundle), args.key)}")


def print_verdict(verdict: Callable[[], str]) -> int:
    """Print a verdict, or the fault that it raises; returns the exit status.

    Raises:
        UserError: a key cannot be read.
    """
    try:
        print(verdict())
    except BundleError as error:
        print(f"faulty: {error}", file=sys.stderr)
        return 1
    except TrustError as error:
        raise UserError(str(error)) from None
    return 0
