"""`kd-marl bundle`: whether a student bundle is sound, who made it, and an episode of it for a program to replay."""

from __future__ import annotations

from pathlib import Path

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work


def add(subparsers: Subparsers) -> None:
    """Adds `bundle check`, `keygen`, `sign`, `verify` and `record`."""
    summary = "Check, sign or verify a student bundle, or record an episode of it."
    parser = add_parser(subparsers, "bundle", summary, "kd-marl bundle check bundle")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    check = add_parser(
        actions,
        "check",
        "Verify all of a bundle and explain the first fault (exit status 1).",
        "kd-marl bundle check bundle --key robots.pub",
    )
    check.add_argument("bundle", type=Path, help="the bundle's folder")
    check.add_argument("--key", type=Path, metavar="PUBLIC", help="the public key that must have signed it")
    check.add_argument("--budget", metavar="FILE", help="a budget file or a board that it must fit, beside its own")
    check.set_defaults(run=Work("kd_marl.deploy.command_check:check", extra="onboard"))
    keygen = add_parser(
        actions,
        "keygen",
        "Make a pair of Ed25519 keys, NAME.key (secret) and NAME.pub.",
        "kd-marl bundle keygen robots",
    )
    keygen.add_argument("name", type=Path, help="path of the keys without suffix")
    keygen.set_defaults(run=Work("kd_marl.deploy.command_signing:keygen", extra="onboard"))
    sign = add_parser(actions, "sign", "Check a bundle, then sign it.", "kd-marl bundle sign bundle --key robots.key")
    sign.add_argument("bundle", type=Path, help="the bundle's folder")
    sign.add_argument("--key", type=Path, required=True, metavar="PRIVATE", help="NAME.key of bundle keygen")
    sign.add_argument("--counter", type=int, metavar="N", help="of this bundle (default: one more than the key's last)")
    sign.set_defaults(run=Work("kd_marl.deploy.command_check:sign", extra="onboard"))
    verify = add_parser(
        actions,
        "verify",
        "Verify that a bundle is whole and signed by a key (exit status 1 if not).",
        "kd-marl bundle verify bundle --key robots.pub",
    )
    verify.add_argument("bundle", type=Path, help="the bundle's folder")
    verify.add_argument("--key", type=Path, required=True, metavar="PUBLIC", help="NAME.pub of bundle keygen")
    verify.set_defaults(run=Work("kd_marl.deploy.command_signing:verify", extra="onboard"))
    trace = add_parser(
        actions,
        "record",
        "Play episodes and write what one agent met and did as a C header, for its compiled program to replay.",
        "kd-marl bundle record bundle --agent 0 --to episode.h --env-config=mpe with "
        "env_args.key=pz-mpe-simple-spread-v3",
    )
    trace.add_argument("bundle", type=Path, metavar="DIR", help="the bundle's folder")
    trace.add_argument("--agent", required=True, help="its index or name")
    trace.add_argument("--episodes", type=int, default=1, help="how many (default: 1)")
    trace.add_argument("--to", type=Path, required=True, metavar="FILE", help="the header")
    trace.add_argument("--env-config", required=True, metavar="NAME", help="as for kd-marl train, e.g. mpe")
    # What follows `with` is taken out before argparse looks, see cli.py.
    trace.usage = f"{trace.prog} [options] --env-config NAME DIR with env_args.key=TASK [key=value ...]"
    trace.set_defaults(run=Work("kd_marl.deploy.command_trace:run", host=True, extra="onboard"), updates=[])
