"""The loop of a suite: whatever is ready and not made is handed to a pool, until nothing is left that can be made."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from kd_marl.suite.attempt import Report
from kd_marl.suite.claim import owner
from kd_marl.suite.estimate import Durations, seconds_left
from kd_marl.suite.job import Job
from kd_marl.suite.ledger import Outcome, State, state_of
from kd_marl.suite.plan import Plan
from kd_marl.suite.show import Show

# How long to wait for something to end before looking again, and before asking again for what somebody else is at.
_LOOK_SECONDS = 1.0
_ELSEWHERE_SECONDS = 5.0


class Pool(Protocol):
    """Where jobs run; `kd_marl.suite.local` and `kd_marl.suite.cluster`."""

    slots: int

    def room(self, cpus: int) -> bool:
        """Whether a job of so many processors may be submitted."""

    def submit(self, job: Job, afresh: bool) -> None:
        """Start a job, or queue it."""

    def running(self) -> list[Job]:
        """What runs now."""

    def ended(self, timeout: float) -> list[tuple[Job, Report]]:
        """What has ended since the last call; waits at most ``timeout`` seconds for it."""

    def close(self) -> None:
        """Interrupt what runs, and wait until it has ended."""


@dataclass(frozen=True)
class Found:
    """What is known of a job now.

    Attributes:
        job: None as long as what it needs is not made.
        state: of its run.
        note: who is at it, or why it is broken.
    """

    job: Job | None
    state: State
    note: str = ""


def look(plan: Plan, label: str) -> Found:
    """The state of a job, from what is on disk."""
    job = plan.job(label)
    if job is None:
        return Found(None, State.MISSING)
    attempts, holder = job.ledger.attempts(), owner(job.lock)
    state = state_of(job.proof.found() is not None, holder is not None, attempts, job.retries)
    if state in (State.RUNNING, State.FINISHED):
        return Found(job, state, holder if state is State.RUNNING and holder else "")
    return Found(job, state, attempts[-1].message if state is State.BROKEN else "")


@dataclass
class Campaign:
    """One process's work on a suite.

    Attributes:
        retry_broken: whether runs that are broken are tried once more.
        closed: label -> how its job ended, or why it was left alone (broken, or missing because what it needs is).
        reasons: label -> one line, of those that are broken.
    """

    plan: Plan
    pool: Pool
    show: Show
    retry_broken: bool = False
    closed: dict[str, State] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._flying: set[str] = set()
        self._afresh: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._durations = Durations()

    def run(self) -> Counter[State]:
        """Make what is missing.

        Returns:
            How many jobs there are of each state now.

        Raises:
            UserError: an attempt could not even be made.
        """
        try:
            for label in self.plan.nodes:
                found = look(self.plan, label)
                if found.state is State.FINISHED and found.job is not None:
                    self._close(label, State.FINISHED)
                    self._durations.add(found.job.kind, found.job.ledger.seconds())
            self.show.begin(len(self.closed), len(self.plan.nodes))
            while len(self.closed) < len(self.plan.nodes):
                self._submit_what_is_ready()
                if len(self.closed) < len(self.plan.nodes):
                    for job, report in self.pool.ended(_LOOK_SECONDS):
                        self._take(job, report)
                    self._tick()
        finally:
            self.pool.close()
            self.show.end()
        return Counter(self.closed.values())

    def _submit_what_is_ready(self) -> None:
        for label, node in self.plan.nodes.items():
            if label in self.closed or label in self._flying or self._not_before.get(label, 0.0) > time.monotonic():
                continue
            ends = [self.closed.get(need) for need in node.needs]
            if any(end in (State.BROKEN, State.MISSING) for end in ends):
                self._close(label, State.MISSING)
            elif all(end is State.FINISHED for end in ends):
                found = look(self.plan, label)
                if found.job is not None and not self._handled(label, found):
                    # In their order: a small job does not overtake a large one for ever.
                    return

    def _handled(self, label: str, found: Found) -> bool:
        """Do what a job's state asks for; False if there is no room for it."""
        job = found.job
        assert job is not None, "looked at"
        again = found.state is State.BROKEN and self.retry_broken and label not in self._afresh
        if found.state is State.FINISHED:
            self._close(label, State.FINISHED)
        elif found.state is State.RUNNING:
            self._not_before[label] = time.monotonic() + _ELSEWHERE_SECONDS
        elif found.state is State.BROKEN and not again:
            self._close(label, State.BROKEN, found.note)
        elif not self.pool.room(job.cpus):
            return False
        else:
            self._flying.add(label)
            if again:
                self._afresh.add(label)
            self.pool.submit(job, again)
        return True

    def _take(self, job: Job, report: Report) -> None:
        self._flying.discard(job.label)
        if report.outcome is Outcome.FINISHED:
            self._durations.add(job.kind, job.ledger.seconds())
            self._close(job.label, State.FINISHED)
        elif report.outcome is Outcome.FAILED or report.final:
            self._close(job.label, State.BROKEN, report.message)
        elif report.outcome is Outcome.KILLED:
            # Its attempts tell whether it is tried again.
            self.show.say(f"{job.label}: {report.message}")
        else:
            self._not_before[job.label] = time.monotonic() + _ELSEWHERE_SECONDS

    def _close(self, label: str, state: State, reason: str = "") -> None:
        self.closed[label] = state
        if state is State.BROKEN:
            self.reasons[label] = reason
        if self.show.begun:
            self.show.closed(label, state, reason)

    def _tick(self) -> None:
        now, running, flying = time.time(), [], []
        for job in self.pool.running():
            attempts = job.ledger.attempts()
            running.append(job.label)
            whole = self._durations.of(job.kind)
            if attempts and whole is not None:
                flying.append((whole, now - attempts[-1].started))
        waiting = [
            self._durations.of(node.kind)
            for label, node in self.plan.nodes.items()
            if label not in self.closed and label not in running
        ]
        known = [seconds for seconds in waiting if seconds is not None]
        enough = len(known) == len(waiting) and len(flying) == len(running)
        slots = max(1, self.pool.slots // self.plan.suite.cpus)
        self.show.tick(running, seconds_left(flying, known, slots) if enough else None)
