"""Which disturbances a student is put through, and what cannot be tried on its task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kd_core.errors import UserError, nearest
from kd_envs.hetero_mask.layouts import FeatureLayout
from kd_envs.hetero_mask.naming import action_names, noop_action
from kd_envs.jax_support import load
from kd_envs.smax import map_facts
from kd_marl.stress.disturbances import Delay, Dropout, Noise, feature_groups
from kd_marl.stress.envs import Trouble

# Kinds that the teacher, which has no radio, does not meet.
RADIO_KINDS = ("message loss", "message delay", "jam")
KINDS = ("none", "dropout", "noise", "delay", "dead", "map", *RADIO_KINDS)
DROPOUT, NOISE, DELAY = (0.1, 0.2, 0.5), (0.1, 0.2, 0.5, 1.0), (1, 2, 3)
MESSAGE_LOSS, MESSAGE_DELAY = (0.1, 0.2, 0.5), (1, 2)


@dataclass(frozen=True)
class Trial:
    """One disturbance that teacher and student meet.

    Attributes:
        kind: one of `KINDS`.
        name: for people; no two trials share one.
        level: probability, standard deviations, steps, or the index of the dead or jammed agent; None where there is
            none.
        task: whose episodes are played.
    """

    kind: str
    name: str
    level: float | None
    task: str

    @property
    def order(self) -> tuple[int, float, str]:
        """Return its place among others."""
        return KINDS.index(self.kind), self.level or 0.0, self.name


@dataclass(frozen=True)
class Wanted:
    """What the user asked for; None: the default of that kind, an empty sequence: none of it.

    Attributes:
        dropout: probabilities, 0 to 1.
        noise: standard deviations, at least 0.
        delay: steps, at least 0.
        dead: agents by index or name; by default each.
        maps: other maps; by default all of equal sizes.
        message_loss: probabilities, 0 to 1; nothing by default where the students are silent.
        message_delay: steps beyond the trained latency, at least 0; the same.
        jam: agents by index or name; by default each in turn where they talk.
    """

    dropout: Sequence[float] | None = None
    noise: Sequence[float] | None = None
    delay: Sequence[int] | None = None
    dead: Sequence[str] | None = None
    maps: Sequence[str] | None = None
    message_loss: Sequence[float] | None = None
    message_delay: Sequence[int] | None = None
    jam: Sequence[str] | None = None


def undisturbed(task: str) -> Trial:
    """Return the trial that all others are compared with."""
    return Trial("none", "none", None, task)


def plan(wanted: Wanted, args: Any, layout: FeatureLayout) -> tuple[list[Trial], list[str]]:
    """Return the trials in order, without the undisturbed one.

    Args:
        wanted: what the user asked for.
        args: the run's namespace.
        layout: of the task's observations.

    Returns:
        The trials, and one line for each thing that cannot be tried here or needs a word.

    Raises:
        UserError: a level that is none, an unknown agent, or a map on which the networks do not fit.
    """
    task, trials = args.map_name, []
    for p in _given(wanted.dropout, DROPOUT):
        _check_probability("--dropout", p)
        trials.append(Trial("dropout", f"dropout {_short(p)}", float(p), task))
    for sigma in _given(wanted.noise, NOISE):
        if not (math.isfinite(sigma) and sigma >= 0):
            raise UserError(f"--noise {sigma:g} is no standard deviation: give numbers of at least 0")
        trials.append(Trial("noise", f"noise {_short(sigma)}", float(sigma), task))
    for steps in _given(wanted.delay, DELAY):
        _check_steps("--delay", steps)
        trials.append(Trial("delay", f"delay {steps}", float(steps), task))
    names = layout.agent_names
    for agent in [_agent("--dead", word, names) for word in _given(wanted.dead, names)]:
        trials.append(Trial("dead", f"dead {names[agent]}", float(agent), task))
    maps, remark = _maps(wanted.maps, args, layout)
    trials += [Trial("map", f"map {name}", None, name) for name in maps]
    trials += _radio_trials(wanted, args, names)
    notes = _without_idle(trials, args, layout) + ([remark] if remark else [])
    return list(dict.fromkeys(trials)), notes


def _radio_trials(wanted: Wanted, args: Any, names: Sequence[str]) -> list[Trial]:
    """Return what the team's radio is put through.

    Raises:
        UserError: a silent team's radio shall fail, or a level that is none.
    """
    talks = bool(getattr(args, "message_bits", 0))
    asked = {
        "--message-loss": wanted.message_loss,
        "--message-delay": wanted.message_delay,
        "--jam": wanted.jam,
    }
    for option, levels in asked.items():
        if levels and not talks:
            raise UserError(f"{option} is for students that talk, and these are silent (message_bits=0): leave it out")
    if not talks:
        return []
    task, trials = args.map_name, []
    for p in _given(wanted.message_loss, MESSAGE_LOSS):
        _check_probability("--message-loss", p)
        trials.append(Trial("message loss", f"message loss {_short(p)}", float(p), task))
    for steps in _given(wanted.message_delay, MESSAGE_DELAY):
        _check_steps("--message-delay", steps)
        trials.append(Trial("message delay", f"message delay {steps}", float(steps), task))
    for agent in [_agent("--jam", word, names) for word in _given(wanted.jam, names)]:
        trials.append(Trial("jam", f"jam {names[agent]}", float(agent), task))
    return trials


def _check_probability(option: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise UserError(f"{option} {p:g} is no probability: give numbers from 0 to 1")


def _check_steps(option: str, steps: int) -> None:
    if steps < 0:
        raise UserError(f"{option} {steps} is no number of steps: give whole numbers of at least 0")


def _short(level: float) -> str:
    """Return a level as a name has it: no two levels share one."""
    return f"{level:g}" if float(f"{level:g}") == level else repr(float(level))


def trouble(trial: Trial, args: Any, layout: FeatureLayout, scale: np.ndarray) -> Trouble:
    """Return the disturbance of a trial.

    Args:
        trial: which.
        args: the run's namespace.
        layout: of the task's observations.
        scale: ``(agents, obs_size)``: the features' standard deviations over undisturbed play.
    """
    level = trial.level or 0.0
    if trial.kind == "dropout":
        return Trouble(Dropout(feature_groups(layout), level))
    if trial.kind == "noise":
        return Trouble(Noise(scale, level))
    if trial.kind == "delay":
        return Trouble(Delay(int(level)))
    if trial.kind == "dead":
        return Trouble(dead=int(level), idle=_idle(int(level), args, layout))
    if trial.kind == "message loss":
        return Trouble(message_loss=level)
    if trial.kind == "message delay":
        return Trouble(message_delay=int(level))
    if trial.kind == "jam":
        return Trouble(jammed=int(level))
    return Trouble()


def equal_maps(task: str) -> list[str]:
    """Return the other maps of SMAX on which networks made for ``task`` fit: as many allies and as many enemies.

    Raises:
        UserError: there is no map ``task``, or JaxMARL is not installed.
    """
    known = load("jaxmarl.environments.smax.smax_env").MAP_NAME_TO_SCENARIO
    sizes = map_facts(task)
    return [name for name in known if name != task and map_facts(name) == sizes]


def _given(wanted: Sequence[Any] | None, default: Sequence[Any]) -> list[Any]:
    return list(default if wanted is None else wanted)


def _agent(option: str, word: str, names: Sequence[str]) -> int:
    if word in names:
        return names.index(word)
    if word.isdecimal() and int(word) < len(names):
        return int(word)
    raise UserError(f"{option} {word} is no agent; {nearest(word, [*names, *map(str, range(len(names)))])}")


def _idle(agent: int, args: Any, layout: FeatureLayout) -> int | None:
    return noop_action(action_names(args.env, layout.task, layout.agent_names[agent], args.n_actions))


def _without_idle(trials: Sequence[Trial], args: Any, layout: FeatureLayout) -> list[str]:
    agents = [int(trial.level or 0) for trial in trials if trial.kind == "dead"]
    names = [layout.agent_names[agent] for agent in agents if _idle(agent, args, layout) is None]
    some = ", ".join(dict.fromkeys(names))
    return [f"no action of {some} does nothing: dead, it repeats the first one that is available"] if names else []


def _maps(wanted: Sequence[str] | None, args: Any, layout: FeatureLayout) -> tuple[list[str], str]:
    """Return the maps to play, and the reason if there is none."""
    if wanted is not None and not wanted:
        return [], ""
    if args.env == "smax":
        fit = equal_maps(args.map_name)
        reason = f"no other map of SMAX has the sizes of {args.map_name}, so the networks fit none"
    else:
        fit = []
        reason = (
            "another number of landmarks or agents changes the length of an observation, so the networks fit no other"
            if layout.task != args.map_name and args.env == "gymma"
            else f"unseen maps are known for smax only, not for {args.env}"
        )
    for name in wanted or ():
        if name not in fit:
            raise UserError(
                f"--maps {name}: " + (f"networks of {args.map_name} fit {', '.join(fit)}" if fit else reason)
            )
    return list(fit if wanted is None else wanted), "" if fit else f"no unseen map: {reason}"
