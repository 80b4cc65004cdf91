"""`kd-marl buffer`: what an expert buffer holds, and whether it is sound."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kd_marl.commands.common import Subparsers, add_parser, print_facts


def add(subparsers: Subparsers) -> None:
    """Adds `buffer info` and `buffer check`."""
    parser = add_parser(
        subparsers, "buffer", "Show or verify an expert buffer.", "kd-marl buffer check results/buffers/my-buffer"
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for name, summary, run in (
        ("info", "Show what an expert buffer holds.", _info),
        ("check", "Verify a whole expert buffer and explain the first fault (exit status 1).", _check),
    ):
        action = add_parser(actions, name, summary, f"kd-marl buffer {name} results/buffers/my-buffer")
        action.add_argument("folder", type=Path, help="the folder with buffer.json")
        action.set_defaults(run=run)


def _info(args: argparse.Namespace) -> int:
    from kd_core.artifacts.expert_buffer import ExpertBuffer

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


def _check(args: argparse.Namespace) -> int:
    from kd_core.artifacts.expert_buffer import ExpertBuffer, check_buffer

    if fault := check_buffer(args.folder):
        print(f"faulty: {fault}", file=sys.stderr)
        return 1
    buffer = ExpertBuffer.open(args.folder)
    print(f"sound: {buffer.episodes} episodes, {buffer.steps} steps, {len(buffer.facts['shards'])} shards")
    return 0
