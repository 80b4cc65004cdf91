"""What runs in which environment: every stage of each, at tiny size.

    python tools/hosts/environments.py --write docs/reference/environments.md      # about half an hour on two cores

A row's cells follow each other: a teacher, its expert buffer, a student under `lh` and one under `lha`, the bundle of
that one, an episode of the bundle, and a page to watch it. A cell that ends well, or is refused in one line, is a cell;
anything else is a fault, is shown, and makes the command end with exit status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "helpers"))

from table import RUNS, written

import main_server
from main_server import MainServer

COLUMNS = ("teacher", "export", "student `lh`", "student `lha`", "bundle", "run", "watch")
MARK = "environments"
ROOT = Path(__file__).resolve().parents[2]
BLOCK = ("batch_size_run=2", "batch_size=2", "buffer_size=2")
SIZES = {
    "kd_teacher": (*BLOCK, "hidden_dim=16", "t_max=100", "epochs=1", "test_nepisode=2", "eval_episodes=2"),
    "kd_export": (*BLOCK, "buffer_episodes=4", "shard_episodes=2"),
    "kd_student": (
        *(*BLOCK, "buffer_episodes=4", "shard_episodes=2", "t_max=100", "updates_per_train=1"),
        *("minibatch_episodes=2", "test_nepisode=2", "eval_episodes=2"),
    ),
}


@dataclass(frozen=True)
class Environment:
    """A row.

    Attributes:
        title: what the table calls it.
        config: its `--env-config`.
        task: the key that names its task, and what else it needs.
        limits: what `lh` and `lha` need besides; without a word of it they are the paper's.
    """

    title: str
    config: str
    task: tuple[str, ...]
    limits: tuple[str, ...] = ("masks_preset=random",)


def _gymma(key: str, steps: int, *limits: str) -> Environment:
    words = (f"env_args.key={key}", f"env_args.time_limit={steps}", "runner=parallel")
    return Environment(f"`{key}`", "gymma", words, limits or ("masks_preset=random",))


ENVIRONMENTS = (
    *(
        Environment(f"`{key}`", "mpe", (f"env_args.key={key}", "runner=parallel"), ())
        for key in ("pz-mpe-simple-spread-v3", "pz-mpe-simple-speaker-listener-v4", "pz-mpe-simple-adversary-v3")
    ),
    Environment("SMAX, `3m`", "smax", ("env_args.map_name=3m", "runner=parallel"), ()),
    Environment(
        "SMAClite, `2s3z`", "smaclite", ("env_args.map_name=2s3z", "env_args.time_limit=30", "runner=parallel"), ()
    ),
    Environment(
        "warehouse, `rware-tiny-2ag`",
        "warehouse",
        ("env_args.key=rware:rware-tiny-2ag-v2", "env_args.time_limit=30"),
        ("masks_preset=nearer",),
    ),
    Environment(
        "traffic, `cologne1`",
        "traffic",
        ("env_args.map_name=cologne1", "env_args.episode_seconds=100"),
        ("masks_preset=own",),
    ),
    _gymma("lbforaging:Foraging-8x8-2p-2f-v3", 30),
    _gymma("matrixgames:climbing-nostate-v0", 10),
    *(
        Environment(
            f"VMAS, `{name}`", "gymma", (f"env_args.key=vmas-{name}", "env_args.time_limit=10", "runner=vector")
        )
        for name in ("navigation", "football")
    ),
    Environment("your own, `chargers:Chargers`", "own", ("env_args.key=chargers:Chargers", "runner=parallel")),
)


class Row:
    """The cells of one environment, played one after the other in a folder of their own."""

    def __init__(self, server: MainServer, environment: Environment, folder: Path) -> None:
        self.server, self.environment, self.folder = server, environment, folder

    def cells(self) -> Iterator[tuple[str, str]]:
        """Play; gives each cell's note, empty where it ran well, and its fault, empty where it has none."""
        outcomes: dict[str, tuple[str, str]] = {}
        for column in COLUMNS:
            needed = next((before for before in self._needs(column) if any(outcomes[before])), None)
            outcomes[column] = (f"needs the {needed}", "") if needed else self._play(column)
            yield outcomes[column]

    def _needs(self, column: str) -> tuple[str, ...]:
        stage = COLUMNS.index(column)
        return {2: COLUMNS[:2], 3: COLUMNS[:2], 6: (COLUMNS[3],)}.get(stage, COLUMNS[max(stage - 1, 0) : stage])

    def _play(self, column: str) -> tuple[str, str]:
        words, of_ours = self._words(column)
        if of_ours:
            # The command of its own that the server's child becomes, in place of src/main.py.
            before = f"import sys; from kd_marl.cli import main; sys.exit(main({words!r}))"
            done = self.server.run(before=before)
        else:
            done = self.server.run(*words)
        if done.status == 0:
            return "", ""
        try:
            return done.error, ""
        except AssertionError:
            return "", (done.out + done.err)[-3000:]

    def _words(self, column: str) -> tuple[list[str], bool]:
        """Write a cell's command line; the second is whether it is one of `kd-marl`, not of `src/main.py`."""
        results, bundle = self.folder / "results", self.folder / "bundle"
        environment = self.environment
        stages = {"teacher": "kd_teacher", "export": "kd_export"}
        if column in COLUMNS[:4]:
            config = stages.get(column, "kd_student")
            limits = [f"limits={column.split('`')[1]}", *environment.limits] if config == "kd_student" else []
            own = [*environment.task, *SIZES[config], "seed=1", f"local_results_path={results}", *limits]
            return [f"--config={config}", f"--env-config={environment.config}", "with", *own], False
        student = max(results.glob("sacred/kd_student/*/[0-9]*"), key=lambda path: int(path.name), default=results)
        return {
            "bundle": ["export", str(student), "--to", str(bundle)],
            "run": [
                "run",
                str(bundle),
                f"--env-config={environment.config}",
                "--episodes",
                "1",
                "with",
                *environment.task,
            ],
            "watch": ["watch", str(student), "--episodes", "1", "--to", str(self.folder / "watch.html")],
        }[column], True


Notes = dict[str, tuple[str, ...]]


def table(rows: Notes) -> str:
    """Write rows (title -> a note for each cell, empty where it ran) as a table with the notes below it."""
    notes: dict[str, int] = {}
    lines = ["| environment | " + " | ".join(COLUMNS) + " |", "|---" * (1 + len(COLUMNS)) + "|"]
    for title, cells in rows.items():
        words = [f"note {notes.setdefault(note, len(notes) + 1)}" if note else RUNS for note in cells]
        lines.append(f"| {title} | " + " | ".join(words) + " |")
    return "\n".join([*lines, "", *(f"{number}. `{note}`" for note, number in notes.items())]).rstrip()


def read(page: str) -> Notes:
    """Read the rows of a table that `table` wrote; none where the page has none yet."""
    block = page.partition(f"<!-- {MARK} -->")[2].partition(f"<!-- /{MARK} -->")[0]
    notes = dict(re.findall(r"^(\d+)\. `(.*)`$", block, re.MULTILINE))
    rows = [[word.strip() for word in line.strip("|").split(" | ")] for line in block.splitlines() if line[:2] == "| "]
    return {title: tuple(notes.get(cell.removeprefix("note "), "") for cell in cells) for title, *cells in rows[1:]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the cells, and print or write their table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="WORD",
        help="only rows whose titles have one of these words; others stay as they are",
    )
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help=f"write between the marks <!-- {MARK} --> of this page"
    )
    options = parser.parse_args(arguments)
    chosen = [row for row in ENVIRONMENTS if not options.rows or any(word in row.title for word in options.rows)]
    # Another program may have the machine.
    main_server.PATIENCE_S = 900.0
    own = [str(ROOT / "src" / "kd_marl" / "inspection" / "own_environment"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, own))
    rows = {} if options.write is None else read(options.write.read_text(encoding="utf-8"))
    titles, faults = [row.title for row in ENVIRONMENTS], 0
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(MainServer(Path(folder))) as server:
        for number, environment in enumerate(chosen):
            place = Path(folder) / str(number)
            place.mkdir()
            notes = []
            for column, (note, fault) in zip(COLUMNS, Row(server, environment, place).cells(), strict=True):
                notes.append(note or (fault and "a fault: see the command's output"))
                faults += bool(fault)
                print(f"{environment.title}, {column}: {fault or note or RUNS}", file=sys.stderr, flush=True)
            rows[environment.title] = tuple(notes)
            rows = {title: rows[title] for title in dict.fromkeys([*titles, *rows]) if title in rows}
            if options.write:
                page = options.write.read_text(encoding="utf-8")
                options.write.write_text(written(page, table(rows), MARK), encoding="utf-8")
    if options.write is None:
        print(table(rows))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
