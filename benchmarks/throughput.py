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
import signal
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import speed_page
from speed_process import BENCHMARKS, busy_warning, machine, watched

from kd_core.errors import UserError

OURS, HOST, LITE = "kd_teacher", "epymarl", "epymarl_lite"
# No test but the one with which the loop begins, and nothing saved.
WITHOUT_TESTS = ("test_interval=1000000000", "test_nepisode=1", "save_model=False")
TESTS_OF_A_RUN = 20


@dataclass(frozen=True)
class Side:
    """What is measured.

    Attributes:
        home: `EPYMARL_HOME`, or None for the bundled runtime.
        words: its own part of the command line.
    """

    name: str
    algorithm: str
    home: str | None
    words: tuple[str, ...] = ()

    def measure(self, options: Sequence[str], words: Sequence[str]) -> dict[str, Any]:
        """A training run of this side; see speed_run.py for the options and the report."""
        program = [sys.executable, str(BENCHMARKS / "speed_run.py"), *options, "--"]
        run = [f"--config={self.algorithm}", "--env-config=smax", "with", *words, "use_cuda=False", *self.words]
        return watched([*program, *run, "local_results_path=results"], self.home)


def sides(args: argparse.Namespace) -> list[Side]:
    """Those that can be measured here, in the order of their turns."""
    home, blocks = os.environ.get("EPYMARL_HOME"), args.host_environments
    stock = tuple(f"{key}={blocks}" for key in ("batch_size_run", "batch_size", "buffer_size")) if blocks else ()
    found = [Side(OURS, "kd_teacher", None, tuple(args.teacher)), Side(LITE, "mappo", None, stock)]
    if home:
        found.insert(1, Side(HOST, "mappo", str(Path(home).expanduser().resolve()), stock))
    return found


def rates(report: Mapping[str, Any]) -> dict[str, float]:
    """Steps per second, and microseconds of a step, of one run: of the blocks after the warm ones."""
    first, last = report["blocks"][report["warm"] - 1], report["blocks"][-1]
    steps = last["t_env"] - first["t_env"]
    measured = report["blocks"][report["warm"] :]
    parts = {name: 1e6 * sum(block[f"{name}_s"] for block in measured) / steps for name in ("rollout", "learn")}
    parts["environment"] = 1e6 * sum(block["environment_s"] for block in measured) / steps
    seconds = last["elapsed_s"] - first["elapsed_s"]
    return {
        "steps_per_s": steps / seconds,
        "steps": steps,
        "seconds": seconds,
        **{f"{name}_us": value for name, value in parts.items()},
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """The values with their median, extremes and quartiles."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {"each": list(values), **found, "quartiles": [low, high], "iqr": high - low}


def compare(turns: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """The headline keys and what they are made of.

    Args:
        turns: of each turn, a report for each side.
    """
    found: dict[str, Any] = {}
    for rival in (HOST, LITE):
        pairs = [(rates(turn[OURS]), rates(turn[rival])) for turn in turns if rival in turn]
        memory = [
            turn[OURS]["memory"]["peak_mib"] / turn[rival]["memory"]["peak_mib"] for turn in turns if rival in turn
        ]
        speedup = spread([ours["steps_per_s"] / other["steps_per_s"] for ours, other in pairs]) if pairs else None
        found[f"speedup_vs_{rival}"] = speedup["median"] if speedup else None
        found[f"memory_ratio_vs_{rival}"] = statistics.median(memory) if memory else None
        found[f"speedup_vs_{rival}_spread"] = speedup
        found[f"memory_ratio_vs_{rival}_spread"] = spread(memory) if memory else None
    found["sides"] = {name: _summary([turn[name] for turn in turns]) for name in turns[0]}
    return found


def _summary(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    measured = [rates(report) for report in reports]
    return {
        "host": reports[0]["host"],
        "settings": reports[0]["settings"],
        "threads": reports[0]["threads"],
        **{name: spread([rate[name] for rate in measured]) for name in measured[0]},
        "peak_memory_mib": spread([report["memory"]["peak_mib"] for report in reports]),
        "memory": [report["memory"] for report in reports],
        "measured_blocks": [len(report["blocks"]) - report["warm"] for report in reports],
    }


def efficiency(report: Mapping[str, Any]) -> dict[str, float]:
    """FLOPs that the learner needed per second of learning, as shares of what the machine multiplies at most."""
    needs, blocks = report["needs"][report["warm"] :], report["blocks"][report["warm"] :]
    rate = sum(need["flops"] for need in needs) / sum(block["learn_s"] for block in blocks)
    decisions = sum(need["decisions"] for need in needs)
    return {
        "learner_gflop_per_s": rate / 1e9,
        "flop_per_decision_learnt": sum(need["flops"] for need in needs) / decisions,
        "unpadded_share": decisions / sum(need["computed"] for need in needs),
        "threads": report["threads"],
        **{f"peak_{name}_gflop_per_s": value / 1e9 for name, value in report["peak"].items()},
        **{f"share_of_{name}_peak": rate / value for name, value in report["peak"].items()},
    }


def learning(report: Mapping[str, Any], win_rate: float) -> dict[str, Any]:
    """One whole training: its curve, and when it first won often enough.

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
    """Every side once a turn."""
    turns: list[dict[str, Any]] = []
    common = [f"env_args.map_name={args.map}", f"hidden_dim={args.hidden}", *WITHOUT_TESTS]
    for turn in range(args.pairs):
        turns.append({})
        for side in found:
            flops = ["--flops"] if side.name == OURS and turn == 0 and not args.teacher else []
            options = ["--seconds", str(args.seconds), *flops]
            report = side.measure(options, [*common, f"seed={turn + 1}"])
            turns[-1][side.name] = report
            rate, memory = rates(report)["steps_per_s"], report["memory"]["peak_mib"]
            print(f"turn {turn + 1}, {side.name}: {rate:.0f} steps/s, {memory:.0f} MiB", flush=True)
    return turns


def learn(found: Sequence[Side], args: argparse.Namespace) -> dict[str, Any]:
    """Every side trained once; the bundled `mappo` learns as EPyMARL's does and is left out where that is measured."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    parser.add_argument("--map", default="8m", help="a map of SMAX")
    parser.add_argument("--hidden", type=int, default=256, help="width of actor and critic, on all sides")
    parser.add_argument("--pairs", type=int, default=5, help="turns; 0 leaves the throughput out")
    parser.add_argument("--seconds", type=float, default=40.0, help="to measure in each run, after two warm blocks")
    parser.add_argument(
        "--host-environments", type=int, metavar="N", help="battles of mappo at a time (default: its 10)"
    )
    parser.add_argument("--teacher", nargs="+", default=[], metavar="KEY=VALUE", help="keys for kd_teacher alone")
    parser.add_argument("--time-to-win", action="store_true", help="also train each side once")
    parser.add_argument("--win-rate", type=float, default=0.5, help="the rate to be reached")
    parser.add_argument("--steps", type=int, default=1_000_000, help="environment steps of those trainings")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    args = _parser().parse_args(words)
    # A terminal's Ctrl-C and a batch system's SIGTERM end what was started alike.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    facts = machine(sys.argv)
    found = sides(args)
    if warning := busy_warning(facts):
        print(warning, file=sys.stderr)
    if not any(side.name == HOST for side in found):
        print("EPYMARL_HOME is not set: measuring against epymarl_lite's mappo alone, not against EPyMARL itself")
    result: dict[str, Any] = {"machine": facts, "map": args.map, "hidden": args.hidden}
    try:
        if args.pairs > 0:
            turns = take_turns(found, args)
            result = {**compare(turns), **result}
            if "peak" in turns[0][OURS]:
                result["flops"] = efficiency(turns[0][OURS])
            speed_page.save(args.json, result)
        if args.time_to_win:
            result["time_to_win"] = learn(found, args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    print(speed_page.throughput(result))
    speed_page.save(args.json, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
