"""`kd-marl run`: plays a student bundle, each agent in a process of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from kd_core.errors import UserError, nearest
from kd_core.metrics.intervals import mean_interval, share_interval
from kd_marl.commands.common import Subparsers, add_parser, check_parent

if TYPE_CHECKING:
    from kd_core.host import Host
    from kd_onboard.profile import Profile

DEFAULT_EPISODES = 100


def add(subparsers: Subparsers) -> None:
    """Adds `run`."""
    parser = add_parser(
        subparsers,
        "run",
        "Play a bundle, each agent in a process that receives only its own features, beside the torch student's score.",
        "kd-marl run bundle --env-config=mpe with env_args.key=pz-mpe-simple-spread-v3\n"
        "  kd-marl run bundle --env-config=mpe --backend c --episodes 500 with env_args.key=pz-mpe-simple-spread-v3",
    )
    parser.add_argument("bundle", type=Path, metavar="DIR", help="the bundle's folder, as kd-marl export writes it")
    parser.add_argument("--env-config", required=True, metavar="NAME", help="as for python src/main.py, e.g. mpe")
    parser.add_argument("--backend", default="numpy", help="numpy (the default), onnx, onnx-int8 or c")
    parser.add_argument(
        "--episodes", type=int, help="how many (default: as many as the student's own evaluation, and the same ones)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    # What follows `with` is taken out before argparse looks, see cli.py.
    parser.usage = f"{parser.prog} [options] --env-config NAME DIR with env_args.key=TASK [key=value ...]"
    parser.set_defaults(run=_run, updates=[])


def _run(args: argparse.Namespace) -> int:
    from kd_core.host import get_host

    # First of all: an EPyMARL checkout brings its own `envs` package, which ours joins.
    host = get_host()

    from kd_core import files
    from kd_learners.settings import check_episodes
    from kd_marl.deploy import play
    from kd_marl.plugin import register
    from kd_onboard.backend import BACKENDS
    from kd_onboard.bundle import read_bundle
    from kd_onboard.errors import OnboardError

    if args.backend not in BACKENDS:
        raise UserError(f"there is no backend '{args.backend}'; {nearest(args.backend, BACKENDS)}")
    try:
        bundle = read_bundle(args.bundle)
    except OnboardError as error:
        raise UserError(str(error)) from None
    register.register(host)
    profile = bundle.profile
    student = measured_student(profile)
    episodes = args.episodes if args.episodes is not None else student.get("episodes") or DEFAULT_EPISODES
    check_episodes(episodes)
    settings = play_settings(host, args, profile)
    if args.json:
        check_parent(args.json)
    mask = play.prepare(host, bundle, settings)
    try:
        played = play.play_bundle(host, bundle, settings, mask, episodes, args.backend)
    except KeyboardInterrupt:
        print("stopped: nothing was measured", file=sys.stderr)
        return 130
    difference = other_episodes(profile, settings, episodes)
    result = {
        "task": bundle.task.name,
        "backend": args.backend,
        "seed": settings.seed,
        "bundle": {**played.score(), "episodes": episodes},
        "torch": dict(student),
        "same_episodes": not difference,
    }
    print(_text(result, difference))
    if args.json:
        files.write_json(args.json, result)
    return 0


def play_settings(host: Host, args: argparse.Namespace, profile: Profile) -> SimpleNamespace:
    """The configuration of a run of kd_student in this environment, with the seed and settings of the bundle's run.

    Args:
        host: whose configuration files are read.
        args: of the command: ``env_config``, and ``updates``, the words after ``with``.
        profile: the bundle's.
    """
    from sacred.arg_parser import get_config_updates

    from kd_core.config import assemble, parse_command

    words = ["--config=kd_student", f"--env-config={args.env_config}", "with", *args.updates]
    config = assemble(host, parse_command(words))
    provenance = profile.provenance
    known: dict[str, Any] = {
        key: provenance[key]
        for key, least in (("seed", 0), ("batch_size_run", 1))
        if type(provenance.get(key)) is int and provenance[key] >= least
    }
    allowed = {"runner": host.runners, "common_reward": (True, False), "reward_scalarisation": ("sum", "mean")}
    for key, values in allowed.items():
        if isinstance(provenance.get(key), str | bool) and provenance[key] in values:
            known[key] = provenance[key]
    # A bundle is not trusted: only keys that this environment has, and no text, which can name code to be loaded.
    env_args = {
        key: value
        for key, value in _recorded_arguments(profile).items()
        if key in config["env_args"] and isinstance(value, bool | int | float)
    }
    updates, _ = get_config_updates(args.updates)
    for given in ({"seed": 0, **known, "env_args": env_args}, updates):
        config = host.main.recursive_dict_update(config, given)
    config["env_args"]["seed"] = config["seed"]
    return SimpleNamespace(**{**config, "device": "cpu", "use_cuda": False})


def other_episodes(profile: Profile, settings: SimpleNamespace, episodes: int) -> str:
    """Why these episodes are not those that the torch student was evaluated in; empty if they are the same.

    Args:
        profile: the bundle's.
        settings: of :func:`play_settings`.
        episodes: how many are played.
    """
    student = measured_student(profile)
    # Runs that did not record the length of their episodes seeded the environments of an evaluation otherwise.
    if student and "length_mean" not in student:
        return "the student's run is of an earlier version, which evaluated in others"
    if student and "runner" not in profile.provenance:
        return "the student's run may have had another runner, which its profile does not record"
    # Environment i of a block has a seed of its own, so the size of the blocks says which episodes there are; runners
    # seed batched environments otherwise than single ones.
    here = {"seed": settings.seed, "runner": settings.runner, "batch_size_run": settings.batch_size_run}
    rewards = {
        key: getattr(settings, key) for key in ("common_reward", "reward_scalarisation") if key in profile.provenance
    }
    other = [key for key, value in {**here, **rewards}.items() if value != profile.provenance.get(key)]
    recorded = _recorded_arguments(profile)
    shared = sorted(recorded.keys() & settings.env_args.keys() - {"seed"})
    other += [f"env_args.{key}" for key in shared if recorded[key] != settings.env_args[key]]
    if episodes != student.get("episodes"):
        other.append("number of episodes")
    return f"another {', '.join(other)}" if other else ""


def measured_student(profile: Profile) -> dict[str, Any]:
    """What the torch student scored, if the profile says it as an export does; else empty: a bundle is not trusted."""
    student = profile.measured.get("student")
    if not isinstance(student, dict):
        return {}
    episodes, wins = student.get("episodes"), student.get("win_rate")
    scores = (student.get("return_mean"), student.get("return_std"), 0.0 if wins is None else wins)
    sound = type(episodes) is int and episodes > 0 and all(type(score) in (int, float) for score in scores)
    return student if sound and 0.0 <= scores[2] <= 1.0 else {}


def _recorded_arguments(profile: Profile) -> dict[str, Any]:
    """The arguments of the environment of the bundle's run; empty if the profile has nonsense in their place."""
    recorded = profile.raw["task"].get("env_args")
    return recorded if isinstance(recorded, dict) else {}


def _text(result: Mapping[str, Any], difference: str) -> str:
    """Both scores with 95 % intervals, one a line, and whether they are of the same episodes."""
    rows = [(f"bundle, {result['backend']}", result["bundle"]), ("torch student", result["torch"])]
    lines = [f"{result['task']}, seed {result['seed']}, one process an agent", ""]
    lines.append(f"{'':<18}{'episodes':>9}  {'return':>9}  {'95 % interval':<22}{'win rate':>9}  95 % interval")
    for name, score in rows:
        if score.get("return_mean") is None:
            lines.append(f"{name:<18} not recorded in the profile")
            continue
        low, high = mean_interval(score["return_mean"], score["return_std"], score["episodes"])
        line = f"{name:<18}{score['episodes']:>9}  {score['return_mean']:>9.3f}  {f'{low:.3f} to {high:.3f}':<22}"
        if (wins := score.get("win_rate")) is not None:
            low, high = share_interval(wins, score["episodes"])
            line += f"{wins:>9.1%}  {low:.1%} to {high:.1%}"
        lines.append(line.rstrip())
    if result["torch"].get("return_mean") is not None:
        same = f"other episodes ({difference})" if difference else "the same episodes"
        lines += ["", f"{same}; difference of the mean returns {_difference(result):+.4f}"]
    return "\n".join(lines)


def _difference(result: Mapping[str, Any]) -> float:
    return float(result["bundle"]["return_mean"] - result["torch"]["return_mean"])
