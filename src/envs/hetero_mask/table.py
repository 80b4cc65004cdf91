"""A mask as a table of visible and hidden features."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from kd_envs.hetero_mask.layouts import ranges
from kd_envs.hetero_mask.mask import OWN_ACTION, SENSOR_STATUS, ObservationMask

# Most features of one unit that are listed; if more and all are visible, the unit's name stands for them.
_LONGEST_LISTED = 3


def mask_table(mask: ObservationMask, widths: Sequence[int] | None = None) -> Table:
    """Build a table of each agent's visible and hidden features, one row per agent.

    Args:
        mask: the mask in force.
        widths: the students' hidden widths, for a last column.

    Returns:
        A table to print with rich.
    """
    drawn = ", drawn anew each episode" if mask.draw_per_episode else ""
    table = Table(title=f"{mask.layout.task}: who sees what ({mask.origin}{drawn})", title_justify="left")
    table.add_column("agent", no_wrap=True)
    table.add_column("sees")
    table.add_column("hidden")
    table.add_column("features")
    table.add_column("seen", justify="right", no_wrap=True)
    if widths is not None:
        table.add_column("width", justify="right")
    for agent, name in enumerate(mask.layout.agent_names):
        sees, hidden = _blocks(mask, agent)
        cells = [f"{agent} {name}", sees, hidden, _features(mask, agent), _count(mask, agent)]
        if widths is not None:
            cells.append(str(widths[agent]))
        table.add_row(*cells)
    return table


def mask_text(mask: ObservationMask, widths: Sequence[int] | None = None, columns: int = 120) -> str:
    """Format `mask_table` as plain text of at most ``columns`` columns, for logs and files."""
    stream = io.StringIO()
    Console(file=stream, width=columns, color_system=None).print(mask_table(mask, widths))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _blocks(mask: ObservationMask, agent: int) -> tuple[str, str]:
    """List the blocks an agent sees, whole or in part, and the hidden ones (derived blocks only if visible)."""
    layout = mask.layout.agents[agent]
    names = set(mask.names(agent))
    sees, hidden = [], []
    for letter, features in layout.blocks.items():
        seen = len(names.intersection(features))
        if seen == len(features):
            sees.append(letter)
        elif seen:
            sees.append(f"{letter} ({seen} of {len(features)})")
        elif not set(features) <= set(layout.derived):
            hidden.append(letter)
    return ", ".join(sees) or "-", ", ".join(hidden) or "-"


def _features(mask: ObservationMask, agent: int) -> str:
    """List the features' names, with units that are wholly visible by their name.

    For a plain layout, list the ranges of their indices.
    """
    layout = mask.layout.agents[agent]
    if not layout.blocks:
        sensed = ranges(tuple(index for index in mask.indices(agent) if index < mask.sensed_size))
        told = [prefix.rstrip(".") for prefix in (SENSOR_STATUS, OWN_ACTION) if _has(mask, agent, prefix)]
        return ", ".join([sensed, *told])
    names = mask.names(agent)
    told = [name for name in names if name.startswith((SENSOR_STATUS, OWN_ACTION))]
    whole = Counter(name.partition(".")[0] for name in (*layout.features, *told) if name is not None)
    seen = Counter(name.partition(".")[0] for name in names)
    units = {stem for stem, count in seen.items() if _LONGEST_LISTED < count == whole[stem]}
    stems = [name.partition(".")[0] if name.partition(".")[0] in units else name for name in names]
    return ", ".join(_in_a_row(dict.fromkeys(stems)))


def _has(mask: ObservationMask, agent: int, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in mask.names(agent))


def _in_a_row(names: Iterable[str]) -> list[str]:
    """Shorten runs of three or more names with consecutive numbers (E0, E1, E2) to ``E0 to E2``."""
    runs: list[list[str]] = []
    for name in names:
        before = re.fullmatch(r"([A-Z])(\d+)", runs[-1][-1]) if runs else None
        if before and name == f"{before[1]}{int(before[2]) + 1}":
            runs[-1].append(name)
        else:
            runs.append([name])
    return [part for run in runs for part in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else run)]


def _count(mask: ObservationMask, agent: int) -> str:
    """Format the number of features an agent sees and of those it has."""
    total = len(mask.layout.real(agent))
    seen = str(sum(index < mask.sensed_size for index in mask.indices(agent)))
    if mask.draw_sizes is not None:
        low, high = mask.draw_sizes[agent]
        seen = str(low) if low == high else f"{low}-{high}"
    return f"{seen} of {total}"
