"""Jobs on a Ray cluster: each a retried task with its own processors, in a folder that all machines share."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from typing import Any

from kd_core.errors import UserError, how_to_install
from kd_marl.processes.process import STOP_SECONDS
from kd_marl.suite.attempt import Report, attempt
from kd_marl.suite.attempts_log import Outcome
from kd_marl.suite.job import Job
from kd_marl.suite.lock import STALE_SECONDS, locked, owner

LOCAL, CLIENT = "local", "ray://"
# What a machine that is there needs to answer at most; and how often, and how many times in a row without an answer, a
# suite looks for the cluster that it runs on.
_KNOCK_SECONDS, _LOOK_SECONDS, _MISSES = 10.0, 3.0, 3
# What a task that replaces a lost one waits for the lost one's lock to be free.
_PATIENCE = STALE_SECONDS + 15.0


class RayPool:
    """Hands jobs to Ray, which places them, queues them, and repeats a task whose worker or machine is lost.

    Attributes:
        slots: processors of the cluster when the suite began.
    """

    def __init__(self, address: str, jobs: int | None) -> None:
        """Join a cluster.

        Args:
            address: of the cluster, as for ``ray.init``; ``local`` starts one on this machine.
            jobs: processors to use at most; None: what the cluster has.

        Raises:
            UserError: Ray is not installed, there is no cluster at the address, or this machine is not of it.
        """
        if address.startswith(CLIENT):
            raise UserError(f"--ray {address} is Ray Client: start the suite on a machine of the cluster, --ray auto")
        # No report of our users to anybody.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ModuleNotFoundError:
            raise UserError(f"--ray needs ray, which is not installed: {how_to_install('suite')}") from None
        self._ray = ray
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if address == LOCAL:
            options |= {"num_cpus": jobs, "include_dashboard": False}
            # Ray's own workers would give way to everything else on the machine.
            os.environ.setdefault("RAY_worker_niceness", "0")
        knock(address)
        try:
            ray.init(address=address, **options)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"cannot join a Ray cluster at {address} ({reason}): see `ray status`") from None
        there = int(ray.cluster_resources().get("CPU", 1))
        # A local cluster gets no machine on which a larger job could ever start.
        self._most = there if address == LOCAL else None
        self._limit = jobs
        self.slots = max(1, min(there, jobs or there))
        self._task: Any = ray.remote(_in_worker)
        self._running: dict[Any, Job] = {}
        # Where the cluster's head answers. Ray itself would try for a minute, then end this process without a word.
        self._head = ray.get_runtime_context().gcs_address
        self._gone = False
        self._looked, self._missed = 0.0, 0

    def room(self, cpus: int) -> bool:
        """Return whether a job may be handed over: Ray queues what does not fit, and a cluster may grow to fit it."""
        used = sum(job.cpus for job in self._running.values())
        return self._limit is None or used + cpus <= self._limit or not used

    def submit(self, job: Job, afresh: bool) -> None:
        """Hand a job over."""
        cpus = job.cpus if self._most is None else min(job.cpus, self._most)
        task = self._task.options(num_cpus=cpus, max_retries=job.retries, name=job.label)
        self._running[task.remote(job, wait=_PATIENCE, afresh=afresh)] = job

    def running(self) -> list[Job]:
        """Return what runs now, as the locks tell; the rest is queued."""
        return [job for job in self._running.values() if owner(job.lock) is not None]

    def ended(self, timeout: float) -> list[tuple[Job, Report]]:
        """Return what has ended; waits for something to end, but not longer than ``timeout`` seconds."""
        if not self._running:
            time.sleep(timeout)
            return []
        self._look_for_head()
        done, _ = self._ray.wait(list(self._running), timeout=timeout)
        return [(job, self._result(reference, job)) for reference in done for job in [self._running.pop(reference)]]

    def close(self) -> None:
        """Interrupt what runs, wait until it has ended, and leave the cluster; a local one ends."""
        references = [] if self._gone else list(self._running)
        for reference in references:
            self._ray.cancel(reference)
        if references:
            self._ray.wait(references, num_returns=len(references), timeout=3 * STOP_SECONDS)
        self._ray.shutdown()

    def _look_for_head(self) -> None:
        """See every few seconds that the cluster is still there.

        Raises:
            UserError: it has not answered several times in a row.
        """
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        try:
            knock(self._head, _LOOK_SECONDS)
            self._missed = 0
        except UserError:
            self._missed += 1
        self._looked = time.monotonic()
        self._gone = self._missed >= _MISSES
        if self._gone:
            raise UserError(
                f"the Ray cluster at {self._head} went away: what is finished is kept, and the same command goes on "
                f"with the other {len(self._running)} runs once there is a cluster again"
            )

    def _result(self, reference: Any, job: Job) -> Report:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            # What the attempt itself raises is a user's mistake, such as a folder that has no locks.
            raise UserError(str(error.cause)) from None
        except self._ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[:200]
            report = Report(Outcome.KILLED, f"Ray lost its worker, and each that replaced it ({reason})", final=True)
            _note(job, report.message)
            return report


def knock(address: str, timeout: float = _KNOCK_SECONDS) -> None:
    """See that something listens at an address of the form HOST:PORT, which Ray itself would try for minutes.

    Args:
        address: any other form is left to Ray.
        timeout: seconds to wait for an answer.

    Raises:
        UserError: nothing does.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=timeout).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"no Ray cluster listens at {address} ({getattr(error, 'strerror', None) or error}): see `ray status`, or "
            "start one with `ray start --head`"
        ) from None


def _in_worker(job: Job, wait: float, afresh: bool) -> Report:
    """Run `attempt` where a cancelled task is an interrupt, whatever started the worker."""
    # A worker inherits that a shell's background jobs ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return attempt(job, wait=wait, afresh=afresh)


def _note(job: Job, message: str) -> None:
    """Note that a run is broken for the next suite too, unless somebody else is at it by now."""
    with locked(job.lock, _PATIENCE) as lock:
        if lock is not None and job.proof.found() is None:
            attempts = job.attempts_log.attempts()
            if not attempts or attempts[-1].ended is not None:
                job.attempts_log.begin()
            job.attempts_log.end(Outcome.FAILED, message)
