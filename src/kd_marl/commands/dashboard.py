"""`kd-marl dashboard`: a local page of all runs."""

from __future__ import annotations

from pathlib import Path

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work


def add(subparsers: Subparsers) -> None:
    """Adds `dashboard`."""
    parser = add_parser(
        subparsers,
        "dashboard",
        "Show all runs on a local page that needs no database and no network: their state, live curves, the mean over "
        "seeds, results, what each agent sees, and the command that repeats a run.",
        "kd-marl dashboard results\n"
        "  kd-marl dashboard results --suite suites/smoke.yaml --port 8300\n"
        "  kd-marl dashboard --mongo mongodb://127.0.0.1:27017 --db kd",
    )
    parser.add_argument(
        "results",
        nargs="?",
        type=Path,
        metavar="RESULTS",
        help="results folder, searched for Sacred's run folders (default: results)",
    )
    parser.add_argument(
        "--port", type=int, default=8350, help="port on 127.0.0.1, 0 for any free one (default: %(default)s)"
    )
    browser = parser.add_mutually_exclusive_group()
    browser.add_argument(
        "--open", action="store_true", default=None, help="open the page in a browser (default: where a screen is)"
    )
    browser.add_argument("--no-browser", action="store_false", dest="open", help="do not")
    parser.add_argument(
        "--suite",
        action="append",
        type=Path,
        metavar="FILE",
        help="also show how far this suite is; may be repeated (default: those of suites/ whose runs are here)",
    )
    parser.add_argument(
        "--mongo",
        nargs="?",
        const="",
        metavar="URL",
        help="read Sacred's documents in this MongoDB instead of a folder; without a URL the one in KD_MARL_MONGO_URL, "
        "which is where a URL with a password belongs",
    )
    parser.add_argument("--db", metavar="NAME", help="database in it (default: kd_marl)")
    parser.set_defaults(run=Work("kd_marl.dashboard.command:dashboard", extra="dashboard"))
