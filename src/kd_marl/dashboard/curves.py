"""Curves of chosen runs: each by itself, or the mean over seeds with its 95 % interval."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kd_core.metrics.intervals import mean_interval
from kd_marl.dashboard.rows import Row
from kd_marl.dashboard.source import Curve
from kd_marl.runs.identity import comparable, identity

# More points than a screen has pixels.
MOST_POINTS = 2000


@dataclass(frozen=True)
class Chosen:
    """A run whose curves are wanted: its row, its configuration and its metrics."""

    row: Row
    config: Mapping[str, Any]
    curves: Mapping[str, Curve] = field(default_factory=dict)


def single(runs: Sequence[Chosen], metric: str) -> list[dict[str, Any]]:
    """Return one line for each run that has logged the metric."""
    lines = []
    for run in runs:
        if metric in run.curves:
            steps, values = _thinned(*run.curves[metric])
            lines.append({"keys": [run.row.key], "steps": steps, "values": values, "seeds": 1})
    return lines


def grouped(runs: Sequence[Chosen], metric: str) -> list[dict[str, Any]]:
    """Return one line for each group of runs that differ in nothing but their seed.

    At each step it has the mean over seeds, and the ends of its 95 % interval by Student's t; None for one seed alone.
    Seeds log at almost the same steps, so each is taken on the line between its neighbouring points. Seeds that have
    not got so far yet do not count.
    """
    lines = []
    for members in groups(runs):
        seeds: dict[int | None, list[Chosen]] = defaultdict(list)
        for run in members:
            if metric in run.curves:
                seeds[run.row.seed].append(run)
        curves = [_joined([run.curves[metric] for run in _in_order(same)]) for same in seeds.values()]
        curves = [(steps, values) for steps, values in curves if len(steps)]
        if not curves:
            continue
        steps, mean, low, high = mean_curve(curves)
        line = {"keys": [run.row.key for run in members], "steps": steps.tolist(), "seeds": len(curves)}
        for name, values in (("values", mean), ("low", low), ("high", high)):
            line[name] = [float(value) if np.isfinite(value) else None for value in values]
        lines.append(line)
    return lines


def groups(runs: Sequence[Chosen]) -> list[list[Chosen]]:
    """Gather runs that differ in nothing but their seed, in the order of each group's first."""
    found: dict[tuple[str, ...], list[Chosen]] = defaultdict(list)
    for run in runs:
        found[run.row.method, run.row.task, _identity(run)].append(run)
    return list(found.values())


def labels(members: Sequence[Sequence[Chosen]]) -> list[str]:
    """Name groups by method, task and limits; where that does not tell them apart, also by the settings that differ."""
    short = [_short(runs[0].row) for runs in members]
    named = []
    for runs, name in zip(members, short, strict=True):
        alike = [other[0] for other, theirs in zip(members, short, strict=True) if theirs == name]
        named.append(name if len(alike) < 2 else f"{name}, {_differing(runs[0], alike)}")
    return named


def mean_curve(
    curves: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return steps, mean over curves and the ends of its 95 % interval (not a number where there is one curve only).

    Args:
        curves: steps, rising, and values of each seed.
    """
    grid = max((steps for steps, _ in curves), key=lambda steps: (float(steps[-1]), len(steps)))
    grid = grid[_kept(len(grid))]
    # The ends of seeds may be a few steps apart: nothing is left out for that.
    slack = float(np.diff(grid).max(initial=0.0)) / 2
    values = np.stack(
        [
            np.where((grid >= steps[0] - slack) & (grid <= steps[-1] + slack), np.interp(grid, steps, logged), np.nan)
            for steps, logged in curves
        ]
    )
    counts = np.isfinite(values).sum(0)
    mean, std = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    # Of a sample with mean 0 and deviation 1: the interval of any other is as many deviations wide.
    widths = {count: mean_interval(0.0, 1.0, count)[1] if count > 1 else np.nan for count in set(counts.tolist())}
    half = std * np.array([widths[count] for count in counts.tolist()])
    return grid, mean, mean - half, mean + half


def _joined(parts: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Make one curve of a run and those that went on with it; where two have a step, the later counts."""
    steps, values = np.empty(0), np.empty(0)
    for part in parts:
        new = np.array(part[0], float), np.array([np.nan if value is None else value for value in part[1]], float)
        known = np.isfinite(new[1])
        order = np.argsort(new[0][known], kind="stable")
        later_steps, later = new[0][known][order], new[1][known][order]
        if len(later_steps):
            before = steps < later_steps[0]
            steps = np.concatenate([steps[before], later_steps])
            values = np.concatenate([values[before], later])
    return steps, values


def _in_order(runs: Sequence[Chosen]) -> list[Chosen]:
    return sorted(runs, key=lambda run: run.row.started or 0.0)


def _thinned(steps: Sequence[float], values: Sequence[float | None]) -> Curve:
    keep = _kept(len(steps))
    return [steps[at] for at in keep], [values[at] for at in keep]


def _kept(count: int) -> np.ndarray:
    """Return which points of a curve are drawn: all, or as many as a screen can show, the last among them."""
    if count <= MOST_POINTS:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, MOST_POINTS).round().astype(int))


def _identity(run: Chosen) -> str:
    try:
        return identity({**run.config, "seed": 0})
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        # Its configuration is damaged: it is like no other.
        return run.row.key


def _short(row: Row) -> str:
    return ", ".join(filter(None, (row.method, row.task, row.limits)))


def _differing(run: Chosen, alike: Sequence[Chosen]) -> str:
    """Write the first settings in which a run differs from others of the same name."""
    try:
        configs = [comparable(other.config) for other in alike]
        mine = comparable(run.config)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return run.row.key
    keys = [key for key in mine if key != "seed" and any(other.get(key) != mine[key] for other in configs)]
    return ", ".join(f"{key}={str(mine[key])[:40]}" for key in keys[:3]) or run.row.key
