"""A training run with a stopwatch on it: the program that throughput.py and scaling.py start.

    python benchmarks/speed_run.py --seconds 9 -- --config=kd_teacher --env-config=smax with env_args.map_name=3m o.json

It is src/main.py, unchanged, on the host that EPYMARL_HOME names. The runner's ``run`` and the learner's ``train``
are timed from outside, the same way on every host; a block is one of each: what the host's loop does between two
updates. The run ends after the block in which enough time has been measured, as it would at t_max.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS.parent / "src")]


# With --until-won, blocks of which each has that share: it is no accident then.
WON_BLOCKS = 5


class Stopwatch:
    """Seconds of each part of each block.

    Attributes:
        blocks: of each ``t_env`` after it, ``rollout_s``, ``environment_s`` (its share inside the environments, where
            they are called from this process), ``learn_s``, and ``elapsed_s`` since the first block began, tests left
            out.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        """Set when to stop; the options are the program's."""
        self._options = options
        self._battles = self._won = 0
        self.blocks: list[dict[str, float]] = []
        self._parts: dict[str, float] = {}
        self._tested = self._started = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part of the block."""
        before = time.perf_counter()
        self._started = self._started or before
        try:
            yield
        finally:
            self._parts[name] = self._parts.get(name, 0.0) + time.perf_counter() - before

    def discard(self) -> None:
        """Forget the parts since the last block: they belonged to a test."""
        self._tested += self._parts.pop("test", 0.0)
        self._parts.pop("environment", None)
        self._battles = self._won = 0

    def count(self, infos: Sequence[Mapping[str, Any]]) -> None:
        """Count the battles that ended with a step, and those of them that were won."""
        ended = [info["battle_won"] for info in infos if "battle_won" in info]
        self._battles += len(ended)
        self._won += sum(map(bool, ended))

    def end_block(self, t_env: int) -> bool:
        """Note a finished block; return whether enough is measured."""
        parts = {f"{name}_s": self._parts.get(name, 0.0) for name in ("rollout", "environment", "learn")}
        elapsed = time.perf_counter() - self._started - self._tested
        wins = {"battles": self._battles, "won": self._won / self._battles} if self._battles else {}
        self.blocks.append({"t_env": int(t_env), **parts, "elapsed_s": elapsed, **wins})
        self._parts.clear()
        self._battles = self._won = 0
        return enough(self.blocks, self._options)


def enough(blocks: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> bool:
    """Tell whether enough blocks are measured.

    Args:
        blocks: with ``elapsed_s`` and, where battles are counted, the share ``won``.
        options: ``warm``, ``seconds``, ``blocks`` and ``until_won``.
    """
    count = len(blocks) - options.warm
    if count < 1:
        return False
    seconds = blocks[-1]["elapsed_s"] - blocks[options.warm - 1]["elapsed_s"]
    won = [block.get("won") or 0.0 for block in blocks[-WON_BLOCKS:]]
    return count >= options.blocks or seconds >= options.seconds or min(won) >= options.until_won


def attach(host: Any, watch: Stopwatch, result: dict[str, Any]) -> None:
    """Time the host's next run; ``result`` gets its settings."""
    sequential = host.run.run_sequential

    def timed(args: Any, logger: Any) -> None:
        from kd_marl.plugin.registries import replaced

        result["settings"] = _settings(args)

        class TimedRunner(host.runners[args.runner]):  # type: ignore[misc]
            """The runner of the run; where it steps the environments itself, they are timed too."""

            def __init__(self, *given: Any, **named: Any) -> None:
                super().__init__(*given, **named)
                if hasattr(self, "envs"):
                    self.envs.step = _timed(self.envs.step, watch, lambda outcome: watch.count(outcome.infos))
                    self.envs.reset = _timed(self.envs.reset, watch)

            def run(self, test_mode: bool = False) -> Any:
                """Play, timed."""
                with watch.part("test" if test_mode else "rollout"):
                    batch = super().run(test_mode=test_mode)
                if test_mode:
                    watch.discard()
                return batch

        class TimedLearner(host.learners[args.learner]):  # type: ignore[misc]
            """The learner of the run."""

            done = False

            def train(self, batch: Any, t_env: int, episode_num: int) -> None:
                """Learn, timed."""
                with watch.part("learn"):
                    super().train(batch, t_env, episode_num)
                if watch.end_block(t_env):
                    self.done = True

            def compared(self) -> None:
                """Evaluate nothing: nobody reads it."""

        with (
            replaced(host.runners, args.runner, TimedRunner),
            replaced(host.learners, args.learner, TimedLearner),
        ):
            sequential(args, logger)
        result["settings"].update(n_agents=args.n_agents, n_actions=args.n_actions)

    host.run.run_sequential = timed


def _timed(call: Callable[..., Any], watch: Stopwatch, look: Callable[[Any], None] | None = None) -> Callable[..., Any]:
    def timed(*given: Any) -> Any:
        with watch.part("environment"):
            outcome = call(*given)
        if look is not None:
            look(outcome)
        return outcome

    return timed


def _settings(args: Any) -> dict[str, Any]:
    """Collect the keys of a run on which its cost depends; None where the algorithm has no such key."""
    names = ("name", "runner", "batch_size_run", "batch_size", "hidden_dim", "use_rnn", "epochs", "minibatches")
    names += ("chunk_length", "autocast", "updates_per_train", "minibatch_episodes", "test_nepisode", "seed")
    return {name: getattr(args, name, None) for name in names}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warm", type=int, default=2, help="first blocks that do not count, at least 1: compilation")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="to be measured, without tests")
    parser.add_argument("--blocks", type=int, default=1 << 40, help="to be measured at most")
    parser.add_argument("--until-won", type=float, default=2.0, metavar="SHARE", help="end when it is won in 5 blocks")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run, and write the report; return the exit status of the run."""
    given = [*arguments, "--"]
    options, rest = _parser().parse_args(given[: given.index("--")]), given[given.index("--") + 1 : -1]
    if not rest:
        _parser().error("the run's command line and the report's path are missing after --")
    *words, report = rest
    options.warm = max(1, options.warm)
    # Imported late, as in src/main.py: main sets the threads before torch starts.
    import main as program
    from kd_marl.plugin import lifecycle

    watch, result = Stopwatch(options), {}
    install = lifecycle.install

    def install_and_attach(host: Any, *line: str) -> None:
        install(host, *line)
        result["host"] = {"name": host.name, "commit": host.commit}
        attach(host, watch, result)

    lifecycle.install = install_and_attach
    if status := program.main(words):
        return status
    import torch

    from kd_core import files

    result.update(blocks=watch.blocks, warm=options.warm, threads=torch.get_num_threads())
    files.write_json(report, result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
