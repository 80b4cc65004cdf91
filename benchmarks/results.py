"""Writes docs/results.md, its figures and the README's tables from the finished runs of two suites.

    kd-marl suite run suites/results_smax.yaml --to results/smax    # makes what is missing; stop it at any time
    kd-marl suite run suites/results_mpe.yaml --to results/mpe
    python benchmarks/results.py                                    # writes the pages
    python benchmarks/results.py --family smax                      # the StarCraft maps' section and table alone

A run counts if it is what its suite asks for today: one made with other settings, or with another teacher, does not.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# So that the script also runs where the project is not installed; sacred's import warns about setuptools.
sys.path.insert(0, str(ROOT / "src"))
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")

import results_page  # noqa: E402
from results_families import FAMILIES  # noqa: E402
from results_grid import Grid  # noqa: E402

from kd_core.errors import UserError  # noqa: E402


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", nargs="+", choices=list(FAMILIES), default=list(FAMILIES), help="all unless given")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the runs, one in it a family")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of results.md and its figures")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    arguments = _parser().parse_args(words)
    try:
        grids = [Grid(FAMILIES[name], arguments.results / name) for name in FAMILIES if name in arguments.family]
        results_page.write(grids, arguments.docs)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
