"""Sends a run to MongoDB while it lasts, and never holds it up."""

from __future__ import annotations

import logging
import shlex
import threading
import time
from pathlib import Path
from typing import Any

from sacred.observers import FileStorageObserver, RunObserver

from kd_marl.tracking.database import Database, reason
from kd_marl.tracking.destination import URL_VARIABLE, Destination
from kd_marl.tracking.documents import RunFiles

# Seconds that the server has for one answer, and for all that is left once the run has ended.
PATIENCE_S, LAST_S = 2.0, 10.0

_log = logging.getLogger(__name__)


class Follower(RunObserver):
    """Brings a run's documents up to its files at every heartbeat, in a thread that lives as long as that takes.

    The files are the record, and what the database lacks is in them: a server that is away, slow or full costs one
    warning, the next heartbeat sends what is missing, and after the run ``kd-marl track push`` does.

    Args:
        destination: the database.
        record: the observer that writes the files; it is called first.
    """

    def __init__(self, destination: Destination, record: FileStorageObserver) -> None:
        self.priority = record.priority - 1
        self._destination, self._record = destination, record
        self._thread: threading.Thread | None = None
        self._behind, self._warned, self._ended = True, False, False

    @property
    def _folder(self) -> Path:
        return Path(str(self._record.dir))

    def started_event(self, *_: Any, _id: Any = None, **__: Any) -> Any:
        """Leave the run its number; the first heartbeat sends it."""
        return _id

    def heartbeat_event(self, *_: Any, **__: Any) -> None:
        """Send what is new, unless the last heartbeat's is still under way."""
        if self._ended:
            # Sacred ends a run two seconds after its last heartbeat began, in whose thread this is.
            self._bring_up()
        elif self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._bring_up, name="tracking", daemon=True)
            self._thread.start()

    def completed_event(self, *_: Any, **__: Any) -> None:
        """Send the rest, within `LAST_S` seconds."""
        until = time.monotonic() + LAST_S
        if self._thread is not None:
            self._thread.join(LAST_S)
        self.heartbeat_event()
        assert self._thread is not None, "a heartbeat has a thread"
        self._thread.join(max(0.0, until - time.monotonic()))
        self._ended = True
        if self._thread.is_alive():
            self._warn("it takes too long")
        if self._thread.is_alive() or self._behind:
            words = ["kd-marl", "track", "push", str(self._folder), "--db", self._destination.database]
            _log.info("to send the rest: %s (with --url, or %s)", shlex.join(words), URL_VARIABLE)

    interrupted_event = failed_event = completed_event

    def _bring_up(self) -> None:
        self._behind = True
        try:
            with self._destination.connect(PATIENCE_S) as client:
                Database(client[self._destination.database]).bring_up(RunFiles(self._folder))
            self._behind = False
        except Exception as error:
            # Whatever it is: it must not end a run whose files are sound.
            self._warn(reason(error))

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            where = f"{self._destination.database} on {self._destination.server}"
            _log.warning(
                "not sent to %s: %s; the run goes on, and its files in %s hold everything", where, why, self._folder
            )
