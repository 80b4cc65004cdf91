"""A synthetic expert buffer: written, and sampled from; each a program of its own that scaling.py starts.

    python benchmarks/speed_buffer.py write --steps 10000 FOLDER report.json
    python benchmarks/speed_buffer.py sample --batches 50 FOLDER report.json

Episodes have 3m's sizes and random contents: neither time nor memory depends on what was played, and a million steps
need not be played for them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS.parent / "src")]

# Episodes last between these many steps, which are 3m's usual ones.
SHORTEST, LONGEST = 20, 40
# Episodes appended at a time.
BLOCK = 20
BUFFER = "buffer"


@dataclass(frozen=True)
class Sizes:
    """Sizes of a task and its teacher; the defaults are 3m's."""

    n_agents: int = 3
    n_actions: int = 8
    obs_size: int = 75
    state_size: int = 72
    episode_limit: int = 100
    hidden_dim: int = 256

    @property
    def episode_bytes(self) -> int:
        """Estimate what an episode takes on disk, padding included."""
        floats = self.state_size + self.n_agents * (self.obs_size + self.n_actions + 1) + 1
        agent = 2 * self.hidden_dim + self.n_actions + 8
        return (self.episode_limit + 1) * (4 * floats + self.n_agents * agent + 2)


def disk_bytes(steps: int, sizes: Sizes | None = None) -> int:
    """Bound what a buffer of so many steps takes on disk, with the whole block in which the last of them comes."""
    return (steps // SHORTEST + BLOCK) * (sizes or Sizes()).episode_bytes


def episodes(count: int, sizes: Sizes, generator: Any) -> dict[str, Any]:
    """Make random episodes that a buffer accepts: name -> tensor, as in `kd_core.artifacts.shard.AXES`."""
    import torch

    steps, agents, actions = sizes.episode_limit, sizes.n_agents, sizes.n_actions
    length = torch.randint(min(SHORTEST, steps), min(LONGEST, steps) + 1, (count,), generator=generator)
    time_step = torch.arange(steps)
    filled = (time_step < length[:, None]).float()
    last = (time_step == length[:, None] - 1).float()

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, generator=generator)

    logits = random(steps, agents, actions) * filled[..., None, None]
    taken = (random(steps, agents) * actions).long().clamp(max=actions - 1)
    return {
        "state": random(steps + 1, sizes.state_size),
        "obs": random(steps + 1, agents, sizes.obs_size),
        "avail_actions": torch.ones(count, steps + 1, agents, actions),
        "actions": taken * filled[..., None].long(),
        "behaviour_log_prob": -random(steps, agents) * filled[..., None],
        "teacher_logits": logits,
        "embedding": (2 * random(steps, agents, sizes.hidden_dim) - 1) * filled[..., None, None],
        "reward": (random(steps) * filled).unsqueeze(-1) / 20,
        "terminated": last,
        "truncated": torch.zeros_like(last),
        "length": length,
    }


def write(folder: Path, steps: int, sizes: Sizes) -> dict[str, Any]:
    """Write a buffer of at least so many steps.

    Returns:
        What it took: ``export_s`` is the writer's time alone, ``steps``, ``episodes``, ``disk_bytes``,
        ``start_mib`` and ``peak_mib`` of resident memory.
    """
    import torch
    from speed_process import own_peak_mib

    from kd_core import checkpoints
    from kd_core.artifacts.expert_buffer import ExpertBufferWriter
    from kd_core.config import assemble, parse_command
    from kd_core.host import get_host

    words = ["--config=kd_export", "--env-config=smax", "with", "env_args.map_name=3m"]
    config = assemble(get_host(), parse_command(words))
    facts = {
        **vars(sizes),
        "task": "3m",
        "env_args": checkpoints.unseeded(config["env_args"]),
        **{"common_reward": True, "reward_scalarisation": "sum"},
        "teacher": {"path": "none", "sha256": {"agent.th": "0" * 64}},
        "seed": 0,
        "host": "epymarl_lite",
        "command": "benchmarks/speed_buffer.py",
    }
    generator, start, spent = torch.Generator().manual_seed(0), own_peak_mib(), 0.0
    with ExpertBufferWriter(folder / BUFFER, facts, shard_episodes=config["shard_episodes"]) as writer:
        made = 0
        while made < steps:
            some = episodes(BLOCK, sizes, generator)
            made += int(some["length"].sum())
            before = time.perf_counter()
            writer.append(some)
            spent += time.perf_counter() - before
        before = time.perf_counter()
        writer.close()
        spent += time.perf_counter() - before
    stored = writer.facts
    return {
        "export_s": spent,
        "steps": stored["steps"],
        "episodes": stored["episodes"],
        "disk_bytes": sum(entry["bytes"] for entry in stored["shards"]),
        "start_mib": start,
        "peak_mib": own_peak_mib(),
    }


def sample(folder: Path, batches: int) -> dict[str, Any]:
    """Gather random minibatches of a student's size, all over the buffer and with all that is stored of an episode.

    Returns:
        ``sample_s`` of all batches, ``start_mib`` and ``peak_mib`` of resident memory, mapped pages included.
    """
    import numpy as np
    from speed_process import own_peak_mib

    from kd_core.artifacts.expert_buffer import ExpertBuffer

    generator, start = np.random.default_rng(0), own_peak_mib()
    buffer = ExpertBuffer.open(folder / BUFFER)
    count = min(64, buffer.episodes)
    before = time.perf_counter()
    for _ in range(batches):
        buffer.gather(generator.choice(buffer.episodes, size=count, replace=False))
    return {"sample_s": time.perf_counter() - before, "start_mib": start, "peak_mib": own_peak_mib()}


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("write", "sample"))
    parser.add_argument("--steps", type=int, default=10_000, help="environment steps to write")
    parser.add_argument("--batches", type=int, default=50, help="minibatches of 64 episodes to sample")
    parser.add_argument("folder", type=Path, help="of the buffer")
    parser.add_argument("report", type=Path, help="JSON file to write")
    args = parser.parse_args(words)
    from kd_core import files

    found = write(args.folder, args.steps, Sizes()) if args.action == "write" else sample(args.folder, args.batches)
    files.write_json(args.report, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
