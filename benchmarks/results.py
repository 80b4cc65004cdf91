"""The evidence page: students of the bundled teachers on StarCraft maps and particle environments, run and tabulated.

    python benchmarks/results.py run --jobs 2             # runs what is missing; stop it at any time and start it again
    python benchmarks/results.py run --dry-run            # what is missing, and why
    python benchmarks/results.py run --family smax --tasks 3m --seeds 1
    python benchmarks/results.py table                    # writes docs/results.md and its figures from the summaries

Every run is a process of its own, ``python src/main.py ...`` with the project's defaults. What counts as done is
decided by the run's own records (``summary.json`` and Sacred's ``config.json``): a run made with other settings, or
with another teacher, is not counted.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

SOURCE = Path(__file__).resolve().parents[1] / "src"
# So that the script also runs where the project is not installed; sacred's import warns about setuptools.
sys.path.insert(0, str(SOURCE))
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")

import results_page  # noqa: E402
from results_families import FAMILIES  # noqa: E402
from results_grid import EXPORT, ROOT, STUDENT, Cell, Grid  # noqa: E402

from kd_marl.errors import UserError, nearest  # noqa: E402

# How long a run that is to be stopped may take before it is killed.
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Job:
    """A process to run, and how to tell that it did what it should."""

    label: str
    words: tuple[str, ...]
    done: Callable[[], bool]


def missing(grid: Grid) -> tuple[list[Cell], list[str]]:
    """The runs that are yet to be made, and why runs on disk do not count; tasks without a teacher are passed over."""
    cells, reasons = [], []
    for task in grid.tasks:
        if grid.teacher(task) is None:
            reasons.append(f"{task} is passed over: there is no teacher in {grid.zoo / task}")
            continue
        for cell in grid.cells(task):
            record, why = grid.find(cell)
            reasons += why
            if record is None:
                cells.append(cell)
    # All students come first: they are what the page is about.
    return sorted(cells, key=lambda cell: cell.algorithm != STUDENT), reasons


def run(grid: Grid, parallel: int, program: Sequence[str], dry_run: bool = False) -> int:
    """Make the missing runs of a family; returns the exit status."""
    cells, reasons = missing(grid)
    for reason in reasons:
        print(reason)
    without = [task for task in grid.tasks if grid.teacher(task) is None]
    # Students of one task share its buffer, and two of them must not export it at the same time.
    exports = [task for task in dict.fromkeys(cell.task for cell in cells) if not grid.exported(task)]
    print(f"{grid.family.name}: {len(exports)} exports and {len(cells)} runs to make")
    if dry_run:
        print("\n".join([*(f"{EXPORT} {task}" for task in exports), *(cell.label for cell in cells)]))
        return 0
    with tqdm(total=len(exports) + len(cells), unit="run", dynamic_ncols=True, file=sys.stderr) as bar:
        first = [Job(f"{task}-{EXPORT}", grid.export_words(task), partial(grid.exported, task)) for task in exports]
        failed = execute(first, parallel, program, grid.results, bar)
        able = [cell for cell in cells if grid.exported(cell.task)]
        then = [Job(cell.label, grid.words(cell), partial(grid.done, cell)) for cell in able]
        failed += execute(then, parallel, program, grid.results, bar)
    left = len(cells) - len(able)
    if failed or left or without:
        print(
            f"error: {len(failed)} failed, {left} were not tried for want of a buffer, no teacher: {len(without)} tasks"
        )
        return 1
    return 0


def execute(jobs: Sequence[Job], parallel: int, program: Sequence[str], results: Path, bar: Any) -> list[str]:
    """Run jobs side by side, each with a log file; returns the labels of those that failed.

    However this ends, no process that it started goes on.
    """
    logs = ROOT / results / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    queue, failed, shown = list(jobs), [], ""
    running: dict[subprocess.Popen[bytes], Job] = {}
    try:
        while queue or running:
            while queue and len(running) < parallel:
                job = queue.pop(0)
                with open(logs / f"{job.label}.log", "w", encoding="utf-8") as log:
                    running[_start(job, program, log)] = job
            now = ", ".join(job.label for job in running.values())
            # A terminal's clock goes on; a log file gets a line only when something changes.
            bar.set_postfix_str(now, refresh=now != shown or sys.stderr.isatty())
            shown = now
            time.sleep(0.2)
            for process in [process for process in running if process.poll() is not None]:
                job = running.pop(process)
                if process.returncode or not job.done():
                    failed.append(job.label)
                    bar.write(f"failed: {job.label}: {_last_line(logs / f'{job.label}.log')}", file=sys.stderr)
                bar.update(1)
    finally:
        _stop(list(running))
    return failed


def _start(job: Job, program: Sequence[str], log: Any) -> subprocess.Popen[bytes]:
    """One thread a run, and a process group of its own, so that its workers can be stopped with it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [*program, *job.words]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"{lines[-1].strip() if lines else 'it said nothing'} (all of it: {log})"


def _grids(arguments: argparse.Namespace) -> list[Grid]:
    """A grid for each family that has any of the named tasks and settings."""
    families = [FAMILIES[name] for name in FAMILIES if name in arguments.family]
    tasks = [task for family in families for task in family.tasks]
    settings = list(dict.fromkeys(setting for family in families for setting in family.settings))
    for name, given, valid in (("task", arguments.tasks, tasks), ("setting", arguments.settings, settings)):
        for word in given or ():
            if word not in valid:
                raise UserError(f"unknown {name} '{word}'; {nearest(word, valid)}")
    grids, only = [], arguments.seeds and tuple(arguments.seeds)
    for family in families:
        named = [task for task in family.tasks if task in (arguments.tasks or tasks)]
        limited = [
            setting
            for setting, seeds in family.seeds.items()
            if setting in (arguments.settings or settings) and (only is None or set(only) & set(seeds))
        ]
        if named and limited:
            folder = arguments.results / family.name
            grids.append(Grid(family, tuple(named), tuple(limited), only, folder))
    if not grids:
        raise UserError("no family has the tasks, settings and seeds that were named together: leave one of them out")
    return grids


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = [task for family in FAMILIES.values() for task in family.tasks]
    settings = dict.fromkeys(setting for family in FAMILIES.values() for setting in family.settings)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--family", nargs="+", choices=list(FAMILIES), default=list(FAMILIES), help="all unless given")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help=f"all unless given: {', '.join(tasks)}")
    parser.add_argument("--settings", nargs="+", metavar="SETTING", help=f"all unless given: {', '.join(settings)}")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="all of a row unless given")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time; 2 unless given")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the runs, one in it a family")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of results.md and its figures")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be run")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    arguments = _parser().parse_args(words)
    # A terminal's Ctrl-C and a batch system's SIGTERM end the runs alike.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        grids = _grids(arguments)
        if arguments.action == "run":
            program = [sys.executable, str(SOURCE / "main.py")]
            return max([run(grid, max(1, arguments.jobs), program, arguments.dry_run) for grid in grids])
        results_page.write(grids, arguments.docs)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command goes on with what is left", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
