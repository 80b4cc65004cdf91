"""The other end of a simulation's process."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from kd_core.errors import UserError

_CLOSE_SECONDS = 5.0


class Connection:
    """A simulation in a process of its own; it ends with this one.

    Args:
        facts: the arguments of `simulation.Simulation`.

    Raises:
        UserError: SUMO refuses the network.
    """

    def __init__(self, **facts: Any) -> None:
        # What SUMO says of a network that it cannot read.
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 closed with the process
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("simulation.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
        )
        try:
            self.call("start", **facts)
        except BaseException:
            self.close()
            raise

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the simulation.

        Raises:
            UserError: it failed, or its process died.
        """
        requests, replies = self._process.stdin, self._process.stdout
        assert requests is not None and replies is not None, "a process with pipes"
        try:
            # Both ends of the pipes are this program: nothing from outside is unpickled.
            pickle.dump((method, arguments), requests)
            requests.flush()
            fine, reply = pickle.load(replies)
        except (OSError, EOFError):
            fine, reply = False, f"its process ended with status {self._process.wait()}"
        if not fine:
            raise UserError(f"SUMO failed: {reply}{self._complaint()}")
        return reply

    def _complaint(self) -> str:
        self._words.seek(0)
        lines = self._words.read().decode(errors="replace").splitlines()
        error = next((line for line in lines if line.startswith("Error:")), "")
        return f" ({error.removeprefix('Error:').strip()})" if error else ""

    def close(self) -> None:
        """End the process; may be called twice."""
        assert self._process.stdin is not None, "a process with pipes"
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._words.close()
