"""`kd-marl doctor`: versions, host, environment packages, and what is wrong with them."""

from __future__ import annotations

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work


def add(subparsers: Subparsers) -> None:
    """Adds `doctor`."""
    summary = "Show versions, host and environment packages, and explain what is wrong (exit status 1)."
    add_parser(subparsers, "doctor", summary, "kd-marl doctor").set_defaults(
        run=Work("kd_marl.inspection.doctor:doctor")
    )
