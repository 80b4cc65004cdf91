"""What messages cost a board's C: a talking student's decision beside a silent one's, in one run.

    python benchmarks/talking.py --json talking.json

Students of simple_spread under the paper's masks, untrained: the arithmetic is the same. Every message arrives. Each is
timed once a round, in an order drawn anew, and each ratio is taken within a round. One thread's CPU time, so that what
others compute meanwhile does not count. A bit that is heard costs an addition a weight, one that is said a product.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1] / "src")]

import latency_c  # noqa: E402
import latency_teams  # noqa: E402
import measured  # noqa: E402
import torch  # noqa: E402
from latency import interleave  # noqa: E402
from latency_teams import EPISODE, SIZES, Students, Timed  # noqa: E402
from measured import spread  # noqa: E402

from kd_controllers.messages import Messages  # noqa: E402
from kd_controllers.talking_net import TalkingStudent  # noqa: E402
from kd_core.costs.flops import closed_formula  # noqa: E402
from kd_marl.deploy import export as exporting  # noqa: E402
from kd_onboard.bundle import Bundle, read_bundle  # noqa: E402


def bundle_of(team: Students, bits: int, number_bits: int, folder: Path) -> Bundle:
    """Export untrained students that send everybody ``bits`` bits a step, in such numbers; 0: silent ones."""
    size = team.size
    run = latency_teams.untrained_run(size.task, size.env, team.mask, team.widths, size.n_actions, limits=team.limits)
    if bits:
        agents = range(size.n_agents)
        links = tuple((i, j) for i in agents for j in agents if i != j)
        messages = Messages(bits, links, number_bits=number_bits)
        torch.manual_seed(0)
        visible = [team.mask.indices(i) for i in agents]
        talking = TalkingStudent(team.widths, visible, size.n_actions, "none", messages).eval()
        run = dataclasses.replace(run, network=talking)
    exporting.export(run, folder, EPISODE, None, exporting.Options(int8=False, latency=False))
    return read_bundle(folder)


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the result: a row for each number of bits and each level of the compiler."""
    team = latency_teams.students(SIZES[0], "lh", args.width)
    shown = latency_teams.recorded(team.size)
    sizes = team.inputs[team.widest], args.width, team.size.n_actions
    features, available = [team.seen(shown, team.widest)], shown.available[:, [team.widest]]
    runs: dict[tuple[str, int], Timed] = {}
    flops: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as name:
        for bits in dict.fromkeys([0, *args.message_bits]):
            bundle = bundle_of(team, bits, args.message_number_bits, Path(name) / f"bits_{bits}")
            agent = bundle.agents[team.widest]
            inbox, outbox, of_each = agent.exchanged
            flops[bits] = closed_formula(*sizes, inbox=inbox, outbox=outbox, number_bits=of_each)
            for level in latency_c.LEVELS:
                made = latency_c.library(bundle, [agent], level, bundle.folder)
                runs[level, bits] = latency_c.timed(made, features, available)
        seconds = dict(zip(runs, interleave(list(runs.values()), args.rounds).T, strict=True))
    rows = [
        {
            "compiler": level,
            "bits": bits,
            "us": spread(1e6 * taken),
            "times as long": spread(taken / seconds[level, 0]),
            "FLOPs": flops[bits],
            "times the FLOPs": flops[bits] / flops[0],
        }
        for (level, bits), taken in seconds.items()
    ]
    yield {"width": args.width, "number_bits": args.message_number_bits, "rounds": args.rounds, "rows": rows}


def text(result: Mapping[str, Any]) -> str:
    """Write the table."""
    head = f"Width {result['width']}, numbers of {result['number_bits']} bits, medians of {result['rounds']} rounds, "
    head += "quartiles in brackets."
    return f"{head}\n\n{measured.table(result['rows'])}"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = measured.options(__doc__)
    parser.add_argument("--width", type=int, default=32, help="of the students")
    parser.add_argument("--message-bits", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="of one message")
    parser.add_argument("--message-number-bits", type=int, default=1, help="of each number, a divisor of all of those")
    parser.add_argument("--rounds", type=int, default=101, help="times that everything is timed")
    return measured.command(parser, words, measure, text)


if __name__ == "__main__":
    sys.exit(main())
