"""The work of `kd-marl export`: a student's bundle is written, and a line an agent says what it costs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_core.errors import UserError
from kd_core.host import Host, get_host
from kd_marl.deploy import sensors as measuring
from kd_marl.deploy.export import Options, check_fault_action, check_target, export
from kd_marl.plugin import register
from kd_marl.runs.student_run import StudentRun, load_student, run_arguments


def run(args: argparse.Namespace) -> int:
    """Export the student of the command's arguments; returns the exit status."""
    host = get_host()
    register.register(host)
    target = Path(os.path.abspath(args.to.expanduser()))
    check_target(target, args.force)
    student = load_student(args.student)
    buffer = student.find_buffer(args.buffer)
    check_fault_action(student, args.on_fault)
    sensors = None
    if args.measure_sensors is not None:
        sensors = measuring.measure(host, student, args.measure_sensors)
    limit = buffer.facts["episode_limit"] if buffer is not None else _episode_limit(host, student)
    options = Options(args.int8, args.latency, args.on_fault, sensors)
    print(_report(args.to, export(student, target, limit, buffer, options, args.force), args.int8 and buffer is None))
    return 0


def _episode_limit(host: Host, run: StudentRun) -> int:
    """Return the steps of an episode, from the environment itself.

    Raises:
        UserError: it cannot be built here.
    """
    try:
        return run_arguments(host, run)[1].episode_limit
    except UserError as error:
        raise UserError(
            f"neither the expert buffer nor the environment tells the length of an episode: {error}"
        ) from error


def _report(folder: Path, profile: Mapping[str, Any], lacks_buffer: bool) -> str:
    """Return one line an agent, and where the bundle is."""
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
