"""Environments as the host's runners build them: packages checked, limits applied, time limits flagged."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import multiprocessing
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from epymarl_lite.envs.starcraft import missing_starcraft
from kd_core import checkpoints
from kd_core.errors import UserError, nearest
from kd_core.host import Host, add
from kd_core.task import Task, check_equal_sizes, of_task, task_names
from kd_envs.hetero_mask.battles import battle_facts
from kd_envs.hetero_mask.known_layouts import layout_for
from kd_envs.hetero_mask.mask import ObservationMask
from kd_envs.hetero_mask.presets import mask_for
from kd_envs.hetero_mask.wrapper import MaskedBatch, MaskedEnv
from kd_envs.mpe import batched_mpe
from kd_envs.own import own_env
from kd_envs.smax import SmaxBatch
from kd_envs.smax.env import SmaxEnv
from kd_envs.traffic.env import TrafficEnv
from kd_envs.vmas_batch import batched_vmas
from kd_envs.warehouse_batch import batched_warehouse
from kd_runners.checked_env import CheckedEnv
from kd_runners.time_limits import TimeLimits, is_known, own_limit

_log = logging.getLogger(__name__)

# Environment -> the package it needs, and how to install it.
_NEEDS = {
    "sc2": (
        "smac.env",
        "SMAC and StarCraft II: pip install git+https://github.com/oxwhirl/smac (PyPI's 'smac' is another program)",
    ),
    "sc2v2": ("smacv2.env", "SMACv2 and StarCraft II: pip install git+https://github.com/oxwhirl/smacv2"),
    # Its dependencies would overwrite the pygame of the particle environments.
    "smaclite": (
        "smaclite.env",
        "SMAClite: pip install --no-deps git+https://github.com/uoe-agents/smaclite && pip install rtree scikit-learn",
    ),
}
_NEED_STARCRAFT = ("sc2", "sc2v2")


def batched_gymma(size: int, **env_args: Any) -> Any:
    """Build the first back end that steps environments of gymma's ``env_args`` together; None if there is none."""
    for build in (batched_mpe, batched_warehouse, batched_vmas):
        envs = build(size, **env_args)
        if envs is not None:
            return envs
    return None


# Environments that can be stepped many at a time: name -> builder of a VectorEnv from its size and env_args. The
# builder returns None where it has no such back end for these env_args.
BATCHED: dict[str, Callable[..., Any]] = {"gymma": batched_gymma, "smax": SmaxBatch}


def register(host: Host) -> None:
    """Add the environments that the plug-in brings."""
    add(host.envs, "smax", SmaxEnv)
    add(host.envs, "traffic", TrafficEnv)
    add(host.envs, "own", own_env)


def check_installed(host: Host, args: Any) -> None:
    """Refuse an environment that cannot be built here, before any process starts.

    Raises:
        UserError: an unknown environment, a package that is not installed, or a missing StarCraft II.
    """
    name = args.env
    if name not in host.envs and name not in _NEEDS:
        raise UserError(f"env '{name}' is not registered; {nearest(name, [*host.envs, *_NEEDS])}")
    package, install = _NEEDS.get(name, ("", ""))
    if package and not _installed(package):
        raise UserError(f"env '{name}' needs {install}; without StarCraft II use --env-config=smax")
    if name in _NEED_STARCRAFT:
        problem = missing_starcraft()
        if problem:
            raise UserError(f"env '{name}' needs {problem}, or use --env-config=smax")
        host.register_starcraft(name)


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def is_limited(args: Any) -> bool:
    """Tell whether some agent of the run sees less than everything."""
    return checkpoints.hides(vars(args))


def prepare(host: Host, args: Any) -> Task:
    """Describe a run's task, and put its sizes into the namespace as the host's own loop does.

    Args:
        host: its registered environments are used.
        args: the run's namespace; ``n_agents``, ``n_actions`` and ``state_shape`` are set.

    Raises:
        UserError: the environment is unknown, not installed, or cannot be built with its arguments; or the run is on
            several tasks, of different sizes.
    """
    check_installed(host, args)
    infos = {name: probe(host, of_task(args, name)) for name in task_names(args.map_name)}
    check_equal_sizes(infos)
    info = next(iter(infos.values()))
    args.n_agents, args.n_actions, args.state_shape = info["n_agents"], info["n_actions"], info["state_shape"]
    return Task(
        args.map_name,
        info["n_agents"],
        info["n_actions"],
        info["obs_shape"],
        info["state_shape"],
        info["episode_limit"],
        info,
    )


def probe(host: Host, args: Any) -> dict[str, Any]:
    """Build the environment once, in a process of its own, and return the facts that `describe` reads from it.

    A wrong environment argument or a missing package is then one line here. Later it would be a dead or hanging worker.

    Raises:
        UserError: it cannot be built (the message ends with its own error), or two of its arguments contradict each
            other.
    """
    env_args = {
        **args.env_args,
        "common_reward": args.common_reward,
        "reward_scalarisation": args.reward_scalarisation,
    }
    limit, cycles = (args.env_args.get(key) for key in ("time_limit", "max_cycles"))
    if isinstance(limit, int) and isinstance(cycles, int) and cycles <= limit:
        raise UserError(
            f"env_args.max_cycles={cycles} would end an episode of env_args.time_limit={limit} steps without its last "
            f"reward: set env_args.max_cycles={limit + 1} too"
        )
    receiver, sender = multiprocessing.Pipe(duplex=False)
    build = host.envs[args.env]
    child = multiprocessing.get_context("fork").Process(target=_describe, args=(sender, build, env_args), daemon=True)
    child.start()
    sender.close()
    try:
        info, known, problem = receiver.recv()
    except EOFError:
        info, known, problem = None, True, "the process that built it died"
    child.join()
    if problem:
        raise UserError(f"env '{args.env}' cannot be built for {args.map_name}: {problem}")
    if args.env == "gymma" and not known:
        _log.warning(
            "%s states no time limit of its own (spec.max_episode_steps, max_cycles, _max_episode_steps): if it ends "
            "episodes for want of time, return truncated=True there, or they are learnt as true ends",
            args.map_name,
        )
    return info


def _describe(sender: Any, build: Callable[..., Any], env_args: dict[str, Any]) -> None:
    die_with_parent()
    try:
        env = build(**env_args)
        sender.send((describe(env), is_known(env), ""))
        env.close()
    except UserError as error:
        sender.send((None, True, str(error)))
    except Exception as error:
        sender.send((None, True, f"{type(error).__name__}: {' '.join(str(error).split())}"))


def describe(env: Any) -> dict[str, Any]:
    """Return a built environment's ``get_env_info()``, with the facts that its feature layout needs."""
    return {**env.get_env_info(), **battle_facts(env)}


def task_mask(args: Any, info: Mapping[str, Any]) -> ObservationMask:
    """Build the mask that a run's keys ask for.

    They are ``limits``, ``masks_preset``, ``masks``, ``own_action`` and ``sensor_status``.

    Args:
        args: the run's namespace.
        info: the facts of `probe` or `describe`.
    """
    layout = layout_for(args.map_name, info["n_agents"], info["obs_shape"], info)
    own_actions = info["n_actions"] if args.own_action and is_limited(args) else 0
    # A run of before there was the key has none.
    sensor_status = getattr(args, "sensor_status", False)
    if type(sensor_status) is not bool:
        raise UserError(f"sensor_status is {sensor_status!r}: expected True or False")
    return mask_for(layout, args.limits, args.masks_preset, args.masks, own_actions, sensor_status)


class Factory:
    """Builder in the host's registry during a run: builds its environment, limited as the run asks.

    Args:
        host: its registered environment is built.
        args: the run's namespace.
        mask: the mask that the environment applies; None where it applies none.
    """

    def __init__(self, host: Host, args: Any, mask: ObservationMask | None) -> None:
        self._build = host.envs[args.env]
        self._name = args.env
        self._task = args.map_name
        self._tell_limits = not args.treat_truncation_as_terminal
        self._bundled = host.is_bundled
        self._mask = mask

    def __call__(self, **env_args: Any) -> Any:
        """Build one environment, in the worker that will step it."""
        die_with_parent()
        env = self._build(**env_args)
        if self._name == "gymma" and not self._bundled:
            env = started_at_zero(env)
        if self._tell_limits:
            env = TimeLimits(env, not self._bundled, own_limit(env) if self._name == "gymma" else None)
        env = CheckedEnv(env, self._task, env_args["common_reward"])
        if self._mask is not None:
            env = MaskedEnv(env, self._mask, seed=env_args["seed"])
        return env

    def batched(self, size: int, **env_args: Any) -> Any:
        """Build ``size`` environments that are stepped in one call; None if there is no such back end."""
        build = BATCHED.get(self._name)
        envs = build(size, **env_args) if build else None
        return envs if envs is None or self._mask is None else MaskedBatch(envs, self._mask, seed=env_args["seed"])


class _StartedAtZero:
    """Environment wrapper for action spaces whose first action is not 0, which EPyMARL's wrapper does not read."""

    def __init__(self, env: Any, starts: Sequence[int]) -> None:
        self._env, self._starts = env, starts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def step(self, actions: Any) -> Any:
        """Play one joint action, counted from 0."""
        return self._env.step([int(action) + start for action, start in zip(actions, self._starts, strict=True)])


def started_at_zero(env: Any) -> Any:
    """Let a checkout's gymma environment be played with actions that count from 0, whatever its spaces begin with."""
    starts = [int(getattr(space, "start", 0)) for space in env._env.action_space]
    return _StartedAtZero(env, starts) if any(starts) else env


def die_with_parent() -> None:
    """Ask the kernel, on Linux, to end this worker when its parent ends."""
    if multiprocessing.parent_process() is not None and sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
