"""`kd-marl train`: one run, with the words of EPyMARL's command line."""

from __future__ import annotations

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work


def add(subparsers: Subparsers) -> None:
    """Adds `train`."""
    parser = add_parser(
        subparsers,
        "train",
        "Train a teacher, export its buffer, distil students, or run a stock algorithm: in a clone the same as "
        "python src/main.py.",
        "kd-marl train --config=kd_student --env-config=mpe with env_args.key=pz-mpe-simple-spread-v3 limits=lh",
    )
    parser.usage = f"{parser.prog} --config=ALG --env-config=ENV [with key=value env_args.key=value ...]"
    # Every word behind it is EPyMARL's or Sacred's.
    parser.set_defaults(run=Work("kd_marl.train:command"), words=[])
