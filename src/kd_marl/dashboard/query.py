"""What of the table a browser asks for: filtered, sorted, one page of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any

from kd_marl.dashboard.rows import BROKEN, FINISHED, INTERRUPTED, RUNNING, Row

PAGE = 100
AXES = ("stage", "method", "task", "limits", "state")
_STATES = (RUNNING, FINISHED, INTERRUPTED, BROKEN)
_COLUMNS = frozenset(Row.__dataclass_fields__)


@dataclass(frozen=True)
class Query:
    """A part of the table.

    Attributes:
        words: each must be in a run's names, seed or state.
        axes: axis -> the values that it may have.
        sort: a column.
        descending: the largest first; runs without a value are last either way.
        offset: of the first row.
    """

    words: tuple[str, ...] = ()
    axes: Mapping[str, frozenset[str]] | None = None
    sort: str = "started"
    descending: bool = True
    offset: int = 0

    @classmethod
    def read(cls, parameters: Any) -> Query:
        """Read a browser's query; what is no such thing counts as not asked for."""
        sort, offset = parameters.get("sort", ""), parameters.get("offset", "")
        return cls(
            words=tuple(parameters.get("text", "").lower().split()),
            axes={axis: frozenset(given) for axis in AXES if (given := parameters.getlist(axis))},
            sort=sort if sort in _COLUMNS else "started",
            descending=parameters.get("order") != "up",
            offset=int(offset) if offset.isdecimal() and len(offset) < 10 else 0,
        )

    def page(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the page's rows, how many match, and how many runs there are of each kind."""
        named = [row for row in rows if self._named(row)] if self.words else list(rows)
        found = [row for row in named if self._allowed(row)]
        known = [row for row in found if getattr(row, self.sort) not in (None, "")]
        # Newest first among equals, so that a page never shuffles its rows.
        known.sort(key=lambda row: (-(row.started or 0), row.key))
        known.sort(key=lambda row: _sortable(getattr(row, self.sort)), reverse=self.descending)
        ordered = known + [row for row in found if getattr(row, self.sort) in (None, "")]
        shown = ordered[self.offset : self.offset + PAGE]
        return {
            "total": len(rows),
            "matching": len(found),
            "offset": self.offset,
            "rows": [asdict(row) for row in shown],
            "counts": {axis: self._counts(axis, named) for axis in AXES},
        }

    def _named(self, row: Row) -> bool:
        """Tell whether every word is in a row."""
        names = (row.key, row.method, row.stage, row.task, row.limits, f"seed={row.seed}", row.state, row.note)
        named = " ".join(names).lower()
        return all(word in named for word in self.words)

    def _allowed(self, row: Row, but: str = "") -> bool:
        """Tell whether a row has allowed values on all axes but one."""
        return all(getattr(row, axis) in allowed for axis, allowed in (self.axes or {}).items() if axis != but)

    def _counts(self, axis: str, rows: Sequence[Row]) -> dict[str, int]:
        """Count the runs of each value of an axis, among those that all other filters leave."""
        if (self.axes or {}).keys() - {axis}:
            rows = [row for row in rows if self._allowed(row, but=axis)]
        counts = Counter(map(attrgetter(axis), rows))
        names = _STATES if axis == "state" else sorted(counts)
        return {name: counts[name] for name in names if name}


def _sortable(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value
