"""The loop of a suite: whatever is ready and not made is handed to a pool, until nothing is left that can be made."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from kd_core.errors import UserError
from kd_marl.suite.attempt import Report
from kd_marl.suite.attempts_log import Outcome, State, spent, state_of
from kd_marl.suite.estimate import Durations, Load, seconds_left
from kd_marl.suite.job import Job
from kd_marl.suite.lock import owner
from kd_marl.suite.plan import Node, Plan
from kd_marl.suite.show import Show

# How long to wait for something to end before looking again, and before asking again for what somebody else is at.
_LOOK_SECONDS = 1.0
_ELSEWHERE_SECONDS = 5.0
# How long another machine's files may take to be seen here.
_ARRIVAL_SECONDS = 90.0


class Pool(Protocol):
    """Where jobs run; `kd_marl.suite.local` and `kd_marl.suite.cluster`."""

    slots: int

    def room(self, cpus: int) -> bool:
        """Return whether a job of so many processors may be submitted."""

    def submit(self, job: Job, afresh: bool) -> None:
        """Start a job, or queue it."""

    def running(self) -> list[Job]:
        """Return what runs now."""

    def ended(self, timeout: float) -> list[tuple[Job, Report]]:
        """Return what has ended since the last call; waits at most ``timeout`` seconds for it."""

    def close(self) -> None:
        """Interrupt what runs, and wait until it has ended."""


@dataclass(frozen=True)
class Found:
    """What is known of a job now.

    Attributes:
        job: None as long as what it needs is not made, or is damaged.
        state: of its run.
        note: who is at it, or why it is broken.
    """

    job: Job | None
    state: State
    note: str = ""


def look(plan: Plan, label: str) -> Found:
    """Return the state of a job, from what is on disk; what is damaged there breaks this job and not others."""
    try:
        job = plan.job(label)
        if job is None:
            return Found(None, State.MISSING)
        made = job.proof.found() is not None
    except UserError as error:
        return Found(None, State.BROKEN, str(error))
    attempts, holder = job.attempts_log.attempts(), owner(job.lock)
    state = state_of(made, holder is not None, attempts, job.retries)
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
        # Said to be finished, and until when its result may take to be seen here.
        self._awaited: dict[str, tuple[Job, float]] = {}
        self._elsewhere: dict[str, Job] = {}
        # Seconds that interrupted runs need not take again.
        self._spent: dict[str, float] = {}
        self._durations = Durations()

    def run(self) -> Counter[State]:
        """Make what is missing.

        Returns:
            How many jobs there are of each state now.

        Raises:
            UserError: an attempt could not even be made, or what another machine has made is not to be seen here.
        """
        try:
            for label in self.plan.nodes:
                found = look(self.plan, label)
                if found.state is State.INTERRUPTED and found.job is not None and found.job.goes_on:
                    self._spent[label] = found.job.spent() or 0.0
                if found.state is State.FINISHED and found.job is not None:
                    self._close(label, State.FINISHED)
                    self._durations.add(found.job.kind, found.job.spent())
            self.show.begin(len(self.closed), len(self.plan.nodes))
            while len(self.closed) < len(self.plan.nodes):
                self._submit_what_is_ready()
                if len(self.closed) < len(self.plan.nodes):
                    for job, report in self.pool.ended(_LOOK_SECONDS):
                        self._take(job, report)
                    self._see_what_arrived()
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
                if found.job is None and found.state is State.BROKEN:
                    self._close(label, State.BROKEN, found.note)
                elif found.job is not None and not self._handled(label, found):
                    # In their order: a small job does not overtake a large one for ever.
                    return

    def _handled(self, label: str, found: Found) -> bool:
        """Do what a job's state asks for; False if there is no room for it."""
        job = found.job
        assert job is not None, "looked at"
        again = found.state is State.BROKEN and self.retry_broken and label not in self._afresh
        if found.state is not State.RUNNING:
            self._elsewhere.pop(label, None)
        elif label not in self._elsewhere:
            self._elsewhere[label] = job
            self.show.say(f"waiting for {label}: {found.note}")
        if found.state is State.FINISHED:
            self._durations.add(job.kind, job.spent())
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
        if report.outcome is Outcome.FINISHED:
            self._awaited[job.label] = (job, time.monotonic() + _ARRIVAL_SECONDS)
            return
        self._flying.discard(job.label)
        if report.outcome is Outcome.FAILED or report.final:
            self._close(job.label, State.BROKEN, report.message)
        elif report.outcome is Outcome.KILLED:
            # Its attempts tell whether it is tried again.
            self._spent[job.label] = (job.spent() if job.goes_on else None) or 0.0
            self.show.say(f"{job.label}: {report.message}")
        else:
            self._not_before[job.label] = time.monotonic() + _ELSEWHERE_SECONDS

    def _see_what_arrived(self) -> None:
        for label, (job, until) in list(self._awaited.items()):
            if job.proof.found() is not None:
                del self._awaited[label]
                self._flying.discard(label)
                self._durations.add(job.kind, job.spent())
                self._close(label, State.FINISHED)
            elif time.monotonic() > until:
                raise UserError(
                    f"{label} is finished, but its result is not in {job.results} on this machine: give --to a folder "
                    "that all machines share"
                )

    def _close(self, label: str, state: State, reason: str = "") -> None:
        self.closed[label] = state
        if state is State.BROKEN:
            self.reasons[label] = reason
        if self.show.begun:
            self.show.closed(label, state, reason)

    def _tick(self) -> None:
        now, running, flying = time.time(), [], []
        for job in self.pool.running():
            running.append(job.label)
            if (left := self._left(job, now)) is not None:
                flying.append(Load(left, job.cpus))
        elsewhere = [self._left(job, now) for label, job in self._elsewhere.items() if label not in self.closed]
        waiting = [
            (self._waits(node), self.plan.suite.cpus_of(node.method))
            for label, node in self.plan.nodes.items()
            if label not in self.closed and label not in running and label not in self._elsewhere
        ]
        known = [Load(seconds, cpus) for seconds, cpus in waiting if seconds is not None]
        others = [seconds for seconds in elsewhere if seconds is not None]
        enough = (len(known), len(flying), len(others)) == (len(waiting), len(running), len(elsewhere))
        self.show.tick(running, max([seconds_left(flying, known, self.pool.slots), *others]) if enough else None)

    def _left(self, job: Job, now: float) -> float | None:
        """Return the seconds that a running job will still take; None: not known."""
        attempts, whole = job.attempts_log.attempts(), self._durations.of(job.kind)
        if not attempts or whole is None:
            return None
        before = (spent(attempts[:-1]) if job.goes_on else None) or 0.0
        # One that takes longer than expected may end at any time.
        return max(0.0, whole - before - (now - attempts[-1].started))

    def _waits(self, node: Node) -> float | None:
        """Return the seconds that a job will take once it is tried; None: not known."""
        whole = self._durations.of(node.kind)
        return None if whole is None else max(0.0, whole - self._spent.get(node.label, 0.0))
