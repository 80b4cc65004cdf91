"""`kd-marl run`: plays a student bundle, each agent in a process of its own."""

from __future__ import annotations

from pathlib import Path

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work


def add(subparsers: Subparsers) -> None:
    """Adds `run`."""
    parser = add_parser(
        subparsers,
        "run",
        "Play a bundle, each agent in a process that receives only its own features, beside the torch student's score.",
        "kd-marl run bundle --env-config=mpe with env_args.key=pz-mpe-simple-spread-v3\n"
        "  kd-marl run bundle --env-config=mpe --backend c --key robots.pub with env_args.key=pz-mpe-simple-spread-v3",
    )
    parser.add_argument("bundle", type=Path, metavar="DIR", help="the bundle's folder, as kd-marl export writes it")
    parser.add_argument("--env-config", required=True, metavar="NAME", help="as for kd-marl train, e.g. mpe")
    parser.add_argument("--backend", default="numpy", help="numpy (the default), onnx, onnx-int8 or c")
    parser.add_argument(
        "--episodes", type=int, help="how many (default: as many as the student's own evaluation, and the same ones)"
    )
    parser.add_argument("--key", type=Path, metavar="PUBLIC", help="the public key that must have signed the bundle")
    parser.add_argument("--trust", action="store_true", help="run its C although no key vouches for it")
    parser.add_argument(
        "--message-loss",
        type=float,
        metavar="P",
        help="probability that a message is lost, for each link and step of agents that talk (default: 0)",
    )
    parser.add_argument(
        "--message-delay",
        type=int,
        metavar="N",
        help="steps by which agents hear messages later than they were trained to (default: 0)",
    )
    parser.add_argument(
        "--sample",
        type=int,
        metavar="SEED",
        help="draw the actions by their probabilities, from 0 to 2^64 - 1; the same seed draws the same ones "
        "(default: each agent takes its best action)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    # What follows `with` is taken out before argparse looks, see cli.py.
    parser.usage = f"{parser.prog} [options] --env-config NAME DIR with env_args.key=TASK [key=value ...]"
    parser.set_defaults(run=Work("kd_marl.deploy.command_run:run", host=True), updates=[])
