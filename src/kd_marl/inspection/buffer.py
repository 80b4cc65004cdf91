"""The work of `kd-marl buffer`: what an expert buffer holds, and its first fault."""

from __future__ import annotations

import argparse
import sys

from kd_core.artifacts.expert_buffer import ExpertBuffer, check_buffer
from kd_marl.inspection.facts import print_facts


def info(args: argparse.Namespace) -> int:
    """Print what the buffer holds; returns the exit status."""
    facts = ExpertBuffer.open(args.folder).facts
    size = sum(entry["bytes"] for entry in facts["shards"])
    mean = facts["return_mean"]
    print_facts(
        [
            ("task", facts["task"]),
            ("episodes", facts["episodes"]),
            ("steps", facts["steps"]),
            ("return mean", None if mean is None else f"{mean:.3f}"),
            ("agents", facts["n_agents"]),
            ("actions", facts["n_actions"]),
            ("observation size", facts["obs_size"]),
            ("state size", facts["state_size"]),
            ("episode limit", facts["episode_limit"]),
            ("embedding", f"{facts['hidden_dim']} x {facts['embedding_dtype']}"),
            ("teacher", facts["teacher"]["path"]),
            ("seed", facts["seed"]),
            ("host", facts["host"]),
            ("command", facts["command"]),
            ("shards", f"{len(facts['shards'])} ({size / 1e6:.1f} MB)"),
        ]
    )
    return 0


def check(args: argparse.Namespace) -> int:
    """Verify the whole buffer and print its first fault; returns the exit status."""
    if fault := check_buffer(args.folder):
        print(f"faulty: {fault}", file=sys.stderr)
        return 1
    buffer = ExpertBuffer.open(args.folder)
    print(f"sound: {buffer.episodes} episodes, {buffer.steps} steps, {len(buffer.facts['shards'])} shards")
    return 0
