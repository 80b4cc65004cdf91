"""Where runs come from: a results folder, or a database. The page does not know which."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from kd_marl.dashboard.rows import Facts, Row

# Environment steps and values of one metric; a value that is no finite number is None.
Curve: TypeAlias = tuple[Sequence[float], Sequence[float | None]]


@dataclass(frozen=True)
class Details:
    """All that the page shows of one run.

    Attributes:
        facts: what its files or documents hold.
        place: where it lies, for people.
        output: the end of what it printed.
    """

    facts: Facts
    place: str
    output: str


class Source(Protocol):
    """A source of runs. `refresh` is called by one thread, everything else by any; all may raise `SourceError`."""

    title: str
    store: Store

    def refresh(self) -> None:
        """Look for what has changed since the last call, and put it into the store."""

    def details(self, key: str) -> Details:
        """Read one run; `KeyError` where there is none."""

    def curves_version(self, key: str) -> str:
        """Name the state of a run's metrics, cheaply: another state has another name. `KeyError` as above."""

    def curves(self, key: str) -> Mapping[str, Curve]:
        """Read a run's metrics. `KeyError` as above."""


class SourceError(Exception):
    """A whole source cannot be read at the moment: one line for the page."""


class Store:
    """The rows of a source, and a version that changes with them.

    Attributes:
        loading: how many runs were read so far, while the first look lasts; else None.
        trouble: why nothing can be read at the moment; "" where all is well.
    """

    def __init__(self) -> None:
        self.loading: int | None = 0
        self.trouble = ""
        self._lock = threading.Lock()
        self._rows: dict[str, Row] = {}
        # A server that was started again must not be taken for the old one.
        self._mark, self._changes = secrets.token_hex(4), 0

    @property
    def version(self) -> str:
        """The state of everything that the table shows."""
        return f"{self._mark}-{self._changes}-{self.loading}-{self.trouble}"

    def put(self, row: Row) -> None:
        """Add a row, or replace it."""
        with self._lock:
            if self._rows.get(row.key) != row:
                self._rows[row.key] = row
                self._changes += 1

    def drop(self, key: str) -> None:
        """Forget a row."""
        with self._lock:
            if self._rows.pop(key, None) is not None:
                self._changes += 1

    def rows(self) -> list[Row]:
        """Return all rows."""
        with self._lock:
            return list(self._rows.values())

    def row(self, key: str) -> Row:
        """Return one row; `KeyError` where there is none."""
        with self._lock:
            return self._rows[key]
