"""A training of JaxMARL's own recurrent MAPPO or IPPO with a stopwatch on it: the program that throughput.py starts.

    JAXMARL_HOME=~/jaxmarl python benchmarks/peer_run.py --seconds 60 mappo report.json

The checkout's own program, unchanged, with its own environments and the keys of its own YAML file, but for map, width,
battles at a time and seed. It is one compiled call, which reports after each update to what it takes for wandb: here
the stopwatch. A block is one update: the battles' steps and what is learnt from them. Compilation is left out.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS.parent / "src")]

import yaml  # noqa: E402
from speed_run import enough  # noqa: E402

# Algorithm -> its program and its configuration, in the checkout's baselines.
PROGRAMS = {
    "mappo": ("MAPPO/mappo_rnn_smax.py", "MAPPO/config/mappo_homogenous_rnn_smax.yaml"),
    "ippo": ("IPPO/ippo_rnn_smax.py", "IPPO/config/ippo_rnn_smax.yaml"),
}
# The released TensorFlow Probability, which distrax installs, is of an older JAX.
NEEDS = "pip install flax optax distrax, then pip install tfp-nightly"
# Its programs begin an episode with a recurrent state of this many units, whatever their configuration says.
FIXED_WIDTH = 128


class Updates:
    """Takes the place of wandb: notes each update, and calls ``end`` after the one with which enough is measured."""

    def __init__(self, steps: int, options: argparse.Namespace, end: Callable[[list[dict[str, Any]]], None]) -> None:
        """Set when to stop.

        Args:
            steps: environment steps of an update.
            options: ``warm``, ``seconds``, ``blocks`` and ``until_won``, as for speed_run.py.
            end: gets the blocks.
        """
        self._steps, self._options, self._end = steps, options, end
        self.blocks: list[dict[str, Any]] = []
        self.started = time.perf_counter()

    def log(self, facts: Mapping[str, Any]) -> None:
        """Note what an update says; a share of battles won is not a number where none ended."""
        won = float(facts["win_rate"])
        elapsed = time.perf_counter() - self.started
        t_env = (len(self.blocks) + 1) * self._steps
        self.blocks.append({"t_env": t_env, "elapsed_s": elapsed, "won": won if won == won else None})
        if enough(self.blocks, self._options):
            self._end(self.blocks)


def load(home: Path, program: str) -> ModuleType:
    """Import a program of the checkout; what it logs with, and reads its command line with, is not needed here."""
    sys.path.insert(0, str(home))
    unused = {"wandb": {}, "hydra": {"main": lambda **_: lambda main: main}, "omegaconf": {"OmegaConf": None}}
    for name, parts in unused.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(parts)
    spec = importlib.util.spec_from_file_location("peer", home / "baselines" / program)
    assert spec is not None and spec.loader is not None, "a Python file has a loader"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def configuration(home: Path, file: str, options: argparse.Namespace) -> dict[str, Any]:
    """Read the peer's own keys, with ours in their place."""
    own = yaml.safe_load((home / "baselines" / file).read_text(encoding="utf-8"))
    return {
        **own,
        # YAML reads 1e7 as text.
        "TOTAL_TIMESTEPS": options.steps or int(float(own["TOTAL_TIMESTEPS"])),
        **{"MAP_NAME": options.map, "NUM_ENVS": options.battles, "SEED": options.seed},
        **{"FC_DIM_SIZE": options.hidden, "GRU_HIDDEN_DIM": options.hidden},
    }


def train(home: Path, options: argparse.Namespace) -> None:
    """Train, write the report and end the process: the compiled call cannot be left."""
    import jax

    from kd_core import files

    program, file = PROGRAMS[options.algorithm]
    module, config = load(home, program), configuration(home, file, options)
    if options.battles % config["NUM_MINIBATCHES"]:
        sys.exit(f"error: --battles {options.battles}: JaxMARL needs a multiple of {config['NUM_MINIBATCHES']}")
    begin = module.ScannedRNN.initialize_carry
    module.ScannedRNN.initialize_carry = staticmethod(
        lambda rows, width: begin(rows, options.hidden if width == FIXED_WIDTH else width)
    )

    def end(blocks: list[dict[str, Any]]) -> None:
        report = {
            "blocks": blocks,
            "warm": options.warm,
            "threads": len(os.sched_getaffinity(0)),
            "host": {"name": "jaxmarl", "commit": commit(home)},
            "settings": {"name": options.algorithm, "batch_size_run": options.battles, "hidden_dim": options.hidden},
        }
        files.write_json(options.report, report)
        os._exit(0)

    updates = Updates(options.battles * config["NUM_STEPS"], options, end)
    module.wandb = SimpleNamespace(log=updates.log)
    key = jax.random.PRNGKey(options.seed)
    compiled = jax.jit(module.make_train(config)).lower(key).compile()
    updates.started = time.perf_counter()
    jax.block_until_ready(compiled(key))
    jax.effects_barrier()
    end(updates.blocks)


def commit(home: Path) -> str | None:
    """Ask git for a checkout's commit, short; None where it does not say."""
    words = ["git", "-C", str(home), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--map", default="3m", help="a map of SMAX")
    parser.add_argument("--hidden", type=int, default=128, help="width of actor and critic")
    parser.add_argument("--battles", type=int, default=128, help="battles at a time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="environment steps of the training, at most (default: the file's)")
    parser.add_argument("--warm", type=int, default=1, help="updates before anything counts, at least 1")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="to be measured")
    parser.add_argument("--blocks", type=int, default=1 << 40, help="updates to be measured at most")
    parser.add_argument("--until-won", type=float, default=2.0, metavar="SHARE", help="end at this share of battles")
    parser.add_argument("algorithm", choices=sorted(PROGRAMS))
    parser.add_argument("report", help="path of the JSON report")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parser().parse_args(words)
    home = os.environ.get("JAXMARL_HOME", "")
    program, _ = PROGRAMS[options.algorithm]
    if not (Path(home).expanduser() / "baselines" / program).is_file():
        sys.exit(f"error: JAXMARL_HOME={home} is no checkout of JaxMARL: it has no baselines/{program}")
    try:
        train(Path(home).expanduser().resolve(), options)
    except ImportError as error:
        sys.exit(f"error: JaxMARL's {options.algorithm} does not import ({error}): {NEEDS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
