"""Sacred's record of a run, on a disk that may fill up."""

from __future__ import annotations

import contextlib
from typing import Any

from sacred.observers import FileStorageObserver
from sacred.utils import ObserverError


class RunRecord(FileStorageObserver):
    """A file storage observer whose own files, if they cannot be written, neither end a run nor hide why it ended."""

    def heartbeat_event(self, *positional: Any, **named: Any) -> None:
        """Write what has been logged so far; one warning if that fails."""
        try:
            super().heartbeat_event(*positional, **named)
        except OSError as error:
            raise ObserverError(f"{self.dir} cannot be written ({error.strerror or error}); the run goes on") from None

    def failed_event(self, *positional: Any, **named: Any) -> None:
        """Note the failure, if there is room for it: the run's own error is what must be read."""
        with contextlib.suppress(OSError):
            super().failed_event(*positional, **named)
