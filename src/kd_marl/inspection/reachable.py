"""The work of `kd-marl reachable`: what can be reached is shown, and the best of finished runs is kept."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timezone

from kd_marl.runs import reachable as entries
from kd_marl.runs import search
from kd_marl.runs.reachable import Reachable


def reachable(args: argparse.Namespace) -> int:
    """Keep the best of the runs that are given, and print what can be reached; returns the exit status."""
    file = args.file or entries.FILE
    if args.results:
        found = search.find(args.results)
        for line in found.passed_over:
            print(f"left out: {line}", file=sys.stderr)
        new = entries.keep(found.runs, f"{datetime.now(timezone.utc):%Y-%m-%d}", file)
        print(f"{len(new)} of {len(entries.read(file))} entries are new, from {len(found.runs)} runs")
    print("\n".join(_table(entries.read(file))))
    return 0


def _table(known: list[Reachable]) -> list[str]:
    """Write a line for each entry."""
    rows = [("task", "limits", "bits", "at most", "interval", "what it is", "date", "command")]
    for entry in known:
        scale, unit = (100.0, " %") if entry.measure == "win_rate" else (1.0, "")
        value, low, high = (f"{scale * number:.2f}" for number in (entry.value, entry.low, entry.high))
        what = "a bound" if entry.kind == entries.BOUND else f"the best found, {entry.runs} runs"
        bits = "any" if entry.message_bits is None else str(entry.message_bits)
        limits = f"{entry.limits} {entry.masks_preset}".strip()
        rows.append((entry.task, limits, bits, f"{value}{unit}", f"{low} to {high}", what, entry.date, entry.command))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
