"""The work of `kd-marl export`: a student's bundle is written, and a line an agent says what it costs."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kd_core.artifacts.expert_buffer import ExpertBuffer
from kd_core.errors import UserError
from kd_core.host import Host, get_host
from kd_marl.deploy import sensors
from kd_marl.deploy.export import (
    Options,
    check_calibration,
    check_exportable,
    check_fault_action,
    check_target,
    export,
)
from kd_marl.deploy.int8 import LEAST_AGREEMENT
from kd_marl.deploy.library import write_library
from kd_marl.plugin import register
from kd_marl.runs.student_run import StudentRun, load_student, run_arguments
from kd_onboard.bundle import PROFILE


def run(args: argparse.Namespace) -> int:
    """Export the student of the command's arguments; returns the exit status."""
    target = Path(os.path.abspath(args.to.expanduser()))
    if args.target is not None:
        return _write_library(args, target)
    check_target(target, args.force)
    student = load_student(args.student)
    options = Options(args.int8, args.latency, args.on_fault, c_weights=args.c_weights)
    check_exportable(student, options)
    buffer = student.find_buffer(args.buffer)
    profile = export_student(student, target, buffer, options, args.measure_sensors, args.force)
    print(_report(args.to, profile, args.int8 is not False and buffer is None))
    return 0


def _write_library(args: argparse.Namespace, target: Path) -> int:
    """Write a library of the C of a bundle; returns the exit status."""
    if not (args.student / PROFILE).is_file():
        raise UserError(f"{args.student} is no bundle, and --target is for one: export the student first, without it")
    count = write_library(args.student, args.target, target)
    print(f"{count} files for {args.target}, written to {args.to}: see the example in it")
    return 0


def export_student(
    student: StudentRun,
    folder: Path,
    buffer: ExpertBuffer | None,
    options: Options,
    measure_sensors: int | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write a student's bundle, and measure its sensors first if that is asked for.

    Args:
        student: what is exported.
        folder: where; it must not exist, or hold a bundle that ``force`` replaces.
        buffer: its expert buffer; None: no int8 and no roles.
        options: what to make and to measure.
        measure_sensors: episodes of each measurement of a sensor's worth; None: none is made.
        force: replace a bundle that is there.

    Returns:
        The profile.

    Raises:
        UserError: the folder is taken, an agent lacks what ``on_fault`` needs, or the environment cannot be built.
    """
    host = get_host()
    register.register(host)
    check_target(folder, force)
    check_exportable(student, options)
    check_fault_action(student, options.on_fault)
    check_calibration(student, options, buffer)
    if measure_sensors is not None:
        options = replace(options, sensors=sensors.measure(host, student, measure_sensors))
    limit = buffer.facts["episode_limit"] if buffer is not None else _episode_limit(host, student)
    return export(student, folder, limit, buffer, options, force)


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
    lines = [f"{'agent':<{name}}  width  inputs  parameters   FLOPs  flash KB (-O2, -Os)  RAM KB (-O2, -Os)  int8"]
    for agent in agents:
        flash, ram = (
            f"{agent[key] / 1024:.1f}, {agent[f'{key}_os'] / 1024:.1f}" for key in ("flash_bytes", "ram_bytes")
        )
        lines.append(
            f"{agent['name']:<{name}}  {agent['width']:>5}  {agent['inputs']:>6}  {agent['parameters']:>10}"
            f"  {agent['flops_per_decision']:>6}  {flash:>19}  {ram:>17}  {_int8(agent)}"
        )
        lines += _int8_c(agent, name)
        for sensor in agent["sensors"]:
            lines.append(
                f"{'':<{name}}  without {sensor['block']}: return {sensor['return_without']:.2f} instead of "
                f"{sensor['return_with']:.2f} ({sensor['episodes']} episodes)"
            )
    if (radio := profile.get("messages")) is not None:
        rate = "" if radio["bits_per_second"] is None else f", {radio['bits_per_second']:g} a second"
        number_bits = max(agent.get("messages", {}).get("number_bits", 1) for agent in profile["agents"])
        kind = "signs" if number_bits == 1 else f"numbers of {number_bits} bits"
        lines.append(f"messages: {radio['bits_per_step']:g} bits a step{rate}, {kind}; int8 is for silent students")
    elif lacks_buffer:
        lines.append("no expert buffer was found, so int8 was not tried: name it with --buffer")
    return "\n".join([*lines, f"written to {folder}; next: kd-marl bundle check {shlex.quote(str(folder))}"])


def _int8_c(agent: Mapping[str, Any], indent: int) -> list[str]:
    """Return a line on the int8 C, if it was tried."""
    if "int8_agreement" not in agent["c"]:
        return []
    share = agent["c"]["int8_agreement"]
    if "int8" in agent["c"]:
        told = "this agent never had a choice" if share is None else f"{100 * share:.2f} % of decisions as in float32"
        return [f"{'':<{indent}}  its C has int8 weights: {told}"]
    least = f"{100 * LEAST_AGREEMENT:g} %"
    if share is None:
        why = "an agent that runs it agrees too little, or the buffer's episodes hold no choice"
    else:
        why = f"with int8 weights {100 * share:.2f} % of decisions are as in float32, and {least} are asked for"
    return [f"{'':<{indent}}  its C has float32 weights: {why}; train the student with quantise=int8"]


def _int8(agent: Mapping[str, Any]) -> str:
    written = "written" if agent["onnx_int8"] else "not written"
    if agent["int8_agreement"] is None:
        return "not tried" if agent["int8_scope"] is None else f"{written}: this agent never had a choice"
    share = f"{100 * agent['int8_agreement']:.2f} % of decisions as in float32"
    return f"{written}: {share} ({agent['int8_scope']} in int8)"
