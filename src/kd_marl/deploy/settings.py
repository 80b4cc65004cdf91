"""The settings that a bundle is played with, and whether its episodes are those of the student's own evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from kd_core.config import assemble, parse_command, updated
from kd_core.host import Host
from kd_onboard.profile import Profile

# A bundle is not trusted: beyond these its numbers are ignored, since no run has them.
_LARGEST_SEED, _MOST_ENVIRONMENTS, _MOST_EPISODES = (1 << 32) - 1, 1 << 14, 1 << 20


def play_settings(host: Host, environment: str, words: Sequence[str], profile: Profile) -> SimpleNamespace:
    """Return the configuration of a kd_student run in this environment, with the seed and settings of the bundle's.

    Args:
        host: whose configuration files are read.
        environment: ``--env-config`` of the command.
        words: what follows ``with`` in it.
        profile: the bundle's.
    """
    command = parse_command(["--config=kd_student", f"--env-config={environment}", "with", *words])
    config = assemble(host, command)
    provenance = profile.provenance
    known: dict[str, Any] = {
        key: provenance[key]
        for key, least, most in (("seed", 0, _LARGEST_SEED), ("batch_size_run", 1, _MOST_ENVIRONMENTS))
        if type(provenance.get(key)) is int and least <= provenance[key] <= most
    }
    allowed = {"runner": host.runners, "common_reward": (True, False), "reward_scalarisation": ("sum", "mean")}
    for key, values in allowed.items():
        if isinstance(provenance.get(key), str | bool) and provenance[key] in values:
            known[key] = provenance[key]
    # A bundle is not trusted: only keys that this environment has, and no text, which can name code to be loaded.
    env_args = {
        key: value
        for key, value in _stated_arguments(profile).items()
        if key in config["env_args"] and isinstance(value, bool | int | float)
    }
    config = host.merge(config, {"seed": 0, **known, "env_args": env_args})
    config = updated(host, config, command)
    config["env_args"]["seed"] = config["seed"]
    return SimpleNamespace(**{**config, "device": "cpu", "use_cuda": False})


def other_episodes(profile: Profile, settings: SimpleNamespace, episodes: int) -> str:
    """Return why these episodes are not those that the torch student was evaluated in; empty if they are the same.

    Args:
        profile: the bundle's.
        settings: of :func:`play_settings`.
        episodes: how many are played.
    """
    student = measured_student(profile)
    # Environment i of a block has a seed of its own, so the size of the blocks says which episodes there are; runners
    # seed batched environments otherwise than single ones.
    here = {"seed": settings.seed, "runner": settings.runner, "batch_size_run": settings.batch_size_run}
    rewards = {key: getattr(settings, key) for key in ("common_reward", "reward_scalarisation")}
    other = [key for key, value in {**here, **rewards}.items() if value != profile.provenance.get(key)]
    stated = _stated_arguments(profile)
    shared = sorted(stated.keys() & settings.env_args.keys() - {"seed"})
    other += [f"env_args.{key}" for key in shared if stated[key] != settings.env_args[key]]
    if episodes != student.get("episodes"):
        other.append("number of episodes")
    return f"another {', '.join(other)}" if other else ""


def measured_student(profile: Profile, sampled: bool = False) -> dict[str, Any]:
    """Return the torch student's score. A bundle is not trusted: empty unless it reads as an export writes it.

    Args:
        profile: the bundle's.
        sampled: with drawn actions, instead of its best ones.
    """
    student = profile.measured.get("student")
    if sampled and isinstance(student, dict) and isinstance(student.get("sampled"), dict):
        student = {**student["sampled"], "episodes": student.get("episodes")}
    elif sampled:
        student = None
    if not isinstance(student, dict):
        return {}
    episodes, wins = student.get("episodes"), student.get("win_rate")
    scores = (student.get("return_mean"), student.get("return_std"), 0.0 if wins is None else wins)
    sound = (
        type(episodes) is int
        and 0 < episodes <= _MOST_EPISODES
        and all(type(score) in (int, float) for score in scores)
    )
    return student if sound and 0.0 <= scores[2] <= 1.0 else {}


def _stated_arguments(profile: Profile) -> dict[str, Any]:
    """Return the environment's arguments in the bundle's run; empty if the profile has nonsense in their place."""
    stated = profile.raw["task"].get("env_args")
    return stated if isinstance(stated, dict) else {}
