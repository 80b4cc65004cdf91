"""How fast a teacher trains: `kd_teacher` against EPyMARL's own `mappo`, on the same map, in one run.

    EPYMARL_HOME=~/epymarl python benchmarks/throughput.py --json throughput.json                 # about half an hour
    python benchmarks/throughput.py --pairs 1 --seconds 5 --map 3m --hidden 32                    # a quick look

Sides: `kd_teacher` on the bundled runtime; `epymarl`, the checkout that EPYMARL_HOME names, its `mappo` with its
parallel runner on our `smax` environment; `epymarl_lite`, the bundled runtime's `mappo`. They take turns, in the
same order, each time as a fresh process; a pair is two that followed each other in one turn, and the headline is the
median over the pairs.

Measured: environment steps over seconds, from the end of the second block to the end of the first one that ends at
least --seconds later. A block is what the host's loop does between two updates: play, store, sample, learn, log.
Start, compilation and tests are left out. Peak memory is that of all processes of a side together, over its whole
life: PSS, looked at every two seconds, but at least the kernel's exact high-water mark of the largest process.

Equal on all sides: map, rewards, episode limit of 100, width of actor and critic (--hidden), a recurrent policy
shared by the agents, a central critic on the state, seeds, the loop and its logging. Threads are those of a user:
all sides go through src/main.py, which sets torch's, and JAX has one in each process that steps environments; the
table names torch's. (EPyMARL's own main.py sets one for torch.)

Different, because each is run with its own defaults, as a user would: `mappo` plays 10 battles at a time, each in a
process of its own (--host-environments changes that; the bundled runtime's shares them among as many processes as
there are cores), and makes 4 passes of one gradient step each over them, with 5-step returns, along whole episodes,
padded to the longest; `kd_teacher` steps 512 battles in one process, and makes 2 passes of 8 steps each, with GAE,
over sequences of 10 steps without the padding, in bfloat16 where the CPU multiplies it (`--teacher autocast=none`
for float32). The start of training is measured, when battles are short and agents die early.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measured
from speed_process import watched

OURS, HOST, LITE = "kd_teacher", "epymarl", "epymarl_lite"
# No test but the one with which the loop begins, and nothing saved.
WITHOUT_TESTS = ("test_interval=1000000000", "test_nepisode=1", "save_model=False")


@dataclass(frozen=True)
class Side:
    """An algorithm on a host.

    Attributes:
        home: `EPYMARL_HOME`, or None for the bundled runtime.
        words: its own part of the command line.
    """

    name: str
    algorithm: str
    home: str | None
    words: tuple[str, ...] = ()

    def measure(self, options: Sequence[str], words: Sequence[str]) -> dict[str, Any]:
        """Train on this side; see speed_run.py for the options and the report."""
        program = [sys.executable, str(measured.BENCHMARKS / "speed_run.py"), *options, "--"]
        run = [f"--config={self.algorithm}", "--env-config=smax", "with", *words, "use_cuda=False", *self.words]
        return watched([*program, *run, "local_results_path=results"], self.home)


def sides(args: argparse.Namespace) -> list[Side]:
    """List those that can be measured here, in the order of their turns."""
    home, blocks = os.environ.get("EPYMARL_HOME"), args.host_environments
    stock = tuple(f"{key}={blocks}" for key in ("batch_size_run", "batch_size", "buffer_size")) if blocks else ()
    found = [Side(OURS, "kd_teacher", None, tuple(args.teacher)), Side(LITE, "mappo", None, stock)]
    if home:
        found.insert(1, Side(HOST, "mappo", str(Path(home).expanduser().resolve()), stock))
    return found


def rates(report: Mapping[str, Any]) -> dict[str, float]:
    """Compute steps per second, and microseconds of a step, of one run's blocks after the warm ones."""
    first, last = report["blocks"][report["warm"] - 1], report["blocks"][-1]
    steps = last["t_env"] - first["t_env"]
    blocks, names = report["blocks"][report["warm"] :], ("rollout", "learn", "environment")
    parts = {f"{name}_us": 1e6 * sum(block[f"{name}_s"] for block in blocks) / steps for name in names}
    seconds = last["elapsed_s"] - first["elapsed_s"]
    return {"steps_per_s": steps / seconds, "steps": steps, "seconds": seconds, **parts}


def compare(turns: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Compute the headline keys and what they are made of.

    Args:
        turns: of each turn, a report for each side.
    """
    found: dict[str, Any] = {}
    for rival in (HOST, LITE):
        both = [(turn[OURS], turn[rival]) for turn in turns if rival in turn]
        speedup = [rates(ours)["steps_per_s"] / rates(other)["steps_per_s"] for ours, other in both]
        memory = [ours["memory"]["peak_mib"] / other["memory"]["peak_mib"] for ours, other in both]
        for name, each in (("speedup", speedup), ("memory_ratio", memory)):
            spread = {"each": each, **measured.spread(each)} if each else None
            found[f"{name}_vs_{rival}"] = spread and spread["median"]
            found[f"{name}_vs_{rival}_spread"] = spread
    found["sides"] = {name: _summary([turn[name] for turn in turns]) for name in turns[0]}
    return found


def _summary(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    runs = [rates(report) for report in reports]
    return {
        **{key: reports[0][key] for key in ("host", "settings", "threads")},
        **{name: measured.spread([rate[name] for rate in runs]) for name in runs[0]},
        "peak_memory_mib": measured.spread([report["memory"]["peak_mib"] for report in reports]),
        "memory": [report["memory"] for report in reports],
        "measured_blocks": [len(report["blocks"]) - report["warm"] for report in reports],
    }


def take_turns(found: Sequence[Side], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every side once a turn."""
    turns: list[dict[str, Any]] = []
    common = [f"env_args.map_name={args.map}", f"hidden_dim={args.hidden}", *WITHOUT_TESTS]
    for turn in range(args.pairs):
        turns.append({})
        for side in found:
            report = side.measure(["--seconds", str(args.seconds)], [*common, f"seed={turn + 1}"])
            turns[-1][side.name] = report
            rate, memory = rates(report)["steps_per_s"], report["memory"]["peak_mib"]
            print(f"turn {turn + 1}, {side.name}: {rate:.0f} steps/s, {memory:.0f} MiB", flush=True)
    return turns


def _parser() -> argparse.ArgumentParser:
    parser = measured.options(__doc__)
    parser.add_argument("--map", default="8m", help="a map of SMAX")
    parser.add_argument("--hidden", type=int, default=256, help="width of actor and critic, on all sides")
    parser.add_argument("--pairs", type=int, default=5, help="turns")
    parser.add_argument("--seconds", type=float, default=40.0, help="to measure in each run, after two warm blocks")
    parser.add_argument("--host-environments", type=int, metavar="N", help="battles of mappo at a time (default: 10)")
    parser.add_argument("--teacher", nargs="+", default=[], metavar="KEY=VALUE", help="keys for kd_teacher alone")
    return parser


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the comparison of all sides."""
    found = sides(args)
    if not any(side.name == HOST for side in found):
        print("EPYMARL_HOME is not set: measuring against epymarl_lite's mappo alone, not against EPyMARL itself")
    yield {"map": args.map, "hidden": args.hidden, **compare(take_turns(found, args))}


def text(result: Mapping[str, Any]) -> str:
    """Write a row for each side."""
    keys = ("threads", "steps_per_s", "rollout_us", "learn_us", "peak_memory_mib")
    ratios = {"kd_teacher is faster, times": "speedup", "its share of memory": "memory_ratio"}
    rows = [
        {
            "side": name,
            "commit": side["host"]["commit"],
            "battles": side["settings"]["batch_size_run"],
            **{key: side[key] for key in keys},
            **{title: result.get(f"{ratio}_vs_{name}_spread") for title, ratio in ratios.items()},
        }
        for name, side in result["sides"].items()
    ]
    return measured.table(rows)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return measured.command(_parser(), words, measure, text)


if __name__ == "__main__":
    sys.exit(main())
