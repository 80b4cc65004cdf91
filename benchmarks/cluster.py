"""What Ray and the suite take of a cluster's time, from a few machines to many: a simulation.

    python benchmarks/cluster.py --json cluster.json              # about 8 minutes
    python benchmarks/cluster.py --workers 2 4 --seconds 2        # a quick look

A suite of independent runs goes through the real campaign, its locks, its records of attempts and Ray. Only the runs
are made up: programs that sleep --seconds and leave a file. So one machine can stand for many: Ray is told that it has
as many processors as there are workers. Every worker gets --rounds runs, one after the other.

`s_per_run` is what a worker loses at each run, from the first one handed over to the last one seen: submission, Ray,
the start of a Python program, and seeing that it has ended. `share` is that of a run of --seconds; `of_five_minutes` of
one of five minutes, and short runs of a suite take that long. Joining the cluster is left out. So is the first round,
in which Ray starts its worker processes, here all on the same cores; a suite pays for that once.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measured

from kd_marl.suite.campaign import Campaign, Pool
from kd_marl.suite.cluster import LOCAL, RayPool
from kd_marl.suite.job import Job
from kd_marl.suite.plan import Node, Plan
from kd_marl.suite.show import Show

FIVE_MINUTES = 300.0
SLEEP = "import pathlib, sys, time; time.sleep(float(sys.argv[1])); pathlib.Path(sys.argv[2]).touch()"


@dataclass(frozen=True)
class Left:
    """The proof of a made-up run: the file that it leaves."""

    file: Path

    def found(self) -> Path | None:
        """Return the file if it is there."""
        return self.file if self.file.is_file() else None


@dataclass(frozen=True)
class Sleep(Job):
    """A run that only takes time; its words are the seconds and the file that it leaves."""

    @property
    def command(self) -> list[str]:
        """Return the program that sleeps."""
        return [sys.executable, "-S", "-c", SLEEP, *self.words]


class Silent(Show):
    """A display that notes when runs end, and shows nothing."""

    def __init__(self) -> None:
        self.begun, self.ends = False, list[float]()

    def begin(self, done: int, total: int) -> None:
        """Note that the campaign has begun."""
        self.begun = True

    def tick(self, running: Sequence[str], seconds: float | None) -> None:
        """Show nothing."""

    def closed(self, label: str, state: Any, reason: str) -> None:
        """Note when a run was seen to have ended."""
        self.ends.append(time.monotonic())

    def say(self, text: str) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""


def suite(folder: Path, runs: int, seconds: float) -> Plan:
    """Make up a suite of independent runs."""
    jobs = {}
    for k in range(runs):
        words = (str(seconds), str(folder / f"made{k}"))
        jobs[f"run{k}"] = Sleep(f"run{k}", "sleep/sleep", f"{k:08d}", words, Left(Path(words[1])), folder)
    nodes = {label: Node(label, "sleep", "sleep") for label in jobs}
    facts = SimpleNamespace(nodes=nodes, job=jobs.get, suite=SimpleNamespace(cpus_of=lambda method: 1), results=folder)
    return cast(Plan, facts)


def lost(ends: Sequence[float], workers: int, rounds: int, seconds: float) -> float:
    """Compute the seconds that a worker loses at each run, the mean over workers and over all rounds but the first.

    Args:
        ends: when runs were seen to have ended, the first ``workers`` of them in the first round.
        workers: of the cluster.
        rounds: runs of each worker after its first.
        seconds: that a run takes.
    """
    ordered = sorted(ends)
    first, last = ordered[:workers], ordered[-workers:]
    return (sum(last) - sum(first)) / workers / rounds - seconds


def scale(workers: int, rounds: int, seconds: float, join: Callable[[int], Pool]) -> dict[str, Any]:
    """Send a suite through a pool of so many workers."""
    with tempfile.TemporaryDirectory() as place:
        show = Silent()
        Campaign(suite(Path(place), (rounds + 1) * workers, seconds), join(workers), show).run()
    cost = lost(show.ends, workers, rounds, seconds)
    row = {"workers": workers, "runs": rounds * workers, "s_per_run": cost, "share": cost / (cost + seconds)}
    print(f"{workers} workers: {cost:.2f} s of each run, {row['share']:.1%} of runs of {seconds:g} s", flush=True)
    return {**row, "of_five_minutes": cost / (cost + FIVE_MINUTES)}


def measure(args: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows measured so far."""
    rows: list[dict[str, Any]] = []
    for workers in args.workers:
        rows.append(scale(workers, args.rounds, args.seconds, partial(RayPool, LOCAL)))
        yield {"seconds": args.seconds, "rounds": args.rounds, "rows": rows}


def text(result: Mapping[str, Any]) -> str:
    """Write the rows as a table."""
    return measured.table(result["rows"])


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = measured.options(__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8, 16, 32, 64], help="simulated processors")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each worker that count")
    parser.add_argument("--seconds", type=float, default=20.0, help="that a made-up run takes")
    return measured.command(parser, words, measure, text)


if __name__ == "__main__":
    sys.exit(main())
