"""The result of `latency.py` as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ROWS = {
    "epymarl_teacher": "{host}, teacher of width 256",
    "epymarl_student_width": "{host}, width {width}",
    "torch": "torch student (hetero_mac)",
    "numpy": "numpy, act",
    "numpy_session": "numpy, network alone",
    "onnx": "ONNX Runtime, act",
    "onnx_session": "ONNX Runtime, session alone",
    "int8": "ONNX Runtime int8, act",
    "int8_session": "ONNX Runtime int8, session alone",
    "ctypes": "C -O3 -march=native through ctypes, act",
    "ctypes_session": "C -O3 -march=native through ctypes, call alone",
    "c_o2": "C -O2, timed inside",
    "c_o3": "C -O3 -march=native, timed inside",
    "teacher_onnx": "teacher of width 256 in ONNX Runtime, session alone",
}
PROCESSES = {
    "epymarl_teacher": "{host}, teacher, whole team",
    "torch": "torch student, whole team",
    "numpy": "one agent, numpy",
    "onnx": "one agent, ONNX Runtime",
    "c": "one agent, C through ctypes",
    "c_program": "one agent, whole C program (-Os)",
}


def text(result: dict[str, Any]) -> str:
    """Everything, a section a task."""
    host = "EPyMARL" if result["host"]["name"] == "epymarl" else result["host"]["name"]
    if result["host"]["commit"]:
        host = f"{host} {result['host']['commit'][:7]}"
    machine = result["machine"]
    lines = [
        f"{machine['processor']}, {machine['system']}, Python {machine['python']}, one thread; medians of "
        f"{result['rounds']} interleaved rounds, quartiles in brackets; ratios are taken within a round. "
        f"Times are CPU time. {host} decides for "
        'the whole team in one call; "alone" is the same call in a team of one.',
    ]
    for task in result["tasks"].values():
        lines += ["", *_task(task, host)]
    return "\n".join(lines)


def _task(task: dict[str, Any], host: str) -> list[str]:
    sizes, width, students = task["sizes"], task["student_width"], task["students"]
    one = students["one_agent"]
    lines = [
        f"### {sizes['name']}, limits {task['limits']}: {sizes['n_agents']} agents, {sizes['inputs']} features, "
        f"{sizes['n_actions']} actions, students of width {_each(students['widths'])}",
        "",
        f"The students see {_each(students['inputs'])} of the {sizes['inputs']} features, {host}'s networks all. "
        f"One agent is agent {one}: {students['inputs'][one]} features, width {students['widths'][one]}, and no other "
        "has more features times width.",
    ]
    for scope, title in (
        ("agent", "One decision of one agent"),
        ("team", "One decision of the whole team, agents after each other on one core"),
    ):
        alone = " times faster than it alone |" if scope == "agent" else ""
        lines += ["", f"{title}:", "", f"| | µs | times faster than {host} | FLOPs ratio |{alone}"]
        lines.append("|---|---|---|---|" + ("---|" if alone else ""))
        for name, label in ROWS.items():
            entry = task[scope][name]
            lines.append(
                f"| {label.format(host=host, width=width)} | {_spread(entry['us'])} | "
                f"{_spread(entry['speedup_vs_epymarl'])} | {entry['flops_ratio']:.1f} |"
                + (f" {_spread(entry['speedup_vs_epymarl_alone'])} |" if alone else "")
            )
        pair = task[scope]["student_onnx_vs_teacher_onnx"]
        lines += [
            "",
            f"Student against teacher, both in ONNX Runtime: {_spread(pair)} times, FLOPs {pair['flops_ratio']:.1f}.",
        ]
    if task["process"]:
        lines += ["", "| | start to first decision, ms | peak memory, MiB |", "|---|---|---|"]
    for name, entry in task["process"].items():
        label = PROCESSES[name]
        memory = "-" if entry["memory_mib"] is None else f"{entry['memory_mib']:.4g}"
        lines.append(f"| {label.format(host=host)} | {entry['start_ms']:.4g} | {memory} |")
    lines.append("")
    for name, label in (("agent_os", "One agent's object code at -Os"), ("program_os", "The whole program at -Os")):
        if (found := task["size_bytes"][name]) is not None:
            lines.append(f"- {label}: text {found['text']}, data {found['data']}, bss {found['bss']} bytes.")
    for level, flags in (("o2", "-O2"), ("o3", "-O3 -march=x86-64-v3")):
        if (count := task["instructions"][level]) is not None:
            lines.append(f"- Instructions of a decision at {flags} (callgrind): {count}.")
    energy = {name: value for name, value in task["energy_uj"]["agent"].items() if value is not None}
    if energy:
        listed = ", ".join(f"{ROWS[name].format(host=host, width=width)} {value:.3g}" for name, value in energy.items())
        lines.append(f"- Energy of one agent's decision, µJ of the whole package (RAPL): {listed}.")
    return lines


def _each(numbers: Sequence[int]) -> str:
    """One number if all agents have the same."""
    return ", ".join(map(str, numbers if len(set(numbers)) > 1 else numbers[:1]))


def _spread(values: dict[str, float]) -> str:
    return f"{values['median']:.3g} ({values['low']:.3g} to {values['high']:.3g})"
