"""Retention against cost: the points of `kd-marl pareto`, its front, its knee, and the page about them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kd_core import files
from kd_core.costs.footprint import FLOAT_BYTES, code_bytes
from kd_core.errors import UserError
from kd_core.metrics.intervals import mean_interval
from kd_core.metrics.retention import retention_signed
from kd_marl.pareto import figure as pareto_figure
from kd_marl.pareto.sweep import Sweep
from kd_marl.runs import paper
from kd_marl.runs.student_run import StudentRun

# Of the paper, and of every teacher here.
_TEACHER_WIDTH = 256
# What twice the FLOPs must buy, as a share of the teacher's performance, to be worth it.
KNEE_GAIN = 0.01
KNEE_RULE = (
    "the cheapest student of the front from which every doubling of FLOPs, up to any wider student of the front, buys "
    f"less than {KNEE_GAIN:.0%} of the teacher's performance"
)
# Retention of a student's S against its teacher's T: metrics.retention_signed.
_RETENTION = {
    "return": "1 + (S-T)/|T|, which is the paper's 1 - |S-T|/|T| but for students better than their teacher: those "
    "have more than 100 % here",
    "win rate": "S/T, the paper's retention",
}


@dataclass(frozen=True)
class Point:
    """A width and a message, over its seeds; costs are means over the agents, times medians over agents and seeds.

    Attributes:
        retention: mean of `retention_signed` over the seeds.
        half: half of its 95 % interval over seeds; None for one seed.
        retention_normalised: the same above random play; None where it is not defined.
        flops: of one decision of one agent.
        flash_bytes: of one agent's compiled program, as `footprint` tells.
        ram_bytes: the same.
        decision_us: of one agent's C through the runtime, on this machine; None where no compiler is.
        decision_us_low: fifth percentile; None with it.
        decision_us_high: 95th percentile; None with it.
        score: mean win rate where something is won, else mean return.
        on_front: True where no cheaper student has as high a retention.
        message_bits: of one message; 0: silent.
        bits_per_second: that an agent sends; None where the task has no rate.
    """

    width: int
    seeds: tuple[int, ...]
    retention: float
    half: float | None
    retention_normalised: float | None
    flops: float
    flash_bytes: float
    ram_bytes: float
    decision_us: float | None
    decision_us_low: float | None
    decision_us_high: float | None
    score: float
    on_front: bool = False
    message_bits: int = 0
    bits_per_second: float | None = 0.0


def measure(sweep: Sweep) -> dict[str, Any]:
    """Gather everything that the figure and the page show from finished runs.

    Args:
        sweep: whose students are made; their bundles are written where they are missing.

    Returns:
        The content of ``pareto.json``, see docs/reference/formats/pareto.md.

    Raises:
        UserError: the runs had different teachers, or a teacher of which no share can be told.
    """
    found = [(cell, *sweep.exported(cell)) for cell in sweep.cells]
    teachers = {run.facts["teacher"]["sha256"]["agent.th"] for _, run, _ in found}
    if len(teachers) > 1:
        raise UserError(f"the students in {sweep.results} had {len(teachers)} teachers: name one with teacher=PATH")
    points = []
    for width, bits in dict.fromkeys((cell.width, cell.bits) for cell in sweep.cells):
        alike = [(run, profile) for cell, run, profile in found if (cell.width, cell.bits) == (width, bits)]
        points.append(_point(width, [run for run, _ in alike], [profile for _, profile in alike]))
    first = found[0][1].summary
    marked = [Point(**{**asdict(point), "on_front": on}) for point, on in zip(points, front(points), strict=True)]
    task = found[0][1].task
    teacher = {
        "score": float(np.mean([_score(run.summary["teacher"]) for _, run, _ in found])),
        "flops": first["flops_per_decision_teacher"],
        "flash_bytes": FLOAT_BYTES * first["params_teacher"] + code_bytes(_TEACHER_WIDTH, _TEACHER_WIDTH, "O2"),
    }
    return {
        "command": sweep.line,
        "commit": found[0][2]["provenance"]["commit"],
        "task": task,
        "limits": first["limits"],
        "masks_preset": first["masks_preset"],
        "episodes": first["episodes"],
        "measures": "win rate" if first["teacher"]["win_rate"] is not None else "return",
        "teacher": teacher,
        "points": [_told(point, bool(sweep.bits)) for point in marked],
        "knee": marked[knee(marked)].width,
        **({"knee_bits": marked[knee(marked)].message_bits} if sweep.bits else {}),
        "knee_rule": KNEE_RULE,
        "paper": paper_points(task, teacher["flops"]),
        "machine": found[0][2]["provenance"]["machine"],
        "runs": {cell.label: {"run": run.record, "command": run.facts["command"]} for cell, run, _ in found},
    }


def _told(point: Point, with_bits: bool) -> dict[str, Any]:
    """Return a point's facts; those of its messages only where messages are compared."""
    return {key: value for key, value in asdict(point).items() if with_bits or not key.endswith(("_bits", "_second"))}


def _point(width: int, runs: Sequence[StudentRun], profiles: Sequence[Mapping[str, Any]]) -> Point:
    scores = [_score(run.summary["student"]) for run in runs]
    shares: list[float] = []
    for run, score in zip(runs, scores, strict=True):
        # Of the teacher in the same episodes: what is luck of the starts falls out.
        share = retention_signed(score, _score(run.summary["teacher"]))
        if share is None:
            raise UserError(f"the teacher of {run.record} scores 0, so there is no retention: give a better teacher")
        shares.append(share)
    normalised = [run.summary["retention_normalised"] for run in runs]
    agents = [agent for profile in profiles for agent in profile["agents"]]
    timed = [agent["latency"]["c"] for agent in agents if "c" in agent["latency"]]

    def time(key: str) -> float | None:
        # The median: a machine that was busy for a moment makes one of these times many times as long.
        return float(np.median([entry[key] for entry in timed])) if timed else None

    return Point(
        width=width,
        seeds=tuple(run.facts["seed"] for run in runs),
        retention=float(np.mean(shares)),
        half=half_interval(shares),
        retention_normalised=None if None in normalised else float(np.mean(normalised)),
        flops=float(np.mean([agent["flops_per_decision"] for agent in agents])),
        flash_bytes=float(np.mean([agent["flash_bytes"] for agent in agents])),
        ram_bytes=float(np.mean([agent["ram_bytes"] for agent in agents])),
        decision_us=time("median_us"),
        decision_us_low=time("low_us"),
        decision_us_high=time("high_us"),
        score=float(np.mean(scores)),
        message_bits=runs[0].summary.get("message_bits", 0),
        bits_per_second=runs[0].summary.get("bits_per_second", 0.0),
    )


def _score(result: Mapping[str, Any]) -> float:
    return result["return_mean"] if result["win_rate"] is None else result["win_rate"]


def half_interval(values: Sequence[float]) -> float | None:
    """Return half of the 95 % interval of the mean, by Student's t over the values; None for fewer than two."""
    if len(values) < 2:
        return None
    return mean_interval(0.0, float(np.std(values)), len(values))[1]


def front(points: Sequence[Point]) -> list[bool]:
    """Return which points are on the front: no other has as high a retention for at most as many FLOPs."""
    return [
        not any(
            other is not point and other.flops <= point.flops and other.retention >= point.retention for other in points
        )
        for point in points
    ]


def knee(points: Sequence[Point]) -> int:
    """Return the index of the knee, `KNEE_RULE`; each point says whether it is on the front."""
    for index in (places := sorted((i for i, p in enumerate(points) if p.on_front), key=lambda i: points[i].flops)):
        here = points[index]
        gains = [
            (points[i].retention - here.retention) / math.log2(points[i].flops / here.flops)
            for i in places
            if points[i].flops > here.flops
        ]
        if all(gain < KNEE_GAIN for gain in gains):
            return index
    raise AssertionError("the widest student of a front has none beyond it")


def paper_points(task: str, teacher_flops: float) -> list[dict[str, Any]]:
    """Return the paper's students of a task; none for another task.

    Args:
        task: the task.
        teacher_flops: of one decision of our teacher: the paper gives ratios, which start from it here.

    Returns:
        For each: ``name``, ``widths`` narrowest and widest, ``retention``, ``flops`` lowest and highest, and
        ``flash_bytes`` of its parameters, None where the paper does not count them.
    """
    ratio, found = paper.numbers()["flops_ratio"].get(task), []
    for limits, students in paper.numbers()["students"].items() if ratio else ():
        low, high = ratio
        parameters = students.get("parameters")
        found.append(
            {
                "name": {"lh": "LH", "lha": "LH+A"}[limits],
                "widths": students["widths"],
                "retention": paper.retention_of(task, "kd_student", limits),
                "flops": [teacher_flops / high, teacher_flops / low],
                "flash_bytes": None if parameters is None else FLOAT_BYTES * parameters,
            }
        )
    return found


def write(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ``pareto.json``, ``pareto.svg`` and ``pareto.md``."""
    files.write_json(folder / "pareto.json", facts)
    files.write_bytes(folder / "pareto.svg", pareto_figure.figure(facts).encode())
    files.write_bytes(folder / "pareto.md", page(facts).encode())


def page(facts: Mapping[str, Any]) -> str:
    """Return the Markdown page: the figure, a table, and how to read both."""
    preset = f", {facts['masks_preset']}" if facts["masks_preset"] else ""
    seeds = facts["points"][0]["seeds"]
    with_bits = "knee_bits" in facts
    spread = "± 95 % interval over seeds" if len(seeds) > 1 else "one seed, so no interval"
    lines = [
        f"# {facts['task']}: retention and costs of a student by its width{' and messages' * with_bits}",
        "",
        f"Written by `{facts['command']}` from runs of commit {_short(facts['commit'])}.",
        "",
        f"Limits {facts['limits']}{preset}; seeds {', '.join(map(str, seeds))} ({spread}); {facts['episodes']} greedy "
        f"episodes each. The teacher's {facts['measures']} is {facts['teacher']['score']:.2f}, the mean over the runs' "
        "evaluations of it.",
        "",
        "![Retention against FLOPs, bytes and microseconds](pareto.svg)",
        "",
        f"| width |{' bits | bits a second |' * with_bits} {facts['measures']} | retention | above random | FLOPs "
        "| times fewer | flash, KB | RAM, KB | C, µs | |",
        f"|---|{'---|---|' * with_bits}---|---|---|---|---|---|---|---|---|",
        *(_row(facts, point) for point in facts["points"]),
        "",
        f"**Knee: width {facts['knee']}{_bits(facts['knee_bits']) if with_bits else ''}**, {facts['knee_rule']}.",
        "",
        *_paper_lines(facts),
        f"Retention is {_RETENTION[facts['measures']]}; above random play (S-R)/(T-R); T is the teacher in the run's "
        "own episodes. FLOPs are those of one decision of one agent; flash and RAM those of its compiled C, told by "
        "formula; all are means over the agents. Microseconds are medians over agents and seeds of one agent's C "
        "called through the Python runtime, whose own call takes most of them, on "
        f"{facts['machine'].get('processor', 'an unknown processor')}; in brackets the 5th to 95th percentile.",
    ]
    return "\n".join(lines) + "\n"


def _short(commit: str | None) -> str:
    """Shorten a commit to seven digits, and say whether the source tree had changes."""
    return "unknown" if commit is None else commit[:7] + ("+changes" if commit.endswith("+changes") else "")


def _row(facts: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    half = "" if point["half"] is None else f" ± {100 * point['half']:.1f}"
    above = "-" if point["retention_normalised"] is None else f"{100 * point['retention_normalised']:.1f} %"
    time = "-"
    if point["decision_us"] is not None:
        time = f"{point['decision_us']:.2f} ({point['decision_us_low']:.2f} to {point['decision_us_high']:.2f})"
    remark = "knee" if pareto_figure.is_knee(facts, point) else "front" if point["on_front"] else ""
    cells = [
        str(point["width"]),
        *_rate(facts, point),
        f"{point['score']:.2f}",
        f"{100 * point['retention']:.1f}{half} %",
        above,
        f"{point['flops']:.0f}",
        f"{facts['teacher']['flops'] / point['flops']:.1f}",
        f"{point['flash_bytes'] / 1024:.1f}",
        f"{point['ram_bytes'] / 1024:.1f}",
        time,
        remark,
    ]
    return f"| {' | '.join(cells)} |"


def _rate(facts: Mapping[str, Any], point: Mapping[str, Any]) -> list[str]:
    """Return the cells about messages; none where they are not compared."""
    if "knee_bits" not in facts:
        return []
    rate = point["bits_per_second"]
    return [str(point["message_bits"]), "-" if rate is None else f"{rate:g}"]


def _bits(bits: int) -> str:
    return f", {bits} bits" if bits else ", silent"


def _paper_lines(facts: Mapping[str, Any]) -> list[str]:
    if not facts["paper"]:
        return []
    named = []
    for point in facts["paper"]:
        low, high = (facts["teacher"]["flops"] / value for value in reversed(point["flops"]))
        ratio = f"{low:.1f}" if math.isclose(low, high) else f"{low:.1f} to {high:.1f}"
        widths = "-".join(str(width) for width in dict.fromkeys(point["widths"]))
        named.append(
            f"{point['name']} ({widths} wide) has a retention of {100 * point['retention']:.1f} % "
            f"with {ratio} times fewer FLOPs"
        )
    numbers = paper.numbers()
    return [
        f"The paper, against a teacher {numbers['teacher']['width']} wide: {'; '.join(named)}; over all its tasks "
        f"{numbers['mean_retention']:.0%}. It gives ratios, which the figure counts from our teacher; bytes are four "
        "for each of the parameters that it counts, and its times are those of a framework, not of a network.",
        "",
    ]
