"""The work of `kd-marl stress`: a student plays under disturbances, and its page is written."""

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
from typing import Any

from kd_core import files, keys, progress
from kd_core.errors import UserError, how_to_install, nearest
from kd_core.host import get_host
from kd_marl.plugin import register
from kd_marl.runs.folders import results_folders
from kd_marl.runs.stress_file import FILE
from kd_marl.runs.student_run import StudentRun, load_student, run_arguments
from kd_marl.stress import measure, page
from kd_marl.stress.figure import figure
from kd_marl.stress.plan import Wanted, plan

# Fewer at a time would be slow, whatever the run trained with.
LEAST_BATCH = 100
_KINDS = ("dropout", "noise", "delay", "dead", "maps", "message_loss", "message_delay", "jam")
# What says which task it is, and so which networks fit.
_FIXED = ("map_name", "key", "seed")


def run(args: argparse.Namespace) -> int:
    """Play the student of the command's arguments under its disturbances; returns the exit status."""
    host = get_host()
    register.register(host)
    progress.remember_terminal()
    batch, student = _updated(load_student(args.student), args.updates)
    results = [student.results, *results_folders()]
    teacher = measure.find_teacher(student, args.teacher, results)
    settings, task = run_arguments(host, student)
    match = measure.Match(host, student, settings, task, teacher, args.episodes, batch)
    wanted = Wanted(**{kind: getattr(args, kind) for kind in _KINDS})
    trials, notes = plan(wanted, match.args, match.layout)
    if "state" in match.teacher.sizes.teacher_input:
        notes.append("the teacher also reads the state, which no disturbance touches")
    # A terminal's Ctrl-C and a batch system's SIGTERM end it alike.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = student.folder
    try:
        with _alone(folder):
            facts = measure.measure(match, trials, notes, _line(args))
            files.write_json(folder / FILE, facts)
            drawn = _draw(folder / "stress.svg", facts)
            files.write_bytes(folder / "stress.md", page.page(facts, "stress.svg" if drawn else None).encode())
    except KeyboardInterrupt:
        print("stopped: the same command goes on with what is left", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    print("\n".join([*page.table(facts), "", *notes]))
    print(f"written to {folder / FILE}, stress.md{' and stress.svg' if drawn else ''}")
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
    """Return the batch size, and the run with what follows ``with`` put into its configuration.

    Raises:
        UserError: a key that cannot be changed.
    """
    known = [f"env_args.{key}" for key in run.config["env_args"] if key not in _FIXED]
    batch, env_args = max(LEAST_BATCH, run.config["batch_size_run"]), dict(run.config["env_args"])
    for word in words:
        key, _, text = word.partition("=")
        if key not in ("batch_size_run", *known):
            raise UserError(f"'with {key}' does not fit a trained student; {nearest(key, ['batch_size_run', *known])}")
        name = key.removeprefix("env_args.")
        value = keys.kind_of(key, env_args.get(name)).read(key, text)
        if name == key:
            batch = value
        else:
            env_args[name] = value
    return batch, replace(run, config={**run.config, "env_args": env_args})


def _line(args: argparse.Namespace) -> str:
    """Return the command line that makes this again."""
    words = ["kd-marl", "stress", str(args.student), "--episodes", str(args.episodes)]
    for name in _KINDS:
        if (given := getattr(args, name)) is not None:
            words += [
                f"--{name.replace('_', '-')}",
                *(f"{value:g}" if isinstance(value, float) else str(value) for value in given),
            ]
    words += ["--teacher", str(args.teacher)] if args.teacher else []
    return shlex.join([*words, *(["with", *args.updates] if args.updates else [])])


def _draw(file: Path, facts: Mapping[str, Any]) -> bool:
    """Write the figure, if the package that draws is there."""
    try:
        drawn = figure(facts)
    except ModuleNotFoundError as error:
        print(f"no figure: {error.name} is not installed: {how_to_install('report')}", file=sys.stderr)
        return False
    files.write_bytes(file, drawn.encode())
    return True
