"""Whether a bundle decides as its torch student does: ONNX, and C at -O2 and -O3, over recorded steps.

    python benchmarks/parity.py results/sacred/kd_student/3m/1                     # one student
    python benchmarks/parity.py results/sacred/kd_student/*/* --json parity.json   # all of them
    python benchmarks/parity.py results/sacred/kd_student/3m/1 --buffer larger     # on more steps than it learnt from

The steps are those of the student's expert buffer, as the student would have seen them. Each program meets them twice:
with torch's recurrent state before every step, which tells how exactly it computes, and along whole episodes with its
own state, which is how a board runs and where differences in the last digit add up. Actions are compared along whole
episodes, at every step where the agent has a choice.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import latency_c
import measured
import numpy as np

from kd_core.errors import UserError
from kd_core.host import get_host

# The host comes first: on a checkout it decides what the package `envs` is.
get_host()

from kd_marl.deploy import export, int8, replay  # noqa: E402
from kd_marl.runs.student_run import StudentRun, load_student  # noqa: E402
from kd_onboard.bundle import read_bundle  # noqa: E402

LEVELS = {"C -O2": "o2", "C -O3": "o3"}


@dataclass
class Parity:
    """One student in one program, over all of its agents.

    Attributes:
        steps: environment steps that were compared.
        decisions: of single agents that had a choice.
        logit_step: largest difference of a logit after one step from torch's state.
        logit_episode: the same along episodes, each program with its own state.
        actions: greedy actions that differ, along episodes.
    """

    task: str
    limits: str
    seed: int
    program: str
    steps: int
    decisions: int
    logit_step: float
    logit_episode: float
    actions: int


class CStep:
    """A compiled agent as a ``replay.Step``: the rows of a batch one after the other."""

    def __init__(self, library: Path, prefix: str, n_actions: int) -> None:
        program = ctypes.CDLL(str(library))
        names = ("init", "size", "act", "logits")
        self._init, size, self._act, self._logits = (getattr(program, f"{prefix}_{name}") for name in names)
        self._words = size() // 4
        self._n_actions = n_actions

    def __call__(self, features: np.ndarray, available: np.ndarray, state: np.ndarray) -> replay.StepOutcome:
        """One step of every row."""
        logits = np.zeros((len(features), self._n_actions), np.float32)
        actions, following = np.zeros(len(features), np.int64), state.copy()
        choices = np.ascontiguousarray(available, np.uint8)
        agent, twin = np.zeros((2, self._words), np.float32)
        width = state.shape[1]
        for row, seen in enumerate(features):
            for one in (agent, twin):
                self._init(_pointer(one))
                one[:width] = state[row]
            refused = self._logits(_pointer(twin), _pointer(seen), _pointer(logits[row]))
            # Where nothing is available (an episode's padding) `act` refuses and keeps the state; `logits` goes on.
            actions[row] = self._act(_pointer(agent), _pointer(seen), _pointer(choices[row]))
            if refused:
                raise UserError(f"the program refuses recorded features: {seen.tolist()}")
            following[row] = twin[:width]
        return logits, actions, following


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def compare(run: StudentRun, steps: int, scratch: Path, buffer_folder: Path | None) -> Iterator[Parity]:
    """Export a student and compare its programs with it.

    Raises:
        UserError: its expert buffer is not found, or something is damaged.
    """
    buffer = run.find_buffer(buffer_folder)
    if buffer is None:
        raise UserError(f"the expert buffer of {run.record} is not found: export one with --config=kd_export")
    folder = scratch / "bundle"
    options = export.Options(False, False, "raise", None)
    export.export(run, folder, buffer.facts["episode_limit"], buffer, options)
    made = read_bundle(folder)
    wanted = -(-steps * buffer.episodes // max(buffer.steps, 1))
    episodes = replay.from_buffer(buffer, run.mask, wanted, run.facts["seed"])
    taken = episodes.acting.any(-1)
    names = ["ONNX", *LEVELS]
    found = {
        name: Parity(run.task, run.config["limits"], run.facts["seed"], name, int(taken.sum()), 0, 0.0, 0.0, 0)
        for name in names
    }
    for agent in made.agents:
        features = episodes.features(run.mask, agent.index)
        available, acting = episodes.available[:, :, agent.index], episodes.acting[:, :, agent.index]
        torch_step = replay.torch_step(run.network.agent_network(agent.index))
        expected, states = _unroll(torch_step, features, available, agent.width)
        best = np.where(available, expected, -np.inf).argmax(-1)
        for name in names:
            step = _program(name, made, agent, scratch)
            logits, actions = replay.run(step, features, available, agent.width)
            flat = (part.reshape(-1, *part.shape[2:]) for part in (features, available, states))
            alone = step(*flat)[0].reshape(expected.shape)
            parity = found[name]
            parity.decisions += int(acting.sum())
            parity.actions += int((actions != best)[acting].sum())
            parity.logit_step = max(parity.logit_step, float(np.abs(alone - expected)[taken].max()))
            parity.logit_episode = max(parity.logit_episode, float(np.abs(logits - expected)[taken].max()))
    yield from found.values()


def _unroll(
    step: replay.Step, features: np.ndarray, available: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find logits ``(episodes, time, actions)``, and the state before every step ``(episodes, time, width)``."""
    before = [np.zeros((len(features), width), np.float32)]

    def watched(*ports: np.ndarray) -> replay.StepOutcome:
        outcome = step(*ports)
        before.append(outcome[2])
        return outcome

    logits, _ = replay.run(watched, features, available, width)
    return logits, np.ascontiguousarray(np.stack(before[:-1], 1))


def _program(name: str, made: Any, agent: Any, scratch: Path) -> replay.Step:
    if name == "ONNX":
        return int8.onnx_step(made.read(agent.onnx))
    flags, sources = latency_c.LEVELS[LEVELS[name]], [str(made.folder / source) for source in agent.c.sources]
    library = latency_c.compile_library(flags, scratch / f"{agent.c.prefix}_{LEVELS[name]}.so", sources)
    return CStep(library, agent.c.prefix, agent.n_actions)


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows of all students so far."""
    rows: list[dict[str, Any]] = []
    for path in args.runs:
        with tempfile.TemporaryDirectory() as scratch:
            found = [asdict(row) for row in compare(load_student(path), args.steps, Path(scratch), args.buffer)]
        print(f"{path}: {sum(row['actions'] for row in found)} other actions", file=sys.stderr, flush=True)
        rows += found
        yield {"parity": rows}


def text(result: Mapping[str, Any]) -> str:
    """Write a row for each student and program; ``actions`` are those that differ."""
    return measured.table(result["parity"])


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = measured.options(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a student, as kd-marl export takes it")
    parser.add_argument("--steps", type=int, default=10_000, help="environment steps to compare, if recorded (10000)")
    parser.add_argument(
        "--buffer", type=Path, metavar="DIR", help="another expert buffer of the task, e.g. a larger one"
    )
    return measured.command(parser, words, measure, text)


if __name__ == "__main__":
    sys.exit(main())
