"""What makes a teacher's gradient step fast: ways to run its recurrent network, forward and backward, in one run.

    python benchmarks/learner_options.py                                  # a minibatch of 8m, one thread
    python benchmarks/learner_options.py --rows 512 --inputs 75 --threads 2

A minibatch is `--rows` sequences of single agents, 10 steps each. The ways: EPyMARL's, one call of its GRU cell a step;
ours, the whole sequence in one call; each in float32 and under bfloat16 autocast; each compiled by torch.compile as
well, whose compilation is told apart. All compute the same gradient, which is checked first.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import torch
from torch import Tensor, nn

from epymarl_lite.modules.agents.rnn_agent import RNNAgent
from kd_controllers.teacher_mac import unroll

Forward = Callable[[nn.Module, Tensor], Tensor]


def cell_by_cell(agent: nn.Module, inputs: Tensor) -> Tensor:
    """EPyMARL's way: a call of the agent for every step."""
    hidden = inputs.new_zeros(len(inputs), agent.fc2.in_features)
    logits = []
    for t in range(inputs.shape[1]):
        now, hidden = agent(inputs[:, t], hidden)
        logits.append(now)
    return torch.stack(logits, 1)


def whole_sequence(agent: nn.Module, inputs: Tensor) -> Tensor:
    """Ours: what does not depend on the step before in one product, the rest in one call."""
    return unroll(agent, inputs.unsqueeze(2))[0].squeeze(2)


def gradient_step(forward: Forward, agent: nn.Module, inputs: Tensor, half: bool) -> Tensor:
    """The gradient of a loss of the logits, flat."""
    agent.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        logits = forward(agent, inputs)
    logits.float().log_softmax(-1).square().mean().backward()
    return torch.cat([parameter.grad.flatten() for parameter in agent.parameters()])


def milliseconds(step: Callable[[], Tensor], repeats: int) -> list[float]:
    """Of each call."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - begin))
    return times


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1024, help="sequences of a minibatch")
    parser.add_argument("--inputs", type=int, default=213, help="inputs of an agent (8m: 213)")
    parser.add_argument("--hidden", type=int, default=256, help="units")
    parser.add_argument("--steps", type=int, default=10, help="of a sequence")
    parser.add_argument("--repeats", type=int, default=15, help="timed calls of each way")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    agent = RNNAgent(args.inputs, SimpleNamespace(hidden_dim=args.hidden, use_rnn=True, n_actions=13))
    inputs = torch.randn(args.rows, args.steps, args.inputs)
    ways = {"a GRU cell a step": cell_by_cell, "the whole sequence": whole_sequence}
    reference = gradient_step(cell_by_cell, agent, inputs, half=False)
    rows: list[tuple[str, str, str, list[float], float]] = []
    for name, forward in ways.items():
        for compiled in (False, True):
            for half in (False, True):
                chosen = torch.compile(forward) if compiled else forward
                begin = time.perf_counter()
                found = gradient_step(chosen, agent, inputs, half)
                first = time.perf_counter() - begin
                cosine = float(nn.functional.cosine_similarity(found, reference, dim=0))
                if cosine < 0.99:
                    print(f"error: {name} has another gradient (cosine {cosine:.4f})", file=sys.stderr)
                    return 1
                times = milliseconds(lambda c=chosen, h=half: gradient_step(c, agent, inputs, h), args.repeats)
                precision = "bfloat16" if half else "float32"
                rows.append((name, precision, "compiled" if compiled else "", times, first if compiled else 0.0))
                torch.compiler.reset()
    base = statistics.median(rows[0][3])
    print("| way | precision | torch.compile | ms (extremes) | times faster | compilation, s |")
    print("|---|---|---|---|---|---|")
    for name, precision, compiled, times, first in rows:
        median = statistics.median(times)
        spread = f"{median:.0f} ({min(times):.0f} to {max(times):.0f})"
        wait = f"{first:.1f}" if compiled else ""
        print(f"| {name} | {precision} | {compiled} | {spread} | {base / median:.2f} | {wait} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
