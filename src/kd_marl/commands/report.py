"""`kd-marl report`: the paper's tables and figures from finished runs."""

from __future__ import annotations

from pathlib import Path

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work


def add(subparsers: Subparsers) -> None:
    """Adds `report`."""
    parser = add_parser(
        subparsers,
        "report",
        "Write the paper's tables and figures from finished runs, the paper's numbers beside ours: one HTML page that "
        "needs nothing else, and the same as Markdown with its figures.",
        "kd-marl report results --to report\n"
        "  kd-marl report results/mpe results/smax --to docs/report --records docs/report/records",
    )
    parser.add_argument(
        "results", nargs="+", type=Path, metavar="RESULTS", help="results folders, searched for Sacred's run folders"
    )
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="folder for report.html, report.md and its figures"
    )
    parser.add_argument(
        "--records",
        type=Path,
        metavar="DIR",
        help="folder for a copy of the records that the page is made from, without the machine's names and paths "
        "that Sacred notes: reports can be made from it again when the results are gone",
    )
    parser.set_defaults(run=Work("kd_marl.report.command:report", extra="report"))
