"""`kd-marl track push`: what runs left in files, into a database."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bson.errors import BSONError
from pymongo.errors import PyMongoError
from tqdm import tqdm

from kd_core import files, progress
from kd_core.errors import UserError
from kd_marl.runs import lineage, search
from kd_marl.tracking.database import Database, reason
from kd_marl.tracking.destination import find
from kd_marl.tracking.documents import RunFiles

# Seconds that the server has for one answer.
PATIENCE_S = 30.0


def push(args: argparse.Namespace) -> int:
    """Bring the documents of all runs in some folders up to their files.

    Returns:
        0; 1 if a run could not be read.

    Raises:
        UserError: there is no run, no server, or the server gave up on the way.
    """
    destination = find(args.url, args.db, "--url", "--db")
    folders = sorted(search.run_folders(args.results), key=_order)
    sent = there = alive = faults = 0
    bar = progress.bar("Sending", len(folders), "run")
    with destination.connect(PATIENCE_S) as client, bar:
        database = Database(client[destination.database])
        for folder in folders:
            try:
                run = RunFiles(folder)
                if run.is_alive:
                    alive += 1
                elif database.bring_up(run):
                    sent += 1
                else:
                    there += 1
            except (AttributeError, BSONError, KeyError, OSError, OverflowError, TypeError, ValueError) as error:
                faults += 1
                known = isinstance(error, UserError)
                text = str(error) if known else f"{folder} is damaged ({type(error).__name__}: {str(error)[:200]})"
                tqdm.write(f"error: {text}", file=sys.stderr)
            except (KeyboardInterrupt, PyMongoError) as error:
                why = reason(error) if isinstance(error, PyMongoError) else "stopped"
                done = f"{sent + there} of {len(folders)} runs are in {destination.database}"
                raise UserError(f"{destination.server}: {why}; {done}: repeat the command to go on") from None
            bar.update()
    parts = [f"{sent} sent", f"{there} there already"]
    parts += [f"{alive} still running, which send themselves"] * bool(alive)
    parts += [f"{faults} that cannot be read"] * bool(faults)
    print(f"{destination.database} on {destination.server}: {', '.join(parts)}")
    return 1 if faults else 0


def _order(folder: Path) -> tuple[int, str]:
    """Sort by stage, then by start: a run's parents come first, so that it finds their numbers."""
    try:
        account, config = (files.read_json(folder / name) for name in ("run.json", "config.json"))
    except UserError:
        # Said when its turn comes.
        return 0, ""
    return lineage.ORDER.index(lineage.stage(config)), str(account.get("start_time", ""))
