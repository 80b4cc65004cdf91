"""The work of `kd-marl bundle check` and `sign`: all of a bundle is verified."""

from __future__ import annotations

import argparse

from kd_core.costs import boards
from kd_marl.deploy import signing
from kd_marl.deploy.check import check_budgets, check_bundle
from kd_marl.deploy.command_signing import print_verdict
from kd_onboard import signature
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
        if args.key is None and not (args.bundle / SIGNATURE).is_file():
            return f"sound: {files}, not signed"
        signed = signature.verify(bundle, args.key)
        whose = "" if args.key else " (whose that is, only verify --key tells)"
        return f"sound: {files}, signed by {signed}{whose}"

    return print_verdict(verdict)


def sign(args: argparse.Namespace) -> int:
    """Check the bundle, then sign it; returns the exit status."""
    return print_verdict(lambda: f"signed by {signing.sign(check_bundle(args.bundle), args.key, args.counter)}")
