"""`kd-marl export`: a trained student as a bundle that a board can run."""

from __future__ import annotations

import argparse
from pathlib import Path

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work


def add(subparsers: Subparsers) -> None:
    """Adds `export`."""
    parser = add_parser(
        subparsers,
        "export",
        "Write a student's bundle: weights, ONNX and C99 of each agent, and the profile that describes them. With "
        "--target, write the C of a bundle as a library for a build system.",
        "kd-marl export results/models/kd_student_seed1_pz-mpe-simple-spread-v3_<date> --to bundle\n"
        "  kd-marl export bundle --target cmake --to kd_agents",
    )
    parser.add_argument(
        "student",
        metavar="RUN",
        type=Path,
        help="the student: its Sacred folder, its models folder, or one checkpoint; with --target, a bundle",
    )
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="the bundle's or library's folder, which must not exist"
    )
    parser.add_argument(
        "--target",
        choices=("arduino", "cmake", "esp-idf", "platformio", "zephyr"),
        help="the build system of a library; tests build and run that of cmake, and check the others' files against "
        "their published rules",
    )
    parser.add_argument("--force", action="store_true", help="replace a bundle that is in DIR")
    parser.add_argument(
        "--int8",
        action=argparse.BooleanOptionalAction,
        help="try int8 weights too, which needs the expert buffer (default: yes, but for students that talk; kept if "
        "99 %% of the decisions agree)",
    )
    parser.add_argument(
        "--c-weights",
        choices=("float32", "int8"),
        help="form of the C: int8 takes a fourth of the flash and no float arithmetic, needs the expert buffer, and is "
        "kept if 99 %% of the decisions agree (default: what the budget says, else float32)",
    )
    parser.add_argument(
        "--buffer", type=Path, metavar="DIR", help="the expert buffer, if it is not in the run's results"
    )
    parser.add_argument(
        "--on-fault",
        choices=("raise", "hold", "noop"),
        default="raise",
        help="what agents do with input they must not act on: raise an error, hold the last action, or do nothing",
    )
    parser.add_argument(
        "--measure-sensors",
        type=int,
        metavar="EPISODES",
        help="measure the return with and without each block of features, over so many episodes each",
    )
    parser.add_argument(
        "--latency",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure what a decision takes on this machine (default: yes)",
    )
    parser.set_defaults(run=Work("kd_marl.deploy.command_export:run", host=True, extra="onboard"))
