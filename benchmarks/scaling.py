"""What grows when the work grows: more agents, more battles at a time, a larger expert buffer.

    python benchmarks/scaling.py --json scaling.json                              # more than half an hour
    python benchmarks/scaling.py --part teams --teams 8m:8 8m:32 8m:128 8m:512    # more battles at a time
    python benchmarks/scaling.py --part teams --teams 3m:512 8m:192 27m_vs_30m:57 # more agents, calls of one size
    python benchmarks/scaling.py --part buffer --buffer-steps 10000 100000        # smaller
    python benchmarks/scaling.py --part teams --teams 3m:32 8m:12 --seconds 2     # a quick look

teams: `kd_teacher` on maps with 3, 8 and 27 agents, at the same number of battles at a time (--teams: a map and its
battles), as when nothing but the map is changed. Microseconds per agent-step (an agent's share of an environment step),
of playing and of learning apart; the part of playing that the environment itself takes beside it. Growth compares the
most agents with the fewest.

buffer: episodes of 3m's sizes with random contents, written through the exporter's own writer (--folder needs about
10 GiB for a million steps; it is deleted afterwards). Time per step and peak memory of the writing program, and of a
program that gathers minibatches from all over the buffer. Peak memory is the kernel's high-water mark of resident
pages, mapped files included.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measured
from speed_buffer import disk_bytes
from speed_process import MIB, watched
from throughput import OURS, WITHOUT_TESTS, Side, rates

from kd_core.errors import UserError


def team(word: str) -> tuple[str, int]:
    """Read ``MAP:BATTLES`` of the command line."""
    name, _, battles = word.rpartition(":")
    if not name or not battles.isdigit() or not int(battles):
        raise argparse.ArgumentTypeError(f"'{word}' is not MAP:BATTLES, for example 8m:192")
    return name, int(battles)


def teams(args: argparse.Namespace) -> dict[str, Any]:
    """Measure each team, and how much more an agent-step costs with the most agents than with the fewest."""
    rows = [_teacher(name, battles, args) for name, battles in args.teams]
    few, many = min(rows, key=lambda row: row["agents"]), max(rows, key=lambda row: row["agents"])
    parts = {"rollout": "rollout", "environment in it": "environment", "learning": "learn", "all": "all"}
    keys = {name: f"{part}_us_per_agent_step" for name, part in parts.items()}
    growth = {name: many[key] / few[key] for name, key in keys.items()}
    # A simulated battle compares every unit with every other: that share of an agent's grows with their number.
    others = [row["all_us_per_agent_step"] - row["environment_us_per_agent_step"] for row in (many, few)]
    growth["all but the environment"] = others[0] / others[1]
    return {"rows": rows, "growth": growth}


def _teacher(name: str, battles: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train `kd_teacher` on one map with so many battles at a time."""
    blocks = tuple(f"{key}={battles}" for key in ("batch_size_run", "batch_size", "buffer_size"))
    words = [f"env_args.map_name={name}", f"hidden_dim={args.hidden}", *WITHOUT_TESTS, "seed=1"]
    report = Side(OURS, OURS, None, blocks).measure(["--seconds", str(args.seconds)], words)
    rate, count = rates(report), report["settings"]["n_agents"]
    shares = {f"{part}_us_per_agent_step": rate[f"{part}_us"] / count for part in ("rollout", "environment", "learn")}
    row = {
        "map": name,
        "agents": count,
        "environments": battles,
        "steps_per_block": rate["steps"] / (len(report["blocks"]) - report["warm"]),
        "steps_per_s": rate["steps_per_s"],
        **shares,
        "all_us_per_agent_step": 1e6 / rate["steps_per_s"] / count,
        "peak_memory_mib": report["memory"]["peak_mib"],
        "threads": report["threads"],
    }
    print(f"{name}, {battles} battles: {row['steps_per_s']:.0f} steps/s", flush=True)
    return row


def buffer(args: argparse.Namespace) -> dict[str, Any]:
    """Write larger and larger buffers, sample from each, and delete it."""
    rows = []
    for steps in args.buffer_steps:
        _check_space(args.folder, steps)
        with tempfile.TemporaryDirectory(prefix="kd-marl-buffer-", dir=args.folder) as folder:
            rows.append(_one_buffer(folder, steps, args))
        print(f"buffer of {rows[-1]['steps']} steps: done, and deleted", flush=True)
    keys = ["export_us_per_step", "export_peak_mib", "sample_ms_per_batch", "sample_peak_mib"]
    return {"rows": rows, "growth": {key: rows[-1][key] / rows[0][key] for key in keys}}


def _one_buffer(folder: str, steps: int, args: argparse.Namespace) -> dict[str, Any]:
    program = [sys.executable, str(measured.BENCHMARKS / "speed_buffer.py")]
    written = watched([*program, "write", "--steps", str(steps), folder])
    sampled = watched([*program, "sample", "--batches", str(args.batches), folder])
    return {
        "steps": written["steps"],
        "episodes": written["episodes"],
        "disk_mib": written["disk_bytes"] / MIB,
        "export_us_per_step": 1e6 * written["export_s"] / written["steps"],
        "export_peak_mib": written["peak_mib"],
        "sample_ms_per_batch": 1e3 * sampled["sample_s"] / args.batches,
        "sample_peak_mib": sampled["peak_mib"],
        "export_start_mib": written["start_mib"],
        "sample_start_mib": sampled["start_mib"],
    }


def _check_space(folder: Path | None, steps: int) -> None:
    place = folder or Path(tempfile.gettempdir())
    if not place.is_dir():
        raise UserError(f"--folder {place} is no folder: make it, or give another")
    needed, free = disk_bytes(steps), shutil.disk_usage(place).free
    if free < needed:
        raise UserError(
            f"a buffer of {steps} steps needs up to {needed / (1 << 30):.1f} GiB, {place} has {free / (1 << 30):.1f}: "
            "give another --folder, or fewer --buffer-steps"
        )


PARTS = {"teams": teams, "buffer": buffer}


def text(result: Mapping[str, Any]) -> str:
    """Write a table and a line for each part that was measured."""
    lines = []
    for name, compared in (("teams", "most agents against fewest"), ("buffer", "largest against smallest")):
        if name in result:
            growth = ", ".join(f"{key} {value:.2f}" for key, value in result[name]["growth"].items())
            lines += [measured.table(result[name]["rows"]), f"{name}, {compared}: {growth}."]
    return "\n\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = measured.options(__doc__)
    parser.add_argument("--part", choices=tuple(PARTS), action="append", help="only this part; may be given again")
    parser.add_argument("--hidden", type=int, default=256, help="width of actor and critic")
    parser.add_argument("--seconds", type=float, default=30.0, help="to measure in each run, after two warm blocks")
    same = [("3m", 128), ("8m", 128), ("27m_vs_30m", 128)]
    parser.add_argument("--teams", nargs="+", type=team, default=same, metavar="MAP:BATTLES", help="of `teams`")
    sizes = [10_000, 100_000, 1_000_000]
    parser.add_argument("--buffer-steps", nargs="+", type=int, default=sizes, metavar="STEPS", help="of `buffer`")
    parser.add_argument("--batches", type=int, default=100, help="minibatches of 64 episodes to gather")
    parser.add_argument("--folder", type=Path, help="where the buffers are written (default: the temporary folder)")
    return parser


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield each part that is asked for."""
    yield {"hidden": args.hidden}
    for name, part in PARTS.items():
        if name in (args.part or PARTS):
            yield {name: part(args)}


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return measured.command(_parser(), words, measure, text)


if __name__ == "__main__":
    sys.exit(main())
