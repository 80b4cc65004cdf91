"""The work of `kd-marl env`: it copies the template, and finds, builds and checks an environment."""

from __future__ import annotations

import argparse
import functools
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import yaml

from kd_core import files
from kd_core.errors import UserError
from kd_core.host import get_host
from kd_envs.own import find_class
from kd_marl.inspection.environment import Builder, examine
from kd_marl.plugin import register
from kd_runners.time_limits import TimeLimits, own_limit

_TEMPLATE = Path(__file__).parent / "own_environment"


def new(args: argparse.Namespace) -> int:
    """Copy the template to a folder; returns the exit status.

    Raises:
        UserError: a file of it is there already.
    """
    names = ("chargers.py", "chargers.yaml")
    there = next((args.folder / name for name in names if (args.folder / name).exists()), None)
    if there is not None:
        raise UserError(f"{there} is there already: name another folder, as in kd-marl env new my_environment")
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        files.write_bytes(args.folder / name, (_TEMPLATE / name).read_bytes())
    print(f"written: {args.folder / names[0]} and {names[1]}; check it with: kd-marl env check chargers:Chargers")
    return 0


def check(args: argparse.Namespace) -> int:
    """Print the findings; returns 1 if something is missing that training needs."""
    build, trained_by = _builder(args.environment, _arguments(args.args))
    findings = examine(args.environment, build, args.seconds)
    for finding in findings:
        print(f"{finding.verdict:<9}{finding.subject:<18}{finding.text}")
    missing = sum(finding.verdict == "missing" for finding in findings)
    if missing:
        print(f"\n{missing} of {len(findings)} points are missing: correct the environment, then check again")
    else:
        print(f"\nready to train: {trained_by}")
    return int(missing > 0)


def _builder(name: str, given: Mapping[str, Any]) -> tuple[Builder, str]:
    """Find how an environment is built, and the command that trains a teacher in it.

    Raises:
        UserError: neither a class nor an environment of gymma has this name.
    """
    host = get_host()
    register.register(host)
    module, _, last = name.partition(":")
    rewards = {"common_reward": True, "reward_scalarisation": "sum"}
    command = "python src/main.py --config=kd_teacher"
    if not name.startswith(("pz-", "vmas-")) and last.isidentifier():
        found = find_class(name)
        kind = _gymnasium_kind(found)
        if kind:
            raise UserError(
                f"{name} is an environment of {kind}, which gymma reaches by a key: register it in {module}.py with"
                f" gymnasium.register('{last}-v0', entry_point={last}), then check {module}:{last}-v0"
            )
        return functools.partial(found, **{**rewards, **given}), (
            f"{command} --env-config=own with env_args.key={name}"
            if not given
            else f"{command} --env-config=PATH with env_args.key={name}, where PATH.yaml lists {', '.join(given)}"
        )
    limit = given.get("time_limit", 100)

    def build(seed: int) -> Any:
        try:
            defaults = {"time_limit": limit, "pretrained_wrapper": None, **rewards}
            env = host.envs["gymma"](key=name, **{**defaults, **given, "seed": seed})
        except (ValueError, ImportError, gymnasium.error.Error) as error:
            raise UserError(" ".join(str(error).split())) from error
        return TimeLimits(env, not host.is_bundled, own_limit(env))

    return build, f"{command} --env-config=gymma with env_args.key={name} env_args.time_limit={limit}"


def _gymnasium_kind(found: Any) -> str:
    """Name the library whose interface a class has; empty for EPyMARL's."""
    bases = {base.__module__.partition(".")[0] for base in inspect.getmro(found)} if inspect.isclass(found) else set()
    return next(
        (title for base, title in (("gymnasium", "Gymnasium"), ("pettingzoo", "PettingZoo")) if base in bases), ""
    )


def _arguments(words: Sequence[str]) -> dict[str, Any]:
    """Read ``key=value`` words; values are YAML, as on the command line of a run.

    Raises:
        UserError: a word without a key.
    """
    given = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise UserError(f"--args has {word!r}: expected key=value, such as robots=4")
        try:
            given[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--args has {word!r}, whose value cannot be read: write it as in a YAML file") from None
    return given
