"""The curves that a browser asks for, with the names of their lines and of all metrics that there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kd_marl.dashboard.curves import Chosen, grouped, groups, labels, single
from kd_marl.dashboard.rows import Row
from kd_marl.dashboard.source import Source


def drawn(source: Source, rows: Sequence[Row], metrics: Sequence[str], mean: bool) -> dict[str, Any]:
    """Return lines for each metric.

    Args:
        source: of the runs.
        rows: the runs.
        metrics: which curves.
        mean: over seeds, with intervals; else each run by itself.
    """
    runs = []
    for row in rows:
        try:
            runs.append(Chosen(row, source.details(row.key).facts.config, source.curves(row.key)))
        except KeyError:
            continue
    gathered = groups(runs)
    names = {run.row.key: label for members, label in zip(gathered, labels(gathered), strict=True) for run in members}
    numbers = [[run.row.key for run in members] for members in gathered]
    lines = grouped if mean else single
    return {
        # Runs of one group, in the order in which the page gives them colours.
        "groups": numbers,
        "names": names,
        "metrics": sorted({name for run in runs for name in run.curves}),
        "curves": {metric: lines(runs, metric) for metric in metrics},
    }
