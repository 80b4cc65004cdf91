"""What all benchmarks share: the command, the machine's description, medians with their spread, tables and JSON."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
ROOT = BENCHMARKS.parent
# No torch here: its pages would be shared with the watched processes, and PSS divides a page among all that share it.
sys.path[:0] = [str(BENCHMARKS), str(ROOT / "src")]

import numpy as np  # noqa: E402

from kd_core.errors import UserError  # noqa: E402
from kd_core.versions import installed_version, source_commit  # noqa: E402
from kd_marl.deploy import latency  # noqa: E402
from kd_marl.report import markdown  # noqa: E402


def options(description: str | None) -> argparse.ArgumentParser:
    """Make a parser that shows a benchmark's docstring and has ``--json``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    return parser


def command(
    parser: argparse.ArgumentParser,
    words: Sequence[str] | None,
    measure: Callable[[argparse.Namespace], Iterable[Mapping[str, Any]]],
    text: Callable[[Mapping[str, Any]], str],
) -> int:
    """Measure, print the tables and write the JSON; return the exit status.

    Args:
        parser: from `options`.
        words: the command line; None for the program's own.
        measure: yields the result part by part; each is written as soon as it is there.
        text: the whole result as Markdown.
    """
    args = parser.parse_args(words)
    if args.json is not None and not args.json.absolute().parent.is_dir():
        parser.error(f"--json {args.json}: there is no folder {args.json.parent}: make it first")
    # A terminal's Ctrl-C and a batch system's SIGTERM end what was started alike.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    facts = machine(sys.argv)
    result: dict[str, Any] = {"machine": facts}
    if facts["load_before"] >= 0.5:
        load = f"warning: the load was {facts['load_before']} before the start"
        print(f"{load}: other programs make these figures worthless", file=sys.stderr)
    try:
        for part in measure(args):
            result.update(part)
            if args.json is not None:
                _write(args.json, result)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    versions = ", ".join(f"{name} {facts[name]}" for name in ("torch", "jax", "jaxmarl") if facts[name])
    print(
        f"\n{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB, Python {facts['python']}, "
        f"{versions}, commit {facts['commit']}, load before {facts['load_before']}; `{facts['command']}`\n"
    )
    print(text(result))
    return 0


def _write(path: Path, result: Mapping[str, Any]) -> None:
    """Write the whole result or nothing; `kd_core.files` would load torch."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)


def spread(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Compute the median, the quartiles ``low`` and ``high``, and the extremes ``min`` and ``max``."""
    ends = np.percentile(values, [0, 25, 50, 75, 100])
    return dict(zip(("min", "low", "median", "high", "max"), map(float, ends), strict=True))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write parts of a result, all with the same keys, as a Markdown table; a spread as median (low to high)."""
    return markdown.table(list(rows[0]), [[cell(value) for value in row.values()] for row in rows])


def cell(value: Any) -> str:
    """Write a value of a result; of a spread the median with its quartiles in brackets."""
    if isinstance(value, Mapping):
        return f"{cell(value['median'])} ({cell(value['low'])} to {cell(value['high'])})"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return "-" if value is None else str(value)


def machine(arguments: Sequence[str]) -> dict[str, Any]:
    """Describe what the figures were measured on, and the command that measured them."""
    return {
        **latency.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        **{name: installed_version(name) for name in ("torch", "jax", "jaxmarl", "numpy")},
        "commit": source_commit(),
        "load_before": round(os.getloadavg()[0], 2),
        "command": " ".join(["python", *arguments]),
    }
