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
        "needs nothing else, the same as Markdown with its figures, and the runs as marl-eval's JSON.",
        "kd-marl report results --to report\n"
        "  kd-marl report results/mpe results/smax --to report --keep evidence\n"
        "  kd-marl report evidence/*.json.xz --to report --site .",
    )
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULTS",
        help="results folders, searched for Sacred's run folders, and evidence files (*.json.xz)",
    )
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="folder for report.html, report.md and its figures"
    )
    parser.add_argument(
        "--keep",
        "--records",
        type=Path,
        metavar="DIR",
        help="folder for the evidence: one small file for each results folder, to which its runs are added, without "
        "the machine's names and paths that Sacred notes; every page can be made from it when the results are gone",
    )
    parser.add_argument(
        "--unpack",
        type=Path,
        metavar="DIR",
        help="folder for the runs of the evidence files as results folders again, so that a suite goes on from them",
    )
    parser.add_argument(
        "--site",
        type=Path,
        metavar="DIR",
        help="checkout whose docs/results.md, docs/figures and README block (between <!-- results:begin --> and "
        "<!-- results:end -->) are written too",
    )
    parser.set_defaults(run=Work("kd_marl.report.command:report", extra="report"))
