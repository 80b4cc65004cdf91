"""Which of EPyMARL's algorithms run where: each on both hosts, under each kind of limits, at tiny size.

    EPYMARL_HOME=~/epymarl python tools/hosts/table.py --write docs/reference/algorithms.md      # about ten minutes

Each cell is one run of `src/main.py`, from its start to its end. A run that ends well, or is refused in one line, is a
cell; anything else is a fault, is shown, and makes the command end with exit status 1.

`--cells FILE` notes each cell as it is played. The same command then plays only those that FILE lacks.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "helpers"))

import main_server
from main_server import MainServer

TASK = "pz-mpe-simple-speaker-listener-v4"
ON_POLICY = ("coma", "ia2c", "ippo", "maa2c", "mappo")
ALGORITHMS = tuple(
    f"{name}{suffix}"
    for name in ("iql", "vdn", "qmix", "ippo", "mappo", "ia2c", "maa2c", "coma", "maddpg", "pac", "pac_dcg")
    for suffix in ("", "_ns")
    if not name.startswith("pac") or suffix
)
HOSTS = ("bundled", "checkout")
LIMITS = ("fo", "lh", "lha")
MARK = "algorithms"
# What marks a cell that ran.
RUNS = "yes"


@dataclass(frozen=True)
class Cell:
    """One algorithm on one host under one kind of limits, and how its run ended: a refusal, a fault, or neither."""

    algorithm: str
    host: str
    limits: str
    refusal: str = ""
    fault: str = ""


def command(algorithm: str, limits: str, results: str) -> list[str]:
    """Write the words of a tiny run after ``src/main.py``: it learns twice, and is evaluated."""
    block = 2 if algorithm.removesuffix("_ns") in ON_POLICY else 1
    sizes = ["t_max=60", "buffer_size=2", "batch_size=2", "test_nepisode=1", "test_interval=100000"]
    own = [f"env_args.key={TASK}", f"batch_size_run={block}", "use_cuda=False", "hidden_dim=8", "seed=1", *sizes]
    evaluated = ["final_evaluation=True", "eval_episodes=2"]
    words = [*own, *evaluated, f"limits={limits}", f"local_results_path={results}"]
    return [
        f"--config={algorithm}",
        "--env-config=mpe",
        "with",
        f"runner={'parallel' if block > 1 else 'episode'}",
        *words,
    ]


def played(server: MainServer, algorithm: str, host: str, limits: str) -> Cell:
    """Run one cell."""
    environment = {"EPYMARL_HOME": os.environ["EPYMARL_HOME"]} if host == "checkout" else {}
    with tempfile.TemporaryDirectory() as results:
        done = server.run(*command(algorithm, limits, results), env=environment)
    if done.status == 0:
        return Cell(algorithm, host, limits)
    try:
        return Cell(algorithm, host, limits, refusal=done.error)
    except AssertionError:
        return Cell(algorithm, host, limits, fault=(done.out + done.err)[-2000:])


def noted(file: Path | None) -> dict[tuple[str, str, str], Cell]:
    """Read the cells that an earlier command has played; those that ended in a fault are played again."""
    lines = file.read_text(encoding="utf-8").splitlines() if file is not None and file.is_file() else []
    # A kill can cut the last line short.
    cells = [Cell(**json.loads(line)) for line in lines if line.endswith("}")]
    return {(cell.algorithm, cell.host, cell.limits): cell for cell in cells if not cell.fault}


def table(cells: Sequence[Cell]) -> str:
    """Write the cells as a table with the refusals below it."""
    notes: dict[str, int] = {}
    rows = [
        "| algorithm | " + " | ".join(f"{host}, `{limits}`" for host in HOSTS for limits in LIMITS) + " |",
        "|---" * (1 + len(HOSTS) * len(LIMITS)) + "|",
    ]
    found = {(cell.algorithm, cell.host, cell.limits): cell for cell in cells}
    for algorithm in dict.fromkeys(cell.algorithm for cell in cells):
        words = [f"`{algorithm}`"]
        for host in HOSTS:
            for limits in LIMITS:
                cell = found.get((algorithm, host, limits))
                refusal = "" if cell is None else cell.refusal.replace(f"--config={algorithm}", "--config=NAME")
                words.append(
                    "" if cell is None else f"note {notes.setdefault(refusal, len(notes) + 1)}" if refusal else RUNS
                )
        rows.append("| " + " | ".join(words) + " |")
    said = [f"{number}. `{refusal}`" for refusal, number in notes.items()]
    return "\n".join([*rows, "", *said])


def written(page: str, block: str, mark: str) -> str:
    """Put the table between a page's two marks, ``<!-- mark -->`` and ``<!-- /mark -->``."""
    first, last = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    before, _, rest = page.partition(first)
    _, end, after = rest.partition(last)
    if not end:
        raise SystemExit(f"error: the page has no {first} ... {last} to write between")
    return f"{before}{first}\n{block}\n{last}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cells, and print or write their table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", default=ALGORITHMS, help="only these rows")
    parser.add_argument("--hosts", nargs="+", choices=HOSTS, default=HOSTS, help="only these columns")
    parser.add_argument("--limits", nargs="+", choices=LIMITS, default=LIMITS, help="only these columns")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help=f"write between the marks <!-- {MARK} --> of this page"
    )
    parser.add_argument("--cells", type=Path, metavar="FILE", help="note cells here, and take those that are noted")
    options = parser.parse_args(arguments)
    if "checkout" in options.hosts and not os.environ.get("EPYMARL_HOME"):
        parser.error("the checkout's columns need EPYMARL_HOME=/path/to/epymarl; --hosts bundled leaves them out")
    # Another program may have the machine.
    main_server.PATIENCE_S = 600.0
    cells, known = [], noted(options.cells)
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(MainServer(Path(folder))) as server:
        for place in itertools.product(options.algorithms, options.hosts, options.limits):
            cell = known.get(place) or played(server, *place)
            cells.append(cell)
            print(cell.fault or f"{' '.join(place)}: {cell.refusal or RUNS}", file=sys.stderr, flush=True)
            if options.cells is not None and place not in known:
                with options.cells.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(cell)) + "\n")
    block = table(cells)
    if options.write:
        options.write.write_text(written(options.write.read_text(encoding="utf-8"), block, MARK), encoding="utf-8")
    else:
        print(block)
    return 1 if any(cell.fault for cell in cells) else 0


if __name__ == "__main__":
    sys.exit(main())
