"""The work of `kd-marl masks`: who sees what in a task, before anything is trained."""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from kd_core.config import assemble, parse_command
from kd_core.errors import UserError
from kd_core.host import Host, get_host
from kd_envs.hetero_mask import default_widths, mask_text, read_masks
from kd_envs.smax.simulator import MOVES, OBS_OWN, OBS_UNIT
from kd_runners import environments


def masks(args: argparse.Namespace) -> int:
    """Print who sees what; returns the exit status."""
    if args.width < 1:
        raise UserError(f"a network is at least 1 wide: give --width 32, for example, not {args.width}")
    host = get_host()
    environments.register(host)
    map_name = args.map_name
    if args.n_agents is not None and not (args.key or map_name):
        # Sizes are all that its masks depend on.
        map_name = f"{args.n_agents}_vs_{args.n_enemies}"
    updates = [f"env_args.{key}={value}" for key, value in (("key", args.key), ("map_name", map_name)) if value]
    # The algorithm plays no part in who sees what; any stock one completes the configuration.
    command = parse_command(["--config=mappo", f"--env-config={args.env_config}", "with", *updates])
    naming = "add --key (for example --key pz-mpe-simple-spread-v3) or --map-name (for example --map-name 3m)"
    config: dict[str, Any] = assemble(host, command, naming)
    for update in updates:
        key, value = update.removeprefix("env_args.").split("=", 1)
        config["env_args"][key] = value
    config.update(limits=args.limits, masks_preset=args.masks_preset, masks=read_masks(args.masks))
    config["own_action"] = args.own_action
    settings = SimpleNamespace(**config)
    info = _described(host, settings) if args.n_agents is None else _sized(args, settings)
    mask = environments.task_mask(settings, info)
    widths = default_widths(mask.layout, mask, args.limits, args.width)
    print(mask_text(mask, widths, columns=max(Console().width, 100)), end="")
    return 0


def _described(host: Host, settings: Any) -> dict[str, Any]:
    """Return the facts that the environment states of itself."""
    environments.check_installed(host, settings)
    settings.env_args["seed"] = 0
    return environments.probe(host, settings)


def _sized(args: argparse.Namespace, settings: Any) -> dict[str, Any]:
    """Return the facts that SMAX would state for a battle of these sizes.

    Raises:
        UserError: the environment is another, or the sizes are none.
    """
    if settings.env != "smax":
        raise UserError(f"--n-agents is for --env-config smax; {args.env_config} says its sizes itself: leave it out")
    if args.n_enemies is None or min(args.n_agents, args.n_enemies) < 1:
        raise UserError("a battle's sizes are two numbers of at least 1: give --n-agents 5 --n-enemies 6, for example")
    others = args.n_agents - 1 + args.n_enemies
    size = OBS_UNIT * others + OBS_OWN
    sizes = {"n_agents": args.n_agents, "n_enemies": args.n_enemies, "n_actions": MOVES + args.n_enemies}
    return {**sizes, "obs_shape": size, "family": "smax"}
