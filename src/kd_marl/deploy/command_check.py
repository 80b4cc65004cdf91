"""The work of `kd-marl bundle check` and `sign`: all of a bundle is verified."""

from __future__ import annotations

import argparse

from kd_core.costs import boards
from kd_marl.deploy import signing
from kd_marl.deploy.check import check_budgets, check_bundle, other_versions
from kd_marl.deploy.command_signing import print_verdict
from kd_onboard.bundle import SIGNATURE


def check(args: argparse.Namespace) -> int:
    """Print whether the bundle is sound; returns the exit status."""

    def verdict() -> str:
        bundle = check_bundle(args.bundle)
        files = f"{len(bundle.agents)} agents of {bundle.task.name}, {len(bundle.profile.files)} files"
        if args.budget is not None:
            team = boards.read_budget(args.budget, [agent.name for agent in bundle.agents])
            check_budgets(bundle, team.agents)
            files += f", within {args.budget}"
        if any(agent["budget"] for agent in bundle.profile.raw["agents"]):
            files += ", within its own budget"
        unread = _not_compared(other_versions(bundle))
        if args.key is None and not (args.bundle / SIGNATURE).is_file():
            return f"sound: {files}, not signed{unread}"
        key = signing.verify(args.bundle, args.key)
        whose = "" if args.key else " (whose that is, only verify --key tells)"
        return f"sound: {files}, signed by {key}{whose}{unread}"

    return print_verdict(verdict)


def sign(args: argparse.Namespace) -> int:
    """Check the bundle, then sign it; returns the exit status."""

    def verdict() -> str:
        unread = _not_compared(other_versions(check_bundle(args.bundle)))
        return f"signed by {signing.sign(args.bundle, args.key)}{unread}"

    return print_verdict(verdict)


def _not_compared(others: str) -> str:
    """Return what a verdict must add for a bundle that other versions wrote."""
    if not others:
        return ""
    return f"; its C code and int8 models were NOT compared with what an export writes: made with {others}"
