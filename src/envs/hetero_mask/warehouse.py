"""What the numbers of ``rware``'s observations mean, and how large its warehouses are."""

from __future__ import annotations

import math
import re

# A robot sees its own row, then the cells around it from the upper left, row by row.
OWN = ("x", "y", "loaded", "up", "down", "left", "right", "highway")
CELL = ("robot", "up", "down", "left", "right", "shelf", "requested")
OWN_SIZE, CELL_SIZE = len(OWN), len(CELL)
CELL_REQUESTED = CELL.index("requested")

# Rows and columns of shelves, by the name in the task's key; columns of shelves are 8 cells high.
_SHELVES = {"tiny": (1, 3), "small": (2, 3), "medium": (2, 5), "large": (3, 5)}
_HEIGHT = 8


def sensor_range(obs_size: int) -> int | None:
    """Compute how many cells a robot's sensors reach; None if this is not the length of such an observation."""
    cells, rest = divmod(obs_size - OWN_SIZE, CELL_SIZE)
    side = math.isqrt(max(cells, 0))
    return (side - 1) // 2 if not rest and side % 2 and side * side == cells else None


def warehouse_size(task: str, n_agents: int, state_size: int) -> tuple[int, int] | None:
    """Read columns and rows of a warehouse from its key, such as "rware:rware-tiny-2ag-v2"; None for any other task.

    Args:
        task: the environment's key.
        n_agents: its robots.
        state_size: length of its state, which must be all observations in a row.
    """
    match = re.fullmatch(rf"(?:rware:)?rware-({'|'.join(_SHELVES)})-\d+ag(?:-easy|-hard)?-v\d+", task)
    if match is None or sensor_range(state_size // n_agents) is None:
        return None
    rows, columns = _SHELVES[match.group(1)]
    return 3 * columns + 1, (_HEIGHT + 1) * rows + 2
