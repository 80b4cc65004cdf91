"""The work of `kd-marl run`: a bundle plays, each agent in a process of its own, beside the torch student's score."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from kd_core import files
from kd_core.errors import UserError, nearest
from kd_core.host import get_host
from kd_core.metrics.intervals import mean_interval, share_interval
from kd_learners.settings import check_episodes
from kd_marl.deploy import play
from kd_marl.deploy.agent_process import BadRadio
from kd_marl.deploy.settings import measured_student, other_episodes, play_settings
from kd_marl.plugin import register
from kd_onboard.backend import BACKENDS
from kd_onboard.bundle import Bundle, read_bundle
from kd_onboard.errors import OnboardError
from kd_onboard.sampling import Generator
from kd_onboard.signature import admit

DEFAULT_EPISODES = 100


def run(args: argparse.Namespace) -> int:
    """Play the bundle of the command's arguments and print both scores; returns the exit status."""
    host = get_host()
    if args.backend not in BACKENDS:
        raise UserError(f"there is no backend '{args.backend}'; {nearest(args.backend, BACKENDS)}")
    try:
        if args.sample is not None:
            Generator(args.sample)
        bundle = read_bundle(args.bundle)
        # Here too, so that a bundle that is not admitted is refused before anything is built.
        admit(bundle, args.key, args.backend == "c", args.trust)
    except OnboardError as error:
        raise UserError(str(error)) from None
    register.register(host)
    profile = bundle.profile
    student = measured_student(profile, args.sample is not None)
    episodes = args.episodes if args.episodes is not None else student.get("episodes") or DEFAULT_EPISODES
    check_episodes(episodes)
    settings = play_settings(host, args.env_config, args.updates, profile)
    if args.json:
        files.check_parent(args.json)
    radio = _radio(args, bundle, settings.seed)
    mask = play.prepare(host, bundle, settings)
    try:
        options = (args.backend, args.key, args.trust, args.sample, radio)
        played, count = play.play_bundle(host, bundle, settings, mask, episodes, *options)
    except KeyboardInterrupt:
        print("stopped: nothing was measured", file=sys.stderr)
        return 130
    difference = other_episodes(profile, settings, episodes)
    result = {
        "task": bundle.task.name,
        "backend": args.backend,
        "seed": settings.seed,
        "sample": args.sample,
        "bundle": {**played.score(), "episodes": episodes},
        "torch": dict(student),
        "same_episodes": not difference,
    }
    if radio is not None:
        result["messages"] = {
            **{"loss": radio.loss, "delay": radio.delay, "due": count.due},
            "lost": count.due - count.heard,
        }
    print(_text(result, difference))
    if args.json:
        files.write_json(args.json, result)
    return 0


def _radio(args: argparse.Namespace, bundle: Bundle, seed: int) -> BadRadio | None:
    """Read what the messages of a talking team go through; None for a silent one.

    Raises:
        UserError: an impossible loss or delay, or one for a team that is silent.
    """
    loss, delay = args.message_loss, args.message_delay
    if not any(agent.messages for agent in bundle.agents):
        for option, given in (("--message-loss", loss), ("--message-delay", delay)):
            if given is not None:
                raise UserError(f"{option} is for agents that talk, and this bundle's are silent: leave it out")
        return None
    if loss is not None and not 0.0 <= loss <= 1.0:
        raise UserError(f"--message-loss is {loss:g}: expected a probability from 0 to 1")
    if delay is not None and delay < 0:
        raise UserError(f"--message-delay is {delay}: expected a whole number of steps of at least 0")
    return BadRadio(loss or 0.0, delay or 0, seed)


def _text(result: Mapping[str, Any], difference: str) -> str:
    """Return both scores with 95 % intervals, one a line, and whether they are of the same episodes."""
    rows = [(f"bundle, {result['backend']}", result["bundle"]), ("torch student", result["torch"])]
    drawn = "" if result["sample"] is None else f", actions drawn with seed {result['sample']}"
    lines = [f"{result['task']}, seed {result['seed']}, one process an agent{drawn}", ""]
    lines.append(f"{'':<18}{'episodes':>9}  {'return':>9}  {'95 % interval':<22}{'win rate':>9}  95 % interval")
    for name, score in rows:
        if score.get("return_mean") is None:
            lines.append(f"{name:<18} not in the profile")
            continue
        low, high = mean_interval(score["return_mean"], score["return_std"], score["episodes"])
        line = f"{name:<18}{score['episodes']:>9}  {score['return_mean']:>9.3f}  {f'{low:.3f} to {high:.3f}':<22}"
        if (wins := score.get("win_rate")) is not None:
            low, high = share_interval(wins, score["episodes"])
            line += f"{wins:>9.1%}  {low:.1%} to {high:.1%}"
        lines.append(line.rstrip())
    if result["torch"].get("return_mean") is not None:
        same = f"other episodes ({difference})" if difference else "the same episodes"
        same += "" if result["sample"] is None else ", other random numbers for the actions"
        lines += ["", f"{same}; difference of the mean returns {_difference(result):+.4f}"]
    if (radio := result.get("messages")) is not None:
        share = f" ({radio['lost'] / radio['due']:.1%})" if radio["due"] else ""
        lines += ["", f"messages over UDP: {radio['due']} were due, {radio['lost']} of them lost{share}"]
    return "\n".join(lines)


def _difference(result: Mapping[str, Any]) -> float:
    return float(result["bundle"]["return_mean"] - result["torch"]["return_mean"])
