"""`kd-marl buffer`: what an expert buffer holds, and whether it is sound."""

from __future__ import annotations

from pathlib import Path

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work


def add(subparsers: Subparsers) -> None:
    """Adds `buffer info` and `buffer check`."""
    parser = add_parser(
        subparsers, "buffer", "Show or verify an expert buffer.", "kd-marl buffer check results/buffers/my-buffer"
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for name, summary in (
        ("info", "Show what an expert buffer holds."),
        ("check", "Verify a whole expert buffer and explain the first fault (exit status 1)."),
    ):
        action = add_parser(actions, name, summary, f"kd-marl buffer {name} results/buffers/my-buffer")
        action.add_argument("folder", type=Path, help="the folder with buffer.json")
        action.set_defaults(run=Work(f"kd_marl.inspection.buffer:{name}"))
