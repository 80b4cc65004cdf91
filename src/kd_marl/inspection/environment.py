"""What an environment that is played at random lacks for training."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from epymarl_lite.utils.errors import EnvironmentFaultError
from kd_core.errors import UserError
from kd_envs.hetero_mask.known_layouts import layout_for
from kd_envs.hetero_mask.layouts import ranges
from kd_envs.hetero_mask.stated_layout import layout_fault
from kd_envs.worlds import read_world
from kd_runners.checked_env import CheckedEnv
from kd_runners.environments import describe
from kd_runners.time_limits import TimeLimits, is_known

Verdict = Literal["ok", "note", "missing"]
Builder = Callable[..., Any]

_METHODS = ("reset", "step", "get_obs", "get_state", "get_avail_actions", "get_env_info", "get_stats", "close")
_SIZES = ("n_agents", "n_actions", "obs_shape", "state_shape", "episode_limit")
# Episodes that are played at most; steps of an episode that are compared between two environments of one seed.
_EPISODES, _COMPARED = 1000, 1000
# Numbers beyond this make networks learn slowly.
_LARGE = 100.0


@dataclass(frozen=True)
class Finding:
    """One line of the outcome.

    Attributes:
        verdict: ``missing`` is what training needs; a ``note`` may be as it should.
        subject: what was looked at.
        text: what was found, and what to do.
    """

    verdict: Verdict
    subject: str
    text: str


@dataclass
class _Play:
    """What random play has shown."""

    starts: list[np.ndarray] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    ends: list[tuple[bool, bool]] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    actions: list[list[np.ndarray]] = field(default_factory=list)
    seen: list[list[np.ndarray]] = field(default_factory=list)
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    offered: np.ndarray | None = None
    refused: bool = False
    steps: int = 0
    seconds: float = 0.0

    def look(self, env: Any, reward: float = 0.0) -> np.ndarray:
        """Read all views of the environment, and note them with the step's reward; returns the available actions."""
        obs, available = np.asarray(env.get_obs(), np.float64), np.asarray(env.get_avail_actions()) > 0
        state = np.asarray(env.get_state(), np.float64)
        self.seen[-1].append(np.concatenate([obs.reshape(-1), state, available.reshape(-1), [reward]]))
        self.low = obs if self.low is None else np.minimum(self.low, obs)
        self.high = obs if self.high is None else np.maximum(self.high, obs)
        self.offered = available if self.offered is None else self.offered | available
        self.refused |= not available.all()
        return available


def examine(name: str, build: Builder, seconds: float) -> list[Finding]:
    """Check an environment.

    Args:
        name: what the user calls it; known names have a layout.
        build: ``seed`` -> a new environment with EPyMARL's interface and one reward for the team.
        seconds: for which it is played, two episodes at least.

    Returns:
        What was found, in the order in which it must be corrected. It ends where nothing more can be said.
    """
    try:
        raw = build(seed=1)
    except UserError:
        raise
    except Exception as error:
        return [Finding("missing", "construction", _not_built(error))]
    lacks = [f"{method}()" for method in _METHODS if not callable(getattr(raw, method, None))]
    if lacks:
        return [Finding("missing", "interface", f"no {', '.join(lacks)}: {_interface_hint(raw)}")]
    findings = [Finding("ok", "interface", "all methods are there")]
    info, problem = _sizes(raw)
    if problem:
        return [*findings, Finding("missing", "sizes", problem)]
    shown = ", ".join(f"{key} {info[key]}" for key in _SIZES)
    findings.append(Finding("ok", "sizes", shown))

    play = _Play()
    try:
        endless = _play(CheckedEnv(raw, name, common_reward=True), info, play, seconds)
    except EnvironmentFaultError as fault:
        what = str(fault).removeprefix(f"environment {name}, ").removesuffix("; correct the environment")
        return [*findings, Finding("missing", "play", f"{what}; correct it, then check again")]
    if endless:
        return [*findings, endless]
    findings.append(Finding("ok", "play", f"{len(play.lengths)} episodes at random, all numbers finite and in shape"))
    findings.append(_time_limit(play, info["episode_limit"], raw))
    findings += [_seeding(name, build, play), _available(play), _rewards(play)]
    findings += [*_features(name, raw, play), _picture(raw)]
    speed = play.steps / max(play.seconds, 1e-9)
    findings.append(
        Finding("ok", "speed", f"{speed:,.0f} steps/s in one process; a million steps take {_span(1e6 / speed)}")
    )
    try:
        raw.close()
    except Exception as error:
        findings.append(Finding("missing", "close", f"close() failed with {_reason(error)}: let it end quietly"))
    return findings


def _not_built(error: Exception) -> str:
    if isinstance(error, TypeError) and any(
        f"'{key}'" in str(error) for key in ("seed", "common_reward", "reward_scalarisation")
    ):
        return f"{_reason(error)}: let the constructor take seed, common_reward and reward_scalarisation"
    return f"the constructor failed with {_reason(error)}: correct it, or give its arguments with --args key=value"


def _interface_hint(env: Any) -> str:
    if hasattr(env, "observation_space") or hasattr(env, "observation_spaces"):
        return "it looks like Gymnasium's or PettingZoo's interface, which gymma reaches by a registered key"
    return "kd-marl env new writes a template with every method"


def _sizes(env: Any) -> tuple[dict[str, Any], str]:
    """Read the sizes; the second is what is wrong with them, or empty."""
    try:
        info = env.get_env_info()
    except Exception as error:
        return {}, f"get_env_info() failed with {_reason(error)}: let it return a dict with {', '.join(_SIZES)}"
    if not isinstance(info, Mapping):
        return {}, f"get_env_info() gives {type(info).__name__}: expected a dict with {', '.join(_SIZES)}"
    absent = [key for key in _SIZES if key not in info]
    if absent:
        return {}, f"get_env_info() lacks {', '.join(absent)}: add them as whole numbers"
    for key in _SIZES:
        value = info[key]
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            hint = "; flatten what it describes" if isinstance(value, (tuple, list)) else ""
            return {}, f"get_env_info() has {key} {value!r}: expected a whole number of at least 1{hint}"
    return {**info, **{key: int(info[key]) for key in _SIZES}}, ""


def _play(env: Any, info: Mapping[str, Any], play: _Play, seconds: float) -> Finding | None:
    """Play at random; returns what is wrong with an episode that does not end."""
    random = np.random.default_rng(0)
    begun = time.monotonic()
    while len(play.lengths) < 2 or (time.monotonic() - begun < seconds and len(play.lengths) < _EPISODES):
        play.actions.append([])
        play.seen.append([])
        before = time.perf_counter()
        env.reset()
        play.seconds += time.perf_counter() - before
        available = play.look(env)
        play.starts.append(play.seen[-1][0])
        total, steps = 0.0, 0
        while True:
            actions = np.array([random.choice(np.flatnonzero(row)) for row in available])
            before = time.perf_counter()
            _, reward, terminated, truncated, _ = env.step(actions)
            play.seconds += time.perf_counter() - before
            steps += 1
            earned = float(np.sum(reward))
            total += earned
            if len(play.actions[-1]) < _COMPARED and len(play.lengths) < 2:
                play.actions[-1].append(actions)
            if terminated or truncated:
                play.look(env, earned)
                break
            if steps > info["episode_limit"]:
                return Finding(
                    "missing",
                    "time limit",
                    f"an episode goes on after episode_limit={info['episode_limit']} steps: return truncated=True"
                    " at that step, or announce a larger one",
                )
            available = play.look(env, earned)
        if len(play.lengths) >= 2:
            play.seen[-1].clear()
        play.lengths.append(steps)
        play.returns.append(total)
        play.ends.append((bool(terminated), bool(truncated)))
        play.steps += steps
    return None


def _time_limit(play: _Play, limit: int, env: Any) -> Finding:
    reached = [end for end, length in zip(play.ends, play.lengths, strict=True) if length == limit]
    shortest, longest = min(play.lengths), max(play.lengths)
    span = f"{longest} steps" if shortest == longest else f"{shortest} to {longest} steps"
    if reached and all(terminated and not truncated for terminated, truncated in reached):
        return Finding(
            "missing",
            "time limit",
            f"all {len(reached)} episodes of episode_limit={limit} steps end with terminated=True: return"
            " terminated=False, truncated=True where only time is over, or the critic learns that the world ends there",
        )
    if reached:
        return Finding("ok", "time limit", f"episodes of {span}; at {limit} they are truncated")
    if any(truncated for _, truncated in play.ends):
        return Finding(
            "note", "time limit", f"episodes are truncated after {span}: announce that as episode_limit, not {limit}"
        )
    if isinstance(env, TimeLimits) and not is_known(env):
        return Finding(
            "note",
            "time limit",
            f"episodes end after {span} and no limit is stated: if that is for want of time, return truncated=True",
        )
    return Finding("ok", "time limit", f"episodes end by themselves after {span}, before episode_limit={limit}")


def _seeding(name: str, build: Builder, play: _Play) -> Finding:
    """Play the first two episodes again in a new environment of the same seed, and begin two of another."""
    others = _Play()
    try:
        differs = _first_difference(CheckedEnv(build(seed=1), name, common_reward=True), play)
        if differs:
            text = f"two environments with seed=1 and the same actions differ in {differs}"
            return Finding("missing", "seeding", f"{text}: draw every random number from np.random.default_rng(seed)")
        other = CheckedEnv(build(seed=2), name, common_reward=True)
        for _ in range(2):
            others.seen.append([])
            other.reset()
            others.look(other)
        other.close()
    except EnvironmentFaultError as fault:
        return Finding("missing", "seeding", f"played again, {fault}")
    except Exception as error:
        return Finding(
            "missing", "seeding", f"a second environment failed with {_reason(error)}: let many exist at once"
        )
    same_seed = np.array_equal(play.starts[0], others.seen[0][0]) and np.array_equal(play.starts[1], others.seen[1][0])
    if not same_seed and all(np.array_equal(play.starts[0], start) for start in play.starts[1:]):
        return Finding(
            "missing",
            "seeding",
            "every reset() begins the same episode: seed the random numbers in the constructor, not in each reset()",
        )
    if same_seed:
        return Finding(
            "note",
            "seeding",
            "seeds 1 and 2 begin alike: right if nothing is drawn at random, else use the argument seed",
        )
    return Finding("ok", "seeding", "the same seed plays the same episodes, another seed others")


def _first_difference(env: Any, play: _Play) -> str:
    """Play the same actions in another environment; returns where it differs first, or an empty text."""
    for number, (actions, seen) in enumerate(zip(play.actions[:2], play.seen[:2], strict=True), start=1):
        again = _Play(seen=[[]])
        env.reset()
        again.look(env)
        for action in actions:
            again.look(env, float(np.sum(env.step(action)[1])))
        for step, (one, other) in enumerate(zip(again.seen[0], seen, strict=False)):
            if not np.array_equal(one, other):
                return f"step {step} of episode {number}"
    env.close()
    return ""


def _available(play: _Play) -> Finding:
    assert play.offered is not None
    never = [(agent, action) for agent, action in np.argwhere(~play.offered).tolist()]
    if not play.refused:
        return Finding(
            "note", "available actions", "every action was always available: right if none is ever impossible"
        )
    if never:
        agent, action = never[0]
        return Finding(
            "note",
            "available actions",
            f"{len(never)} of {play.offered.size} never were, such as action {action} of agent {agent}: right if that"
            " agent has fewer, or needs more than random play",
        )
    return Finding("ok", "available actions", "each action was available at some time, not always")


def _rewards(play: _Play) -> Finding:
    low, high = min(play.returns), max(play.returns)
    if low == high == 0.0:
        return Finding(
            "note",
            "rewards",
            f"none in {play.steps:,} steps: random play finds nothing to learn from; reward what leads there",
        )
    if low == high:
        return Finding("note", "rewards", f"every episode's return is {low:g}, whatever is done: check the reward")
    if max(abs(low), abs(high)) / max(play.lengths) > _LARGE:
        return Finding(
            "note", "rewards", f"returns of {low:g} to {high:g}: divide rewards, so that a step's is about 1"
        )
    return Finding("ok", "rewards", f"returns of {low:g} to {high:g} in {len(play.returns)} episodes")


def _features(name: str, env: Any, play: _Play) -> list[Finding]:
    assert play.low is not None and play.high is not None
    info = describe(env)
    fault = layout_fault(info)
    if fault:
        return [Finding("missing", "feature names", fault)]
    try:
        layout = layout_for(name, info["n_agents"], info["obs_shape"], info)
    except UserError as error:
        return [Finding("missing", "feature names", str(error))]
    named = any(agent.blocks for agent in layout.agents)
    if named:
        blocks = dict.fromkeys(block for agent in layout.agents for block in agent.blocks)
        findings = [Finding("ok", "feature names", f"blocks {', '.join(blocks)}; kd-marl masks shows all")]
    elif "observation" in info:
        findings = [Finding("note", "feature names", _unfitting(info))]
    elif layout.feature_names[0][:1] != ("0",):
        findings = [Finding("ok", "feature names", "each has a name, none a block")]
    else:
        text = "features are called 0, 1, ...: name them by the key observation of get_env_info(), for masks by name"
        findings = [Finding("note", "feature names", text)]
    still = np.flatnonzero((play.low == play.high).all(axis=0))
    if still.size:
        names = [feature for i in still if (feature := layout.feature_names[0][i]) and feature != str(i)]
        called = f" ({', '.join(names)} of agent 0)" if names else ""
        text = f"{ranges(still.tolist())}{called} never change in random play: leave them out unless they do later"
        findings.append(Finding("note", "features", text))
    largest = np.maximum(np.abs(play.low), np.abs(play.high)).max(axis=0)
    if largest.max() > _LARGE:
        text = (
            f"number {int(largest.argmax())} reaches {largest.max():g}: divide it by its range, networks like -1 to 1"
        )
        findings.append(Finding("note", "features", text))
    return findings


def _unfitting(info: Mapping[str, Any]) -> str:
    """Say why the parts that an environment names are no layout."""
    parts = [(name, units, len(features)) for name, units, features in info["observation"]]
    total = sum(size * (1 if units is None else units) for _, units, size in parts)
    if total != info["obs_shape"]:
        return (
            f"the parts of observation add up to {total} numbers, but obs_shape is {info['obs_shape']}: correct either"
        )
    if any(name == "A" and units != info["n_agents"] - 1 for name, units, _ in parts):
        return f"part A of observation must have {info['n_agents'] - 1} units, one less than there are agents"
    return "observation has no part called O, A, E or T, so there are no blocks: masks by a feature's name work"


def _picture(env: Any) -> Finding:
    try:
        world = read_world(env)
    except UserError as error:
        return Finding("note", "picture", str(error))
    if world is None:
        return Finding(
            "note",
            "picture",
            "no world(): kd-marl watch shows no picture; docs/guides/watching.md says what it returns",
        )
    return Finding("ok", "picture", f"world() has {len(world.shapes)} shapes")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _span(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.0f} h"
    )
