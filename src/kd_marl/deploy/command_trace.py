"""The work of `kd-marl bundle record`: episodes are played, and one agent's trace is written as a C header."""

from __future__ import annotations

import argparse

from kd_core import files
from kd_core.errors import UserError
from kd_core.host import get_host
from kd_learners.settings import check_episodes
from kd_marl.deploy import play, trace
from kd_marl.deploy.settings import play_settings
from kd_marl.plugin import register
from kd_onboard.bundle import read_bundle
from kd_onboard.errors import OnboardError


def run(args: argparse.Namespace) -> int:
    """Write the header of the command's arguments; returns the exit status."""
    host = get_host()
    check_episodes(args.episodes)
    files.check_parent(args.to)
    try:
        bundle = read_bundle(args.bundle)
        agent = bundle.agent(int(args.agent) if args.agent.isdecimal() else args.agent)
    except OnboardError as error:
        raise UserError(str(error)) from None
    register.register(host)
    settings = play_settings(host, args.env_config, args.updates, bundle.profile)
    mask = play.prepare(host, bundle, settings)
    try:
        played = trace.trace(host, bundle, settings, mask, agent, args.episodes)
    except OnboardError as error:
        raise UserError(str(error)) from None
    files.write_bytes(args.to, trace.header(played, bundle, agent).encode())
    print(f"{len(played.actions)} steps of {agent.label} in {args.episodes} episodes, written to {args.to}")
    return 0
