"""What several machines would bring to one teacher's training: a model of what was measured on one.

    python benchmarks/scaling.py --part teams --seconds 20 --json scaling.json    # what a step costs
    python benchmarks/outgrown.py --scaling scaling.json --json outgrown.json

M machines play and learn from an M-th of each block, and add up their gradients after each minibatch. A block takes

    T(M) = T(1) / M + U (2 (M - 1) L + 2 (M - 1) / M * bytes / rate)

with U minibatches a block, a ring's 2 (M - 1) messages of latency L each, and the gradients of actor and critic as
float32. T(1) is that of `scaling.py`, whose machine this should be. That smaller calls cost more, and that machines
wait for the slowest, is left out: the truth is worse. What of M machines is of use is T(1) / (M T(M)). Runs of a suite
do not depend on each other, and use all of them (`cluster.py`).

`measured_ms` is what adding up these gradients takes two processes of this machine with torch's gloo: no network, but
the software that is there too. `model_ms` is the model's for two machines at the first rate.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measured
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from kd_controllers.teacher_mac import TeacherSizes
from kd_core.config import assemble, parse_command
from kd_core.costs.flops import parameter_count
from kd_core.errors import UserError
from kd_core.host import get_host
from kd_envs.smax.simulator import map_facts
from kd_learners.central_critic import CriticSizes

FLOAT32 = 4
# Of one measurement; the first is not counted.
REPEATS = 20


def parameters(map_name: str, width: int) -> int:
    """Count the parameters of the teacher's actor and critic on an SMAX map."""
    facts = map_facts(map_name)
    sizes = {name: getattr(facts, name) for name in ("n_agents", "n_actions", "obs_size", "state_size")}
    shared = {**sizes, "hidden_dim": width, "obs_last_action": False}
    actor = TeacherSizes(**shared, use_rnn=True, obs_agent_id=True, teacher_input="obs")
    critic = CriticSizes("cv_critic", **shared, obs_individual_obs=False)
    return parameter_count(actor.build()) + parameter_count(critic.build())


def adding_s(machines: int, size: int, latency_s: float, bytes_per_s: float) -> float:
    """Compute the seconds in which a ring of machines adds up ``size`` bytes."""
    return 2 * (machines - 1) * latency_s + 2 * (machines - 1) / machines * size / bytes_per_s


def share(machines: int, block_s: float, updates: int, each_s: float) -> float:
    """Compute what of so many machines is of use.

    Args:
        machines: M.
        block_s: T(1).
        updates: U, minibatches a block.
        each_s: seconds in which the machines add up a minibatch's gradients.
    """
    return block_s / (block_s + machines * updates * each_s)


def gloo_s(counts: Sequence[int]) -> list[float]:
    """Measure in how many seconds two processes of this machine add up so many float32, the median of each."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_add_up, args=(list(counts), Path(folder)), nprocs=2)
        return list(json.loads((Path(folder) / "found").read_text()))


def _add_up(rank: int, counts: Sequence[int], folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    found = []
    for count in counts:
        gradients, times = torch.ones(count), []
        for _ in range(REPEATS + 1):
            dist.barrier()
            started = time.perf_counter()
            dist.all_reduce(gradients)
            times.append(time.perf_counter() - started)
        found.append(sorted(times[1:])[REPEATS // 2])
    if rank == 0:
        (folder / "found").write_text(json.dumps(found))
    dist.destroy_process_group()


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the whole result."""
    scaling = read_scaling(args.scaling)
    config = assemble(
        get_host(), parse_command(["--config=kd_teacher", "--env-config=smax", "with", "env_args.map_name=3m"])
    )
    updates = config["epochs"] * config["minibatches"]
    width, rows = scaling["hidden"], scaling["teams"]["rows"]
    counts = [parameters(row["map"], width) for row in rows]
    rates = [1e9 / 8 * gbit for gbit in args.gbit]
    latency_s = 1e-6 * args.latency_us
    found = []
    for row, count, took in zip(rows, counts, gloo_s(counts), strict=True):
        block_s = row["steps_per_block"] / row["steps_per_s"]
        size = FLOAT32 * count
        entry = {
            "map": row["map"],
            "agents": row["agents"],
            "parameters": count,
            "block_s": block_s,
            "measured_ms": 1e3 * took,
            "model_ms": 1e3 * adding_s(2, size, latency_s, rates[0]),
        }
        for gbit, rate in zip(args.gbit, rates, strict=True):
            for machines in args.machines:
                each = adding_s(machines, size, latency_s, rate)
                entry[f"{machines} at {gbit:g} Gbit/s"] = share(machines, block_s, updates, each)
        found.append(entry)
    yield {"hidden": width, "updates": updates, "latency_us": args.latency_us, "rows": found}


def read_scaling(file: Path) -> dict[str, Any]:
    """Read what `scaling.py` wrote.

    Raises:
        UserError: the file is not there, or has no `teams` with the steps of a block.
    """
    try:
        result = json.loads(file.read_text())
        if not (result["hidden"] and all("steps_per_block" in row for row in result["teams"]["rows"])):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"--scaling {file}: expected what benchmarks/scaling.py --part teams --json {file} writes"
        ) from None
    return dict(result)


def text(result: Mapping[str, Any]) -> str:
    """Write the table."""
    head = f"Width {result['hidden']}, {result['updates']} minibatches a block, {result['latency_us']:g} µs a message."
    return f"{head}\n\n{measured.table(result['rows'])}"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = measured.options(__doc__)
    parser.add_argument("--scaling", type=Path, required=True, metavar="FILE", help="what scaling.py wrote")
    parser.add_argument("--machines", type=int, nargs="+", default=[2, 4, 8, 16], help="M")
    parser.add_argument("--gbit", type=float, nargs="+", default=[1.0, 10.0, 100.0], help="rates of the network")
    parser.add_argument("--latency-us", type=float, default=50.0, help="of one message")
    return measured.command(parser, words, measure, text)


if __name__ == "__main__":
    sys.exit(main())
