"""`kd-marl masks`: who sees what in a task, before anything is trained."""

from __future__ import annotations

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work


def add(subparsers: Subparsers) -> None:
    """Adds `masks`."""
    parser = add_parser(
        subparsers,
        "masks",
        "Show which features each agent's student sees, and how wide it is.",
        "kd-marl masks --env-config mpe --key pz-mpe-simple-spread-v3 --limits lh --masks-preset paper",
    )
    parser.add_argument(
        "--env-config", required=True, metavar="NAME", help="as for kd-marl train, e.g. mpe; own for your class"
    )
    parser.add_argument("--key", metavar="TASK", help="env_args.key, e.g. pz-mpe-simple-spread-v3 or module:Class")
    parser.add_argument("--map-name", metavar="MAP", help="env_args.map_name, e.g. 3m")
    parser.add_argument("--n-agents", type=int, metavar="N", help="with --env-config smax: sizes of a map of your own,")
    parser.add_argument("--n-enemies", type=int, metavar="N", help="or of any map where JaxMARL is not installed")
    parser.add_argument("--limits", default="lh", help="fo (all), lh (limited) or lha (limited, various widths)")
    parser.add_argument(
        "--masks-preset",
        default="paper",
        help="paper (the default, whatever a YAML file says), random, nearer, or one of the environment",
    )
    parser.add_argument("--masks", default="{}", metavar="YAML", help="your own limits, e.g. '{0: [L], 1: [V.x, V.y]}'")
    parser.add_argument("--own-action", action="store_true", help="as with own_action=True")
    parser.add_argument("--width", type=int, default=32, help="hidden width of a student under fo and lh")
    parser.set_defaults(run=Work("kd_marl.inspection.masks:masks"))
