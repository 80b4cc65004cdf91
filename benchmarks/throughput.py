"""How fast a teacher trains: `kd_teacher` against EPyMARL's `mappo` and JaxMARL's MAPPO and IPPO, in one run.

    EPYMARL_HOME=~/epymarl python benchmarks/throughput.py --json throughput.json                 # about half an hour
    python benchmarks/throughput.py --pairs 1 --seconds 5 --map 3m --hidden 32                    # a quick look
    JAXMARL_HOME=~/jaxmarl python benchmarks/throughput.py --map 3m --hidden 128 --battles 128 --load 3
    JAXMARL_HOME=~/jaxmarl python benchmarks/throughput.py --map 3m --hidden 128 --battles 128 --until-won 0.8

Sides: `kd_teacher` on the bundled runtime; `epymarl`, the checkout that EPYMARL_HOME names, its `mappo` with its
parallel runner on our `smax` environment; `epymarl_lite`, the bundled runtime's `mappo`; `jaxmarl_mappo` and
`jaxmarl_ippo`, the recurrent ones of the checkout that JAXMARL_HOME names, with the keys of its own YAML files
(peer_run.py starts them; pip install flax optax distrax, then tfp-nightly). They take turns, in the same order, each
time as a fresh process; a pair is two that followed each other in one turn, and the headline is the median over the
pairs. With --load each turn is repeated beside that many busy loops for each core, which this program starts and ends.

Measured: environment steps over seconds, from the end of the second block (JaxMARL: the first) to the end of the
first that ends at least --seconds later. A block is what the host's loop does between two updates: play, store,
sample, learn, log. Start, compilation and tests are left out. Peak memory is that of all processes of a side together,
over its whole life: PSS, looked at every two seconds, but at least the kernel's exact high-water mark of the largest
process.

Equal on all sides: map, rewards, episode limit of 100, width of actor and critic (--hidden), a recurrent policy
shared by the agents, a central critic on the state, seeds, the loop and its logging. Threads are those of a user:
all but JaxMARL's, which have JAX's pool of a thread per core, go through src/main.py, which sets torch's, and JAX has
one in each process that steps environments; the table names torch's. (EPyMARL's own main.py sets one for torch.)

Different, because each is run with its own defaults, as a user would: `mappo` plays 10 battles at a time, each in a
process of its own (--host-environments changes that; the bundled runtime's shares them among as many processes as
there are cores), and makes 4 passes of one gradient step each over them, with 5-step returns, along whole episodes,
padded to the longest; `kd_teacher` steps 512 battles in one process, and makes 2 passes of 8 steps each, with GAE,
over sequences of 10 steps without the padding, in bfloat16 where the CPU multiplies it (`--teacher autocast=none`
for float32). JaxMARL's play as many battles as `kd_teacher` (--battles), 128 steps of each, then make 4 passes of 4
steps. The start of training is measured, when battles are short and agents die early.

With --until-won a run lasts until that share of the battles is won, or for --steps; the table has the steps and seconds
from the beginning of the training until half of them and until that share were won, in the latest 500 battles.
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
from speed_process import busy, watched

OURS, HOST, LITE = "kd_teacher", "epymarl", "epymarl_lite"
PEERS = {"jaxmarl_mappo": "mappo", "jaxmarl_ippo": "ippo"}
NAMES = (OURS, HOST, LITE, *PEERS)
# Battles of kd_teacher at a time on smax.
BATTLES = 512
# Battles of which the share that is won is taken.
WON_OF = 500
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


@dataclass(frozen=True)
class Peer:
    """An algorithm of JaxMARL's own.

    Attributes:
        words: options of peer_run.py.
    """

    name: str
    words: tuple[str, ...]

    def measure(self, options: Sequence[str], words: Sequence[str]) -> dict[str, Any]:
        """Train it; see peer_run.py for the options and the report. Of the run's words only its seed is read."""
        seed = next(word.removeprefix("seed=") for word in words if word.startswith("seed="))
        program = [sys.executable, str(measured.BENCHMARKS / "peer_run.py"), *options, "--seed", seed]
        return watched([*program, *self.words, PEERS[self.name]])


def sides(args: argparse.Namespace) -> list[Side | Peer]:
    """List those that can be measured here, in the order of their turns."""
    home, peer = os.environ.get("EPYMARL_HOME"), os.environ.get("JAXMARL_HOME")
    # It would end where no test was better for long, and none is made here.
    ours = ("patience=1", *_blocks(args.battles), *args.teacher)
    found: list[Side | Peer] = [Side(OURS, "kd_teacher", None, ours)]
    stock = _blocks(args.host_environments)
    if home:
        found.append(Side(HOST, "mappo", str(Path(home).expanduser().resolve()), stock))
    found.append(Side(LITE, "mappo", None, stock))
    if peer:
        steps = ["--steps", str(args.steps)] if args.steps else []
        words = ["--map", args.map, "--hidden", str(args.hidden), "--battles", str(args.battles or BATTLES), *steps]
        found += [Peer(name, tuple(words)) for name in PEERS]
    return [side for side in found if not args.sides or side.name in args.sides]


def _blocks(battles: int | None) -> tuple[str, ...]:
    return tuple(f"{key}={battles}" for key in ("batch_size_run", "batch_size", "buffer_size")) if battles else ()


def rates(report: Mapping[str, Any]) -> dict[str, float]:
    """Compute steps per second, and microseconds of a step, of one run's blocks after the warm ones."""
    first, last = report["blocks"][report["warm"] - 1], report["blocks"][-1]
    steps = last["t_env"] - first["t_env"]
    blocks, names = report["blocks"][report["warm"] :], ("rollout", "learn", "environment")
    # What is one compiled call has no parts.
    parts = {
        f"{name}_us": 1e6 * sum(block[f"{name}_s"] for block in blocks) / steps
        for name in names
        if f"{name}_s" in blocks[0]
    }
    seconds = last["elapsed_s"] - first["elapsed_s"]
    return {"steps_per_s": steps / seconds, "steps": steps, "seconds": seconds, **parts}


def reached(report: Mapping[str, Any], share: float) -> dict[str, float] | None:
    """Find when a run had won that share of its latest battles; None where it never had, or nobody counted.

    Returns:
        ``steps`` and ``seconds`` since the training began.
    """
    battles = won = 0.0
    latest: list[tuple[float, float]] = []
    for block in report["blocks"]:
        if block.get("won") is None:
            continue
        # A peer's share is that of its whole update.
        count = block.get("battles", WON_OF)
        latest.append((count, block["won"] * count))
        while sum(size for size, _ in latest[1:]) >= WON_OF:
            latest.pop(0)
        battles, won = (sum(column) for column in zip(*latest, strict=True))
        if battles >= WON_OF and won >= share * battles:
            return {"steps": block["t_env"], "seconds": block["elapsed_s"]}
    return None


def compare(turns: Sequence[Mapping[str, Mapping[str, Any]]], shares: Sequence[float] = ()) -> dict[str, Any]:
    """Compute the headline keys and what they are made of.

    Args:
        turns: of each turn, a report for each side.
        shares: of battles won, to be reached.
    """
    found: dict[str, Any] = {}
    for rival in (HOST, LITE, *PEERS):
        both = [(turn[OURS], turn[rival]) for turn in turns if rival in turn]
        speedup = [rates(ours)["steps_per_s"] / rates(other)["steps_per_s"] for ours, other in both]
        memory = [ours["memory"]["peak_mib"] / other["memory"]["peak_mib"] for ours, other in both]
        for name, each in (("speedup", speedup), ("memory_ratio", memory)):
            spread = {"each": each, **measured.spread(each)} if each else None
            found[f"{name}_vs_{rival}"] = spread and spread["median"]
            found[f"{name}_vs_{rival}_spread"] = spread
    found["sides"] = {name: _summary([turn[name] for turn in turns], shares) for name in turns[0]}
    return found


def _summary(reports: Sequence[Mapping[str, Any]], shares: Sequence[float]) -> dict[str, Any]:
    runs = [rates(report) for report in reports]
    return {
        **{key: reports[0][key] for key in ("host", "settings", "threads")},
        **{name: measured.spread([rate[name] for rate in runs]) for name in runs[0]},
        "peak_memory_mib": measured.spread([report["memory"]["peak_mib"] for report in reports]),
        "memory": [report["memory"] for report in reports],
        "won": {str(share): [reached(report, share) for report in reports] for share in shares},
        "measured_blocks": [len(report["blocks"]) - report["warm"] for report in reports],
    }


def take_turns(found: Sequence[Side | Peer], args: argparse.Namespace) -> dict[int, list[dict[str, Any]]]:
    """Measure every side once a turn, quiet and under each load; by busy loops for each core."""
    loads = sorted({0, args.load})
    turns: dict[int, list[dict[str, Any]]] = {load: [] for load in loads}
    common = [f"env_args.map_name={args.map}", f"hidden_dim={args.hidden}", *WITHOUT_TESTS]
    options = ["--seconds", str(args.seconds)]
    if args.until_won:
        options = ["--until-won", str(args.until_won)]
        common += [f"t_max={args.steps}"] if args.steps else []
    for turn in range(args.pairs):
        for load in loads:
            turns[load].append({})
            with busy(load):
                for side in found:
                    report = side.measure(options, [*common, f"seed={turn + 1}"])
                    turns[load][-1][side.name] = report
                    rate, memory = rates(report)["steps_per_s"], report["memory"]["peak_mib"]
                    beside = f", {load} busy loops per core" if load else ""
                    said = f"turn {turn + 1}, {side.name}{beside}: {rate:.0f} steps/s, {memory:.0f} MiB"
                    print(said, flush=True)
    return turns


def _parser() -> argparse.ArgumentParser:
    parser = measured.options(__doc__)
    parser.add_argument("--map", default="8m", help="a map of SMAX")
    parser.add_argument("--hidden", type=int, default=256, help="width of actor and critic, on all sides")
    parser.add_argument("--pairs", type=int, default=5, help="turns")
    parser.add_argument("--seconds", type=float, default=40.0, help="to measure in each run, after the warm blocks")
    parser.add_argument("--battles", type=int, metavar="N", help=f"at a time, ours and JaxMARL's (default: {BATTLES})")
    parser.add_argument("--sides", nargs="+", metavar="NAME", choices=NAMES, help="only these; kd_teacher among them")
    parser.add_argument("--load", type=int, default=0, metavar="N", help="measure also beside N busy loops per core")
    parser.add_argument("--until-won", type=float, metavar="SHARE", help="train until that share of battles is won,")
    parser.add_argument("--steps", type=int, metavar="N", help="or for so many steps (default: each one's own)")
    parser.add_argument("--host-environments", type=int, metavar="N", help="battles of mappo at a time (default: 10)")
    parser.add_argument("--teacher", nargs="+", default=[], metavar="KEY=VALUE", help="keys for kd_teacher alone")
    return parser


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the comparison of all sides."""
    found = sides(args)
    for variable, missing, names in (("EPYMARL_HOME", "EPyMARL itself", {HOST}), ("JAXMARL_HOME", "JaxMARL", {*PEERS})):
        if not os.environ.get(variable) and (not args.sides or names & {*args.sides}):
            print(f"{variable} is not set: not measuring against {missing}")
    shares = sorted({0.5, args.until_won}) if args.until_won else []
    by_load = take_turns(found, args)
    loaded = {f"under_{load}_loops_per_core": compare(turns, shares) for load, turns in by_load.items() if load}
    yield {"map": args.map, "hidden": args.hidden, **compare(by_load[0], shares), **loaded}


def text(result: Mapping[str, Any]) -> str:
    """Write a row for each side, and each load a table."""
    tables = [measured.table([_row(result, name, side) for name, side in result["sides"].items()])]
    for key, loaded in result.items():
        if key.startswith("under_"):
            tables.append(f"{key.replace('_', ' ').capitalize()}:\n\n{text(loaded)}")
    return "\n\n".join(tables)


def _row(result: Mapping[str, Any], name: str, side: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("threads", "steps_per_s", "rollout_us", "learn_us", "peak_memory_mib")
    ratios = {"kd_teacher is faster, times": "speedup", "its share of memory": "memory_ratio"}
    won = {
        f"{unit} to {100 * float(share):.0f} % wins": measured.spread([run[unit] for run in runs])
        if all(runs)
        else f"reached by {len([run for run in runs if run])} of {len(runs)}"
        for share, runs in side["won"].items()
        for unit in ("steps", "seconds")
    }
    return {
        "side": name,
        "commit": side["host"]["commit"],
        "battles": side["settings"]["batch_size_run"],
        **{key: side.get(key) for key in keys},
        **{title: result.get(f"{ratio}_vs_{name}_spread") for title, ratio in ratios.items()},
        **won,
    }


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return measured.command(_parser(), words, measure, text)


if __name__ == "__main__":
    sys.exit(main())
