"""Jobs on this machine: so many processes at a time, each watched by a thread."""

from __future__ import annotations

import concurrent.futures
import threading

from kd_marl.suite.attempt import Report, attempt
from kd_marl.suite.job import Job


class LocalPool:
    """Runs jobs side by side.

    Attributes:
        slots: processors that there are for them.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._stop = threading.Event()
        self._threads = concurrent.futures.ThreadPoolExecutor(slots, thread_name_prefix="suite")
        self._running: dict[concurrent.futures.Future[Report], Job] = {}

    def room(self, cpus: int) -> bool:
        """Return whether a job of so many processors fits in; one that is larger than the machine runs alone."""
        used = sum(job.cpus for job in self._running.values())
        return used + cpus <= self.slots or not used

    def submit(self, job: Job, afresh: bool) -> None:
        """Start a job."""
        self._running[self._threads.submit(attempt, job, self._stop, afresh=afresh)] = job

    def running(self) -> list[Job]:
        """Return what runs now."""
        return list(self._running.values())

    def ended(self, timeout: float) -> list[tuple[Job, Report]]:
        """Return what has ended; waits for something to end, but not longer than ``timeout`` seconds."""
        if not self._running:
            self._stop.wait(timeout)
            return []
        done, _ = concurrent.futures.wait(self._running, timeout, concurrent.futures.FIRST_COMPLETED)
        return [(self._running.pop(future), future.result()) for future in done]

    def close(self) -> None:
        """Interrupt what runs, and wait until it has ended."""
        self._stop.set()
        self._threads.shutdown(wait=True, cancel_futures=True)
