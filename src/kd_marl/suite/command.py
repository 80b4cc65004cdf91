"""The work of `kd-marl suite`: the runs of a grid are made, counted or listed."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kd_core import progress
from kd_core.errors import UserError
from kd_core.host import get_host
from kd_marl.plugin import register
from kd_marl.suite import document
from kd_marl.suite.attempts_log import State
from kd_marl.suite.campaign import Campaign, Pool, look
from kd_marl.suite.cluster import RayPool
from kd_marl.suite.local import LocalPool
from kd_marl.suite.plan import Plan
from kd_marl.suite.show import Show


def _plan(args: argparse.Namespace) -> Plan:
    host = get_host()
    register.register(host)
    chosen = (getattr(args, axis) for axis in ("tasks", "methods", "limits", "seeds"))
    suite = document.load(args.file, args.updates, document.Part(*(given and tuple(given) for given in chosen)))
    return Plan(host, suite, args.to or Path("results", "suites", suite.name))


def run(args: argparse.Namespace) -> int:
    """Make what is missing; returns the exit status."""
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}: give at least 1")
    progress.remember_terminal()
    try:
        plan = _plan(args)
        # Ray sets handlers of its own when it starts; ours come after them.
        campaign = Campaign(plan, _pool(args), Show(), args.retry_broken)
        with _interruptible():
            counts = campaign.run()
    except KeyboardInterrupt:
        print("stopped: the same command goes on with what is left", file=sys.stderr)
        return 130
    for label, reason in campaign.reasons.items():
        print(f"broken: {label}: {reason}", file=sys.stderr)
    print(_counted(counts) + f"; the runs are in {plan.results}")
    if counts[State.FINISHED] == len(plan.nodes):
        return 0
    print(
        f"error: {counts[State.BROKEN]} broken, {counts[State.MISSING]} left for want of them: mend the cause and add "
        "--retry-broken",
        file=sys.stderr,
    )
    return 1


def _pool(args: argparse.Namespace) -> Pool:
    if args.ray:
        return RayPool(args.ray, args.jobs)
    every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return LocalPool(args.jobs or every)


@contextmanager
def _interruptible() -> Iterator[None]:
    """End the runs alike by a terminal's Ctrl-C, in the background too, and by a batch system's SIGTERM."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def status(args: argparse.Namespace) -> int:
    """Print what is finished, runs, is broken or left; returns the exit status."""
    plan = _plan(args)
    rows: dict[tuple[str, ...], Counter[State]] = defaultdict(Counter)
    notes = []
    for label, node in plan.nodes.items():
        found = look(plan, label)
        rows[node.task, node.method, node.cell.limits if node.cell else "-"][found.state] += 1
        if found.note:
            notes.append(f"{found.state.value}: {label}: {found.note}")
    table = Table("task", "method", "limits", *(state.value for state in State))
    for names, counts in rows.items():
        table.add_row(*names, *(str(counts[state] or "") for state in State))
    # Wide enough for the names when the output goes to a file or a pipe.
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)
    for note in notes:
        print(note)
    print(_counted(sum(rows.values(), Counter())) + f"; the runs are in {plan.results}")
    return 0


def list_runs(args: argparse.Namespace) -> int:
    """Print the command line of every run; returns the exit status."""
    plan = _plan(args)
    for label, node in plan.nodes.items():
        job = plan.job(label)
        print(f"# {label}" + ("" if job else f" (known once {' and '.join(node.needs)} is made)"))
        if job:
            print(job.line)
    return 0


def _counted(counts: Counter[State]) -> str:
    return ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state]) or "nothing"
