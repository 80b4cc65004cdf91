"""`kd-marl bundle`: whether a student bundle is sound, who made it, and an episode of it for a program to replay."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from kd_core.errors import UserError
from kd_marl.commands.common import Subparsers, add_parser, check_parent, onboard_packages


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
    record = add_parser(
        actions,
        "record",
        "Play episodes and write what one agent met and did as a C header, for its compiled program to replay.",
        "kd-marl bundle record bundle --agent 0 --to episode.h --env-config=mpe with "
        "env_args.key=pz-mpe-simple-spread-v3",
    )
    record.add_argument("bundle", type=Path, metavar="DIR", help="the bundle's folder")
    record.add_argument("--agent", required=True, help="its index or name")
    record.add_argument("--episodes", type=int, default=1, help="how many (default: 1)")
    record.add_argument("--to", type=Path, required=True, metavar="FILE", help="the header")
    record.add_argument("--env-config", required=True, metavar="NAME", help="as for python src/main.py, e.g. mpe")
    # What follows `with` is taken out before argparse looks, see cli.py.
    record.usage = f"{record.prog} [options] --env-config NAME DIR with env_args.key=TASK [key=value ...]"
    record.set_defaults(run=_record, updates=[])


def _check(args: argparse.Namespace) -> int:
    with onboard_packages():
        from kd_core.costs import boards
        from kd_marl.deploy import check, signing
    from kd_onboard.bundle import SIGNATURE

    def run() -> str:
        bundle = check.check_bundle(args.bundle)
        files = f"{len(bundle.agents)} agents of {bundle.task.name}, {len(bundle.profile.files)} files"
        if args.budget is not None:
            team = boards.read_budget(args.budget, [agent.name for agent in bundle.agents])
            check.check_budgets(bundle, team.agents)
            files += f", within {args.budget}"
        if any(agent["budget"] for agent in bundle.profile.raw["agents"]):
            files += ", within its own budget"
        unread = _not_compared(check.other_versions(bundle))
        if args.key is None and not (args.bundle / SIGNATURE).is_file():
            return f"sound: {files}, not signed{unread}"
        key = signing.verify(args.bundle, args.key)
        whose = "" if args.key else " (whose that is, only verify --key tells)"
        return f"sound: {files}, signed by {key}{whose}{unread}"

    return _said(run)


def _not_compared(others: str) -> str:
    """What a verdict must add of a bundle that other versions wrote."""
    if not others:
        return ""
    return f"; its C code and int8 models were NOT compared with what an export writes: made with {others}"


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
        unread = _not_compared(check.other_versions(check.check_bundle(args.bundle)))
        return f"signed by {signing.sign(args.bundle, args.key)}{unread}"

    return _said(run)


def _verify(args: argparse.Namespace) -> int:
    with onboard_packages():
        from kd_marl.deploy import signing
    from kd_onboard.bundle import read_bundle

    def run() -> str:
        read_bundle(args.bundle)
        return f"genuine: signed by {signing.verify(args.bundle, args.key)}"

    return _said(run)


def _record(args: argparse.Namespace) -> int:
    from kd_core.host import get_host

    # First of all: an EPyMARL checkout brings its own `envs` package, which ours joins.
    host = get_host()

    from kd_core import files
    from kd_learners.settings import check_episodes
    from kd_marl.commands.run import play_settings
    from kd_marl.plugin import register

    with onboard_packages():
        from kd_marl.deploy import play, record
    from kd_onboard.bundle import read_bundle
    from kd_onboard.errors import OnboardError

    check_episodes(args.episodes)
    check_parent(args.to)
    try:
        bundle = read_bundle(args.bundle)
        agent = bundle.agent(int(args.agent) if args.agent.isdecimal() else args.agent)
    except OnboardError as error:
        raise UserError(str(error)) from None
    register.register(host)
    settings = play_settings(host, args, bundle.profile)
    mask = play.prepare(host, bundle, settings)
    try:
        recording = record.record(host, bundle, settings, mask, agent, args.episodes)
    except OnboardError as error:
        raise UserError(str(error)) from None
    files.write_bytes(args.to, record.header(recording, bundle, agent).encode())
    print(f"{len(recording.actions)} steps of {agent.label} in {args.episodes} episodes, written to {args.to}")
    return 0


def _said(run: Callable[[], str]) -> int:
    """Prints what ``run`` says, or the bundle's fault."""
    from kd_onboard.errors import BundleError

    try:
        print(run())
    except BundleError as error:
        print(f"faulty: {error}", file=sys.stderr)
        return 1
    return 0
