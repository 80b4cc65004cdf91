"""`kd-marl suite`: grids of runs from a YAML file, made once, here or on a Ray cluster."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kd_core.errors import UserError
from kd_marl.commands.common import Subparsers, add_parser

if TYPE_CHECKING:
    from kd_marl.suite.campaign import Pool
    from kd_marl.suite.ledger import State
    from kd_marl.suite.plan import Plan


def add(subparsers: Subparsers) -> None:
    """Adds `suite run`, `suite status` and `suite list`."""
    parser = add_parser(
        subparsers,
        "suite",
        "Make the runs of a grid (tasks x methods x limits x seeds) that a YAML file describes: docs/guides/suites.md.",
        "kd-marl suite run suites/smoke.yaml --jobs 4",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    run = add_parser(
        actions,
        "run",
        "Make what is missing; stop it at any time, the same command goes on.",
        "kd-marl suite run suites/paper.yaml --tasks 3m 3s5z --seeds 1 2 3 --jobs 8 with eval_episodes=500",
    )
    run.add_argument("--jobs", type=int, help="processors to use at most (default: all)")
    run.add_argument(
        "--ray", metavar="ADDRESS", help="run on this Ray cluster, 'auto' for the one this machine is in, or 'local'"
    )
    run.add_argument("--retry-broken", action="store_true", help="try runs that are broken once more")
    status = add_parser(
        actions, "status", "Show what is finished, runs, is broken or left.", "kd-marl suite status suites/paper.yaml"
    )
    listing = add_parser(
        actions, "list", "Print the command line of every run.", "kd-marl suite list suites/smoke.yaml"
    )
    for action, function in ((run, _run), (status, _status), (listing, _list)):
        action.add_argument("file", type=Path, metavar="FILE", help="the suite, such as suites/smoke.yaml")
        action.add_argument("--to", type=Path, metavar="DIR", help="folder of the runs (default: results/suites/NAME)")
        for axis, kind in (("tasks", str), ("methods", str), ("limits", str), ("seeds", int)):
            action.add_argument(
                f"--{axis}", nargs="+", type=kind, metavar=axis.rstrip("s").upper(), help=f"only these {axis}"
            )
        action.usage = f"{action.prog} FILE [options] [with key=value ...]"
        action.set_defaults(run=function, updates=[])


def _plan(args: argparse.Namespace) -> Plan:
    from kd_core.host import get_host

    # First of all: an EPyMARL checkout brings its own `envs` package, which ours joins.
    host = get_host()

    from kd_marl.plugin import register
    from kd_marl.suite import document
    from kd_marl.suite.plan import Plan

    register.register(host)
    chosen = (getattr(args, axis) for axis in ("tasks", "methods", "limits", "seeds"))
    suite = document.load(args.file, args.updates, document.Part(*(given and tuple(given) for given in chosen)))
    return Plan(host, suite, args.to or Path("results", "suites", suite.name))


def _run(args: argparse.Namespace) -> int:
    from kd_core import progress
    from kd_marl.suite.campaign import Campaign
    from kd_marl.suite.ledger import State
    from kd_marl.suite.show import Show

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
        from kd_marl.suite.cluster import RayPool

        return RayPool(args.ray, args.jobs)

    from kd_marl.suite.local import LocalPool

    every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return LocalPool(args.jobs or every)


@contextmanager
def _interruptible() -> Iterator[None]:
    """A terminal's Ctrl-C, also of a job in the background, and a batch system's SIGTERM end the runs alike."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _status(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from kd_marl.suite.campaign import look
    from kd_marl.suite.ledger import State

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


def _list(args: argparse.Namespace) -> int:
    plan = _plan(args)
    for label, node in plan.nodes.items():
        job = plan.job(label)
        print(f"# {label}" + ("" if job else f" (known once {' and '.join(node.needs)} is made)"))
        if job:
            print(job.line)
    return 0


def _counted(counts: Counter[State]) -> str:
    from kd_marl.suite.ledger import State

    return ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state]) or "nothing"
