"""How fast a teacher trains: `kd_teacher` against EPyMARL's own `mappo`, on the same map, in one run.

    EPYMARL_HOME=~/epymarl python benchmarks/throughput.py --json throughput.json                 # about half an hour
    EPYMARL_HOME=~/epymarl python benchmarks/throughput.py --time-to-win --steps 1000000 --json throughput.json  # hours
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
for float32). The start of training is measured, when battles are short and agents die early; --time-to-win measures
whole trainings.

--time-to-win trains each side once on --steps steps and reads, from tests of the sampled policy (EPyMARL's `mappo`
always samples), when the win rate reached --win-rate first, and what it was at the end. Its seconds are those of
training, compilation included and tests left out; `kd_teacher` is told the same t_max, and not to stop early.
"""

from __future__ import annotations

import argparse
import os
import statistics
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
TESTS_OF_A_RUN = 20


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
            found[f"{name}_vs_{rival}"] = statistics.median(each) if each else None
            found[f"{name}_vs_{rival}_spread"] = {"each": each, **measured.spread(each)} if each else None
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


def learning(report: Mapping[str, Any], win_rate: float) -> dict[str, Any]:
    """Read one whole training: its curve, and when it first won often enough.

    Returns:
        ``curve``, rows of steps, seconds of training, win rate and return; ``steps_to_win`` and ``seconds_to_win``,
        None if never; and ``final``, the curve's last row.
    """
    returns = {step: value for step, value in report["tests"]["return"]}
    curve = []
    for step, wins in report["tests"]["battle_won"]:
        seconds = max(block["elapsed_s"] for block in report["blocks"] if block["t_env"] <= step)
        curve.append([step, seconds, wins, returns[step]])
    reached = next((row for row in curve if row[2] >= win_rate), None)
    return {
        "curve": curve,
        "steps_to_win": reached and reached[0],
        "seconds_to_win": reached and reached[1],
        "final": curve[-1],
        "settings": report["settings"],
        "peak_memory_mib": report["memory"]["peak_mib"],
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


def learn(found: Sequence[Side], args: argparse.Namespace) -> dict[str, Any]:
    """Train every side once, without the bundled `mappo` where EPyMARL's, which learns as it does, is measured."""
    chosen = [side for side in found if side.name != LITE or len(found) == 2]
    words = [f"env_args.map_name={args.map}", f"hidden_dim={args.hidden}", "save_model=False", "test_greedy=False"]
    words += [f"t_max={args.steps}", f"test_interval={args.steps // TESTS_OF_A_RUN}", "test_nepisode=120", "seed=1"]
    trained = {}
    for side in chosen:
        own = ["patience=1.0"] if side.name == OURS else []
        trained[side.name] = learning(side.measure([], [*words, *own]), args.win_rate)
        steps, seconds, wins, _ = trained[side.name]["final"]
        print(f"{side.name}: {100 * wins:.0f} % wins after {steps} steps, {seconds:.0f} s", flush=True)
    return {"win_rate": args.win_rate, "steps": args.steps, "sides": trained}


def _parser() -> argparse.ArgumentParser:
    parser = measured.options(__doc__)
    parser.add_argument("--map", default="8m", help="a map of SMAX")
    parser.add_argument("--hidden", type=int, default=256, help="width of actor and critic, on all sides")
    parser.add_argument("--pairs", type=int, default=5, help="turns; 0 leaves the throughput out")
    parser.add_argument("--seconds", type=float, default=40.0, help="to measure in each run, after two warm blocks")
    parser.add_argument("--host-environments", type=int, metavar="N", help="battles of mappo at a time (default: 10)")
    parser.add_argument("--teacher", nargs="+", default=[], metavar="KEY=VALUE", help="keys for kd_teacher alone")
    parser.add_argument("--time-to-win", action="store_true", help="also train each side once")
    parser.add_argument("--win-rate", type=float, default=0.5, help="the rate to be reached")
    parser.add_argument("--steps", type=int, default=1_000_000, help="environment steps of those trainings")
    return parser


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the throughput, then the trainings, as far as they are asked for."""
    found = sides(args)
    if not any(side.name == HOST for side in found):
        print("EPYMARL_HOME is not set: measuring against epymarl_lite's mappo alone, not against EPyMARL itself")
    yield {"map": args.map, "hidden": args.hidden}
    if args.pairs > 0:
        yield compare(take_turns(found, args))
    if args.time_to_win:
        yield {"time_to_win": learn(found, args)}


def text(result: Mapping[str, Any]) -> str:
    """Write a table of the sides, and one of the trainings."""
    tables = []
    if "sides" in result:
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
        tables.append(measured.table(rows))
    if "time_to_win" in result:
        names = ("steps", "seconds", "win_rate", "return")
        rows = [
            {
                "side": name,
                **{key: "never" if side[key] is None else side[key] for key in ("steps_to_win", "seconds_to_win")},
                **dict(zip(names, side["final"], strict=True)),
            }
            for name, side in result["time_to_win"]["sides"].items()
        ]
        tables.append(measured.table(rows))
    return "\n\n".join(tables)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return measured.command(_parser(), words, measure, text)


if __name__ == "__main__":
    sys.exit(main())
