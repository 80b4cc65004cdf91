"""What trainings lose on a busy machine: beside busy loops, and several at once.

    python benchmarks/busy.py --json busy.json                                             # about half an hour
    python benchmarks/busy.py --turns 1 --seconds 5 --hidden 32 --loops 1 --many 2         # a quick look

`kd_teacher` and `kd_student` on one map, by their own choice of threads and with OMP_NUM_THREADS=1, in turns, each time
as a fresh process. Beside busy loops: both while --loops endless loops run on each core; the figure is the speed by
their own choice as a multiple of one thread's. Several at once: --many trainings that are measured in the same seconds,
each by its own choice; the figure is how many times as long they take as one after the other, from the speed of one
that runs alone in the same turn. Start, compilation and tests are left out, as in throughput.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measured
from speed_process import busy, watched
from throughput import WITHOUT_TESTS, rates

# What a training of an algorithm needs beside the map.
WORDS = {
    "kd_teacher": ("hidden_dim={hidden}",),
    "kd_student": ("teacher={map}", "limits=lh", "buffer_episodes=100"),
}


def speed(algorithm: str, args: argparse.Namespace, seed: int, threads: int | None = None) -> float:
    """Train for a while; return the environment steps per second."""
    program = [sys.executable, str(measured.BENCHMARKS / "speed_run.py"), "--seconds", str(args.seconds), "--"]
    words = [word.format(hidden=args.hidden, map=args.map) for word in WORDS[algorithm]]
    task = ["--env-config=smax", "with", f"env_args.map_name={args.map}", f"seed={seed}", "use_cuda=False"]
    run = [f"--config={algorithm}", *task, *words, *WITHOUT_TESTS, "local_results_path=results"]
    return rates(watched([*program, *run], threads=threads))["steps_per_s"]


def beside_loops(algorithm: str, args: argparse.Namespace, turn: int) -> dict[str, float]:
    """Measure a turn beside busy loops."""
    with busy(args.loops):
        one, own = speed(algorithm, args, turn, threads=1), speed(algorithm, args, turn)
    return {"one_thread": one, "own_choice": own, "ratio": own / one}


def at_once(algorithm: str, args: argparse.Namespace, turn: int) -> dict[str, float]:
    """Measure a turn of one training alone and of several at once."""
    alone = speed(algorithm, args, turn)
    with ThreadPoolExecutor(args.many) as pool:
        together = sum(pool.map(lambda k: speed(algorithm, args, turn + k), range(args.many)))
    return {"alone": alone, "together": together, "ratio": alone / together}


PARTS = {"beside_loops": beside_loops, "at_once": at_once}


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the figures of each part and algorithm."""
    facts = {"map": args.map, "hidden": args.hidden, "loops_per_core": args.loops, "at_once": args.many}
    yield {"settings": facts}
    for part in args.parts:
        for algorithm in args.algorithms:
            turns = []
            for turn in range(1, args.turns + 1):
                turns.append(PARTS[part](algorithm, args, turn))
                print(f"turn {turn}, {part}, {algorithm}: {turns[-1]['ratio']:.3g}", flush=True)
            yield {f"{part}, {algorithm}": {name: measured.spread([turn[name] for turn in turns]) for name in turns[0]}}


def text(result: Mapping[str, Any]) -> str:
    """Write a row for each part and algorithm."""
    rows = []
    for name, found in result.items():
        part, comma, algorithm = name.partition(", ")
        if comma:
            first, second = (found[key] for key in found if key != "ratio")
            what = {"beside_loops": "beside busy loops", "at_once": "several at once"}[part]
            rows.append(
                {
                    "what": what,
                    "training": algorithm,
                    "steps/s of one": first,
                    "by their own choice": second,
                    "times": found["ratio"],
                }
            )
    return measured.table(rows)


def _parser() -> argparse.ArgumentParser:
    parser = measured.options(__doc__)
    parser.add_argument("--map", default="3m", help="a map of SMAX with a bundled teacher")
    parser.add_argument("--hidden", type=int, default=128, help="width of kd_teacher")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="to measure in each run, after two warm blocks")
    parser.add_argument("--loops", type=int, default=3, metavar="N", help="busy loops per core")
    parser.add_argument("--many", type=int, default=4, metavar="N", help="trainings at once")
    parser.add_argument("--algorithms", nargs="+", choices=list(WORDS), default=list(WORDS), metavar="NAME")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return measured.command(_parser(), words, measure, text)


if __name__ == "__main__":
    sys.exit(main())
