"""Sacred's record of a run, on a disk that may fill up, in files that are never half written."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from sacred.observers import FileStorageObserver
from sacred.serializer import flatten
from sacred.utils import ObserverError

from kd_core import files


class RunRecord(FileStorageObserver):
    """A file storage observer whose own files, if they cannot be written, neither end a run nor hide why it ended."""

    def save_json(self, obj: Any, filename: str) -> None:
        """Write a file as Sacred does, but whole or not at all: it may be read, or the run killed, at any moment."""
        path = Path(str(self.dir), filename)
        temporary = files.temporary_name(path)
        try:
            temporary.write_text(json.dumps(flatten(obj), sort_keys=True, indent=2), encoding="utf-8")
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

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
