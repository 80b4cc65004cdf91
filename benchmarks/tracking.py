"""What tracking costs: a student's training that is recorded in files and MongoDB, or not at all, in turns.

    python benchmarks/tracking.py --json tracking.json                       # about a quarter of an hour
    python benchmarks/tracking.py --pairs 2 --seconds 10 --episodes 50       # a quick look

One run of `kd_student` with `tracking=mongo`, by the loop, the logging and the heartbeat of ten seconds that every run
has. After each --seconds, at the end of a block of the loop, its Sacred record and the sending to MongoDB are switched
off or on again; of two pairs of turns one begins with each, so that a drift counts for neither. What was logged in the
meantime is written in the next turn with tracking, which bears that too. Tests, checkpoints and evaluations are left
out of all turns.

Measured, for each turn: seconds of the clock and of the processor (all threads of the training) for a thousand steps
of the environment, and the processor's seconds that a heartbeat costs in the recording and the sending themselves. The
headline is the median over the pairs of turns that followed each other. On a machine with other work to do, heartbeats
come as often and steps do not: there the cost of a heartbeat is the figure to look at.

The server is the one that KD_MARL_MONGO_URL names; without it the tests' stand-in for MongoDB, a process of its own on
the same machine, which takes longer for an answer than MongoDB and takes its time from the same cores.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measured
import speed_run

from kd_core.errors import UserError

STAND_IN = measured.ROOT / "tests" / "helpers" / "wire_mongo.py"
# Blocks of the loop before the first turn: first allocations, and the test with which the loop begins.
WARM = 3


class Turns:
    """Switches tracking in turns, and keeps their figures.

    Attributes:
        tracked: whether it is on.
        done: the turns that are over: ``tracked``, ``steps``, ``clock_s``, ``processor_s``, ``own_s``, ``beats``.
    """

    def __init__(self, pairs: int, seconds: float) -> None:
        self.tracked = True
        self.done: list[dict[str, Any]] = []
        self._pairs, self._seconds, self._blocks = pairs, seconds, 0
        self._own_s, self._beats = 0.0, 0
        self._start: tuple[int, float, float] | None = None

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time nothing: a turn is timed as a whole."""
        yield

    def discard(self) -> None:
        """Forget nothing: tests are switched off."""

    def count(self, infos: Sequence[Mapping[str, Any]]) -> None:
        """Count no battles: they are of no interest here."""

    def beat(self) -> None:
        """Count a heartbeat."""
        self._beats += 1

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """Time what the calling thread spends on tracking."""
        before = time.thread_time()
        try:
            yield
        finally:
            self._own_s += time.thread_time() - before

    def end_block(self, t_env: int) -> bool:
        """Note a block of the loop, end the turn if it is time, and return whether all turns are over."""
        self._blocks += 1
        now = int(t_env), time.perf_counter(), time.process_time()
        if self._blocks <= WARM or self._start is None:
            self._start = now
            return False
        steps, clock_s, processor_s = (after - before for after, before in zip(now, self._start, strict=True))
        if clock_s < self._seconds:
            return False
        times = {"clock_s": clock_s, "processor_s": processor_s, "own_s": self._own_s, "beats": self._beats}
        self.done.append({"tracked": self.tracked, "steps": steps, **times})
        # On, off, off, on: each is the first of every second pair.
        self.tracked = (len(self.done) + 1) // 2 % 2 == 0
        self._start, self._own_s, self._beats = now, 0.0, 0
        return len(self.done) == 2 * self._pairs


def attach(turns: Turns) -> None:
    """Make the observers of the next run of this process obey."""
    from kd_marl.plugin import launch
    from kd_marl.tracking import follower

    class Record(launch.RunRecord):  # type: ignore[misc,name-defined]
        """The run's files; what is logged while it is off waits."""

        def heartbeat_event(self, *given: Any, **named: Any) -> None:
            if turns.tracked:
                turns.beat()
                with turns.own():
                    super().heartbeat_event(*given, **named)

        def log_metrics(self, metrics_by_name: Mapping[str, Any], info: Any) -> None:
            waiting.append(metrics_by_name)
            if turns.tracked:
                with turns.own():
                    for metrics in waiting:
                        super().log_metrics(metrics, info)
                waiting.clear()

    class Follower(follower.Follower):
        """The sending to MongoDB."""

        def heartbeat_event(self, *given: Any, **named: Any) -> None:
            if turns.tracked:
                super().heartbeat_event(*given, **named)

        def _bring_up(self) -> None:
            with turns.own():
                super()._bring_up()

    waiting: list[Mapping[str, Any]] = []
    launch.RunRecord, follower.Follower = Record, Follower


@contextlib.contextmanager
def server() -> Iterator[dict[str, str]]:
    """Name the server, and start one where none is given."""
    if "KD_MARL_MONGO_URL" in os.environ:
        yield {"server": "KD_MARL_MONGO_URL", "url": ""}
        return
    command = [sys.executable, str(STAND_IN), "--port", "0", "--until-input-ends"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield {"server": "the tests' stand-in", "url": f"127.0.0.1:{process.stdout.readline().strip()}"}
        process.kill()


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train, and yield the server, the turns, and the ratios of the pairs."""
    # Imported late, as in src/main.py: main sets the threads before torch starts.
    import main as program
    from kd_marl.plugin import lifecycle

    turns, facts = Turns(args.pairs, args.seconds), {}
    install = lifecycle.install

    def install_and_attach(host: Any, *line: str) -> None:
        install(host, *line)
        speed_run.attach(host, turns, facts)

    lifecycle.install = install_and_attach
    attach(turns)
    with server() as named, tempfile.TemporaryDirectory() as results:
        keys = [f"env_args.key={args.task}", f"local_results_path={results}", f"buffer_episodes={args.episodes}"]
        keys += ["limits=lh", "seed=1", "t_max=1000000000", "test_interval=1000000000", "test_nepisode=1"]
        keys += ["save_model=False", "tracking=mongo", f"tracking_url={named['url']}"]
        if status := program.main(["--config=kd_student", "--env-config=mpe", "with", *keys]):
            raise UserError(f"the training ended with status {status}")
        written = sum(file.stat().st_size for file in Path(results).glob("sacred/kd_student/*/*/*.json"))
    yield {"server": named["server"], "turns": turns.done, "json_kib": round(written / 1024), **ratios(turns.done)}


def ratios(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare the two turns of each pair; and milliseconds of the processor a heartbeat."""
    found: dict[str, list[float]] = {"clock": [], "processor": []}
    for pair in zip(turns[::2], turns[1::2], strict=True):
        on, off = sorted(pair, key=lambda turn: not turn["tracked"])
        for name in ("clock", "processor"):
            found[name].append((on[f"{name}_s"] / on["steps"]) / (off[f"{name}_s"] / off["steps"]))
    beats = [1000 * turn["own_s"] / turn["beats"] for turn in turns if turn["beats"]]
    return {
        **{f"{name}_ratio": measured.spread(values) for name, values in found.items()},
        "heartbeat_ms": measured.spread(beats),
    }


def text(result: Mapping[str, Any]) -> str:
    """Write the table."""
    rows = []
    for name, ratio in (("the clock", "clock"), ("the processor", "processor")):
        costs = {
            tracked: measured.spread(
                [turn[f"{ratio}_s"] / turn["steps"] * 1000 for turn in result["turns"] if turn["tracked"] is tracked]
            )
            for tracked in (False, True)
        }
        rows.append(
            {
                "seconds a thousand steps, by": name,
                "no tracking": costs[False],
                "files and MongoDB": costs[True],
                "ratio": result[f"{ratio}_ratio"],
            }
        )
    return (
        f"{measured.table(rows)}\n\n"
        f"A heartbeat, every ten seconds, takes {measured.cell(result['heartbeat_ms'])} ms of the processor.\n"
        f"Server: {result['server']}. {len(result['turns']) // 2} pairs of turns."
    )


def main(words: list[str] | None = None) -> int:
    """Measure, print and write."""
    parser = measured.options(__doc__)
    parser.add_argument("--pairs", type=int, default=15, help="of turns (default: 15)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of a turn: three heartbeats (default: 30)")
    parser.add_argument(
        "--task", default="pz-mpe-simple-spread-v3", help="a particle environment with a bundled teacher"
    )
    parser.add_argument("--episodes", type=int, default=1000, help="of its expert buffer (default: 1000)")
    return measured.command(parser, words, measure, text)


if __name__ == "__main__":
    sys.exit(main())
