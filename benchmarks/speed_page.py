"""The results of throughput.py and scaling.py as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def save(path: Path | None, result: Mapping[str, Any]) -> None:
    """Write a result, whole or not at all, if a file was asked for."""
    if path is not None:
        # Imported late: it loads torch, which must not happen before all is measured (speed_process.py).
        from kd_core import files

        files.write_json(path, result)


def machine(facts: Mapping[str, Any]) -> str:
    """One line."""
    versions = ", ".join(f"{name} {facts[name]}" for name in ("torch", "jax", "jaxmarl") if facts[name])
    return (
        f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB, Python {facts['python']}, "
        f"{versions}, commit {facts['commit']}, load before {facts['load_before']}; `{facts['command']}`"
    )


def throughput(result: Mapping[str, Any]) -> str:
    """Everything that throughput.py measured."""
    lines = ["", machine(result["machine"]), ""]
    if "sides" in result:
        lines += [f"{result['map']}, width {result['hidden']}, medians (extremes) of the turns:", "", *_sides(result)]
    if "flops" in result:
        lines += ["", _flops(result["flops"])]
    if "time_to_win" in result:
        lines += ["", *_time_to_win(result["time_to_win"])]
    return "\n".join(lines)


def _sides(result: Mapping[str, Any]) -> list[str]:
    head = ("side", "battles", "threads", "steps/s", "rollout µs/step", "learning µs/step", "peak MiB", "kd_teacher is")
    rows = []
    for name, side in result["sides"].items():
        speedup, memory = (result.get(f"{kind}_vs_{name}_spread") for kind in ("speedup", "memory_ratio"))
        rows.append(
            (
                f"{name} ({side['host']['name']} {(side['host']['commit'] or '')[:7]})".replace(" )", ")"),
                str(side["settings"]["batch_size_run"]),
                str(side["threads"]),
                *(_range(side[key]) for key in ("steps_per_s", "rollout_us", "learn_us", "peak_memory_mib")),
                f"{_range(speedup)} x faster" if speedup else "",
                f"{_range(memory)} x its memory" if memory else "",
            )
        )
    return table((*head, "and takes"), rows)


def _flops(found: Mapping[str, Any]) -> str:
    return (
        f"The teacher's learner needs {found['learner_gflop_per_s']:.1f} GFLOP/s ({found['threads']} torch threads): "
        f"{100 * found['share_of_float32_peak']:.1f} % of the float32 peak of {found['peak_float32_gflop_per_s']:.0f}, "
        f"{100 * found['share_of_bfloat16_peak']:.1f} % of the bfloat16 peak of "
        f"{found['peak_bfloat16_gflop_per_s']:.0f} GFLOP/s; "
        f"{100 * found['unpadded_share']:.0f} % of the decisions that it computes are real."
    )


def _time_to_win(found: Mapping[str, Any]) -> list[str]:
    rate = f"{100 * found['win_rate']:.0f} %"
    head = ("side", f"steps to {rate} wins", f"seconds to {rate} wins", "steps", "seconds", "wins at the end", "return")
    rows = []
    for name, side in found["sides"].items():
        steps, seconds, wins, returns = side["final"]
        reached = ("never", "never") if side["steps_to_win"] is None else _reached(side)
        rows.append((name, *reached, str(steps), f"{seconds:.0f}", f"{100 * wins:.1f} %", f"{returns:.2f}"))
    return table(head, rows)


def _reached(side: Mapping[str, Any]) -> tuple[str, str]:
    return str(side["steps_to_win"]), f"{side['seconds_to_win']:.0f}"


def scaling(result: Mapping[str, Any]) -> str:
    """Everything that scaling.py measured."""
    lines = ["", machine(result["machine"])]
    titles = {"agents": "More agents", "rows": "More agents in fewer battles", "environments": "More battles at a time"}
    for part, title in titles.items():
        if part in result:
            lines += ["", f"{title}, width {result['hidden']}:", "", *_runs(result[part]["rows"])]
        if "growth" in result.get(part, {}):
            listed = ", ".join(f"{name} {value:.2f}" for name, value in result[part]["growth"].items())
            lines += ["", f"Cost of an agent-step, most agents against fewest: {listed}."]
    if "buffer" in result:
        lines += ["", "A larger expert buffer, sizes of 3m:", "", *_buffers(result["buffer"]["rows"])]
        listed = ", ".join(f"{name} {value:.2f}" for name, value in result["buffer"]["growth"].items())
        lines += ["", f"Largest against smallest: {listed}."]
    return "\n".join(lines)


def _runs(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    head = ("map", "agents", "battles", "steps/s", "µs per step", "per agent-step: rollout", "environment in it")
    return table(
        (*head, "learning", "peak MiB"),
        [
            (
                row["map"],
                str(row["agents"]),
                str(row["environments"]),
                f"{row['steps_per_s']:.0f}",
                f"{1e6 / row['steps_per_s']:.1f}",
                *(f"{row[f'{name}_us_per_agent_step']:.2f}" for name in ("rollout", "environment", "learn")),
                f"{row['peak_memory_mib']:.0f}",
            )
            for row in rows
        ],
    )


def _buffers(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    head = ("steps", "episodes", "MiB on disk", "export µs/step", "export peak MiB", "sampling ms/batch")
    return table(
        (*head, "sampling peak MiB", "student peak MiB"),
        [
            (
                str(row["steps"]),
                str(row["episodes"]),
                f"{row['disk_mib']:.0f}",
                f"{row['export_us_per_step']:.1f}",
                f"{row['export_peak_mib']:.0f}",
                f"{row['sample_ms_per_batch']:.1f}",
                f"{row['sample_peak_mib']:.0f}",
                "-" if row["student_peak_mib"] is None else f"{row['student_peak_mib']:.0f}",
            )
            for row in rows
        ],
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table with its columns aligned."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return [line(head), line(["-" * width for width in widths]), *(line(row) for row in rows)]


def _range(values: Mapping[str, Any]) -> str:
    form = ".3g" if values["median"] < 100 else ".0f"
    return f"{values['median']:{form}} ({values['min']:{form}} to {values['max']:{form}})"
