"""`kd-marl masks`: who sees what in a task, before anything is trained."""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any

from kd_marl.commands.common import Subparsers, add_parser


def add(subparsers: Subparsers) -> None:
    """Adds `masks`."""
    parser = add_parser(
        subparsers,
        "masks",
        "Show which features each agent's student sees, and how wide it is.",
        "kd-marl masks --env-config mpe --key pz-mpe-simple-spread-v3 --limits lh --masks-preset paper",
    )
    parser.add_argument("--env-config", required=True, metavar="NAME", help="as for python src/main.py, e.g. mpe")
    parser.add_argument("--key", metavar="TASK", help="env_args.key, e.g. pz-mpe-simple-spread-v3")
    parser.add_argument("--map-name", metavar="MAP", help="env_args.map_name, e.g. 3m")
    parser.add_argument("--limits", default="lh", help="fo (all), lh (limited) or lha (limited, various widths)")
    parser.add_argument("--masks-preset", default="paper", help="paper or random")
    parser.add_argument("--masks", default="{}", metavar="YAML", help="your own limits, e.g. '{0: [L], 1: [V.x, V.y]}'")
    parser.add_argument("--width", type=int, default=32, help="hidden width of a student under fo and lh")
    parser.set_defaults(run=_masks)


def _masks(args: argparse.Namespace) -> int:
    from kd_marl.host import get_host

    # First of all: an EPyMARL checkout brings its own `envs` package, which ours joins.
    host = get_host()

    from rich.console import Console

    from envs.hetero_mask import default_widths, mask_text, read_masks
    from kd_marl import environments
    from kd_marl.launch import assemble, parse_command

    updates = [f"env_args.{key}={value}" for key, value in (("key", args.key), ("map_name", args.map_name)) if value]
    # The algorithm plays no part in who sees what; any stock one completes the configuration.
    command = parse_command(["--config=mappo", f"--env-config={args.env_config}", "with", *updates])
    config: dict[str, Any] = assemble(host, command)
    for update in updates:
        key, value = update.removeprefix("env_args.").split("=", 1)
        config["env_args"][key] = value
    config.update(limits=args.limits, masks_preset=args.masks_preset, masks=read_masks(args.masks))
    settings = SimpleNamespace(**config)
    environments.check_installed(host, settings)
    build = environments.Factory(host, settings, masked=False)
    reward = {key: config[key] for key in ("common_reward", "reward_scalarisation")}
    env = build(**{**config["env_args"], **reward, "seed": 0})
    info = env.get_env_info()
    env.close()
    mask = environments.task_mask(settings, info["n_agents"], info["obs_shape"])
    widths = default_widths(mask.layout, mask, args.limits, args.width)
    print(mask_text(mask, widths, columns=max(Console().width, 100)), end="")
    return 0
