"""`kd-marl track`: runs in a MongoDB database, which Omniboard shows."""

from __future__ import annotations

from pathlib import Path

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work


def add(subparsers: Subparsers) -> None:
    """Adds `track push`."""
    parser = add_parser(
        subparsers, "track", "Send runs to a MongoDB database.", "kd-marl track push results --url localhost:27017"
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    push = add_parser(
        actions,
        "push",
        "Send finished, interrupted and failed runs to a MongoDB database, each once: what is there already stays, "
        "what an interruption left out is added. Omniboard shows it.",
        "kd-marl track push results --url localhost:27017\n"
        "  KD_MARL_MONGO_URL=mongodb://me:secret@example.org kd-marl track push results/mpe results/smax --db thesis",
    )
    push.add_argument(
        "results", nargs="+", type=Path, metavar="RESULTS", help="results folders, searched for Sacred's run folders"
    )
    push.add_argument(
        "--url",
        default="",
        metavar="URL",
        help="the server: mongodb://HOST:PORT, HOST:PORT, or a file of mode 0600 that holds the URL; the environment's "
        "KD_MARL_MONGO_URL without it. A password may stand in the file and the environment only",
    )
    push.add_argument("--db", default="kd_marl", metavar="DB", help="the database (kd_marl)")
    push.set_defaults(run=Work("kd_marl.tracking.push:push", extra="track"))
