"""`kd-marl stress`: what failing sensors, late observations, a dead agent or another map leave of a student."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_core.errors import UserError, how_to_install, nearest
from kd_marl.commands.common import Subparsers, add_parser, results_folders

if TYPE_CHECKING:
    from kd_marl.runs.student_run import StudentRun

DEFAULT_EPISODES = 500
# Fewer at a time would be slow, whatever the run trained with.
LEAST_BATCH = 100
# What says which task it is, and so which networks fit.
_FIXED = ("map_name", "key", "seed")


def add(subparsers: Subparsers) -> None:
    """Adds `stress`."""
    parser = add_parser(
        subparsers,
        "stress",
        "Play teacher and student side by side under sensor dropout and noise, late observations, a dead agent, and on "
        "unseen maps; stress.json, stress.md and stress.svg go into the run's Sacred folder.",
        "kd-marl stress results/sacred/kd_student/3m/1\n"
        "  kd-marl stress results/sacred/kd_student/3m/1 --episodes 1000 --dropout 0.1 0.3 --noise --delay 1 --dead\n\n"
        "An option of levels that is given without any leaves its kind out. Interrupted, the same command goes on.",
    )
    parser.add_argument(
        "student", metavar="RUN", type=Path, help="the student: its Sacred folder, its models folder, or one checkpoint"
    )
    parser.add_argument(
        "--episodes",
        type=int,
        default=DEFAULT_EPISODES,
        help=f"of each policy under each disturbance (default: {DEFAULT_EPISODES})",
    )
    parser.add_argument("--dropout", nargs="*", type=float, metavar="P", help="probabilities (default: 0.1 0.2 0.5)")
    parser.add_argument(
        "--noise",
        nargs="*",
        type=float,
        metavar="SIGMA",
        help="in standard deviations of each feature over undisturbed play (default: 0.1 0.2 0.5 1)",
    )
    parser.add_argument("--delay", nargs="*", type=int, metavar="STEPS", help="of the observation (default: 1 2 3)")
    parser.add_argument("--dead", nargs="*", metavar="AGENT", help="by index or name (default: each in turn)")
    parser.add_argument("--maps", nargs="*", metavar="MAP", help="unseen ones (default: all of the same sizes)")
    parser.add_argument("--teacher", type=Path, metavar="DIR", help="the teacher, if it is no longer where it was")
    # What follows `with` is taken out before argparse looks, see cli.py.
    parser.usage = f"{parser.prog} RUN [options] [with batch_size_run=N env_args.NAME=VALUE ...]"
    parser.set_defaults(run=_stress, updates=[])


def _stress(args: argparse.Namespace) -> int:
    from kd_core.host import get_host

    # First of all: an EPyMARL checkout brings its own `envs` package, which ours joins.
    host = get_host()

    from kd_core import files, progress
    from kd_marl.deploy.sensors import arguments
    from kd_marl.plugin import register
    from kd_marl.runs.student_run import load_student
    from kd_marl.stress import measure as stress
    from kd_marl.stress import page
    from kd_marl.stress.plan import Wanted, plan

    register.register(host)
    progress.remember_terminal()
    run = load_student(args.student)
    batch, run = _updated(run, args.updates)
    results = [run.results, *results_folders()]
    teacher = stress.find_teacher(run, args.teacher, results)
    settings, task = arguments(host, run)
    match = stress.Match(host, run, settings, task, teacher, args.episodes, batch)
    wanted = Wanted(args.dropout, args.noise, args.delay, args.dead, args.maps)
    trials, notes = plan(wanted, match.args, match.layout)
    if "state" in match.teacher.sizes.teacher_input:
        notes.append("the teacher also reads the state, which no disturbance touches")
    # A terminal's Ctrl-C and a batch system's SIGTERM end it alike.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = stress.record_folder(run)
    try:
        with _alone(folder):
            facts = stress.measure(match, trials, notes, _line(args))
            files.write_json(folder / stress.FILE, facts)
            drawn = _draw(folder / "stress.svg", facts)
            files.write_bytes(folder / "stress.md", page.page(facts, "stress.svg" if drawn else None).encode())
    except KeyboardInterrupt:
        print("stopped: the same command goes on with what is left", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    print("\n".join([*page.table(facts), "", *notes]))
    print(f"written to {folder / stress.FILE}, stress.md{' and stress.svg' if drawn else ''}")
    return 0


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep out a second call on the same student: each would write over what the other has measured.

    Raises:
        UserError: there is one.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another kd-marl stress is at {folder}: give this command again when it has ended"
            ) from None
        except OSError:
            # A file system without locks keeps nobody out, and is no reason to measure nothing.
            pass
        yield
    finally:
        os.close(descriptor)


def _updated(run: StudentRun, words: Sequence[str]) -> tuple[int, StudentRun]:
    """The batch size, and the run with what follows ``with`` put into its configuration.

    Raises:
        UserError: a key that cannot be changed.
    """
    from sacred.arg_parser import get_config_updates

    known = [f"env_args.{key}" for key in run.config["env_args"] if key not in _FIXED]
    for word in words:
        key = word.split("=", 1)[0]
        if key not in ("batch_size_run", *known):
            raise UserError(f"'with {key}' does not fit a trained student; {nearest(key, ['batch_size_run', *known])}")
    updates, _ = get_config_updates(list(words))
    batch = updates.get("batch_size_run", max(LEAST_BATCH, run.config["batch_size_run"]))
    if type(batch) is not int or batch < 1:
        raise UserError(f"batch_size_run is {batch!r}: expected a number of environments of at least 1")
    env_args = {**run.config["env_args"], **updates.get("env_args", {})}
    return batch, replace(run, config={**run.config, "env_args": env_args})


def _line(args: argparse.Namespace) -> str:
    """The command line that makes this again."""
    words = ["kd-marl", "stress", str(args.student), "--episodes", str(args.episodes)]
    for name in ("dropout", "noise", "delay", "dead", "maps"):
        if (given := getattr(args, name)) is not None:
            words += [f"--{name}", *(f"{value:g}" if isinstance(value, float) else str(value) for value in given)]
    words += ["--teacher", str(args.teacher)] if args.teacher else []
    return shlex.join([*words, *(["with", *args.updates] if args.updates else [])])


def _draw(file: Path, facts: Mapping[str, Any]) -> bool:
    """Write the figure, if the package that draws is there."""
    from kd_core import files

    try:
        from kd_marl.stress.figure import figure
    except ModuleNotFoundError as error:
        print(f"no figure: {error.name} is not installed: {how_to_install('report')}", file=sys.stderr)
        return False
    files.write_bytes(file, figure(facts).encode())
    return True
