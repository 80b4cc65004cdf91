"""`kd-marl export`: a trained student as a bundle that a board can run."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_core.errors import UserError
from kd_marl.commands.common import Subparsers, add_parser, onboard_packages

if TYPE_CHECKING:
    from kd_core.host import Host
    from kd_marl.runs.student_run import StudentRun


def add(subparsers: Subparsers) -> None:
    """Adds `export`."""
    parser = add_parser(
        subparsers,
        "export",
        "Write a student's bundle: weights, ONNX and C99 of each agent, and the profile that describes them.",
        "kd-marl export results/models/kd_student_seed1_pz-mpe-simple-spread-v3_<date> --to bundle",
    )
    parser.add_argument(
        "student", metavar="RUN", type=Path, help="the student: its Sacred folder, its models folder, or one checkpoint"
    )
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="the bundle's folder, which must not exist"
    )
    parser.add_argument("--force", action="store_true", help="replace a bundle that is in DIR")
    parser.add_argument(
        "--int8",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="try int8 weights too, which needs the expert buffer (default: yes; kept if 99 %% of the decisions agree)",
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
    parser.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    from kd_core.host import get_host

    # First of all: an EPyMARL checkout brings its own `envs` package, which ours joins.
    host = get_host()

    from kd_marl.plugin import register
    from kd_marl.runs.student_run import load_student

    with onboard_packages():
        from kd_marl.deploy import bundle
    register.register(host)
    target = Path(os.path.abspath(args.to.expanduser()))
    bundle.check_target(target, args.force)
    run = load_student(args.student)
    buffer = run.find_buffer(args.buffer)
    bundle.check_fault_action(run, args.on_fault)
    sensors = None
    if args.measure_sensors is not None:
        from kd_marl.deploy import sensors as measuring

        sensors = measuring.measure(host, run, args.measure_sensors)
    limit = buffer.facts["episode_limit"] if buffer is not None else _episode_limit(host, run)
    options = bundle.Options(args.int8, args.latency, args.on_fault, sensors)
    print(
        _report(args.to, bundle.export(run, target, limit, buffer, options, args.force), args.int8 and buffer is None)
    )
    return 0


def _episode_limit(host: Host, run: StudentRun) -> int:
    """Steps of an episode, from the environment itself.

    Raises:
        UserError: it cannot be built here.
    """
    from kd_marl.deploy.sensors import arguments

    try:
        return arguments(host, run)[1].episode_limit
    except UserError as error:
        raise UserError(
            f"neither the expert buffer nor the environment tells the length of an episode: {error}"
        ) from error


def _report(folder: Path, profile: Mapping[str, Any], lacks_buffer: bool) -> str:
    """One line an agent, and where the bundle is."""
    agents = profile["agents"]
    name = max(len(agent["name"]) for agent in agents)
    lines = [f"{'agent':<{name}}  width  inputs  parameters   FLOPs  flash KB  RAM KB (-Os)  int8"]
    for agent in agents:
        flash, ram = agent["flash_bytes"] / 1024, agent["ram_bytes"] / 1024
        lines.append(
            f"{agent['name']:<{name}}  {agent['width']:>5}  {agent['inputs']:>6}  {agent['parameters']:>10}"
            f"  {agent['flops_per_decision']:>6}  {flash:>8.1f}  {ram:>12.1f}  {_int8(agent)}"
        )
        for sensor in agent["sensors"]:
            lines.append(
                f"{'':<{name}}  without {sensor['block']}: return {sensor['return_without']:.2f} instead of "
                f"{sensor['return_with']:.2f} ({sensor['episodes']} episodes)"
            )
    if lacks_buffer:
        lines.append("no expert buffer was found, so int8 was not tried: name it with --buffer")
    return "\n".join([*lines, f"written to {folder}"])


def _int8(agent: Mapping[str, Any]) -> str:
    kept = "kept" if agent["onnx_int8"] else "not kept"
    if agent["int8_agreement"] is None:
        return "not tried" if agent["int8_scope"] is None else f"{kept}: this agent never had a choice"
    return f"{kept}: agrees at {100 * agent['int8_agreement']:.2f} % ({agent['int8_scope']} in int8)"
