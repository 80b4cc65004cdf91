"""Open Omniboard on the runs of a database: ``make omniboard``, or by hand after that has installed it.

The server is the one that ``--url`` or KD_MARL_MONGO_URL names, as for ``kd-marl track push``. Where neither is given,
the tests' stand-in for MongoDB is started and filled with the runs under results/. Ctrl-C ends all of it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from kd_core.errors import UserError
from kd_marl.processes.process import start, stop
from kd_marl.tracking import destination

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
INSTALLED = ROOT / "build" / "omniboard"
STAND_IN = ROOT / "tests" / "helpers" / "wire_mongo.py"


@contextlib.contextmanager
def running(command: list[str], **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program whose output is read here, and which ends with this block."""
    process = start(command, subprocess.PIPE, variables=variables)
    try:
        yield process
    finally:
        stop([process])


@contextlib.contextmanager
def stand_in(results: Path, database: str) -> Iterator[str]:
    """Start the tests' server, fill it with the runs, and yield its address; exits where there are none."""
    with running([sys.executable, str(STAND_IN), "--port", "0"]) as server:
        assert server.stdout is not None
        url = f"mongodb://127.0.0.1:{int(server.stdout.readline())}"
        print("no server is named: this is the tests' stand-in, not MongoDB; what you change there is gone at the end")
        push = [sys.executable, "-m", "kd_marl.cli", "track", "push", str(results), "--url", url, "--db", database]
        # 1: some runs cannot be read, which was said; the others are there.
        if (status := subprocess.run(push).returncode) > 1:
            sys.exit(status)
        yield url


def of_database(url: str, name: str) -> str:
    """Return the address of one database on a server; where the user is known stays as it was."""
    parts = urlsplit(url)
    query = parts.query
    if "@" in parts.netloc and "authsource=" not in query.lower():
        query = f"{query}&authSource={parts.path.strip('/') or 'admin'}".lstrip("&")
    return urlunsplit(parts._replace(path=f"/{name}", query=query))


def show(url: str, port: int) -> None:
    """Run Omniboard until Ctrl-C; what it says goes to a log.

    Raises:
        UserError: it, or Node.js, is not installed, or it has ended by itself.
    """
    node, program, log = shutil.which("node"), INSTALLED / "node_modules/omniboard/dist/start.js", INSTALLED / "log"
    if node is None or not program.is_file():
        raise UserError("Omniboard is not installed: make omniboard")
    # The address may hold a password: in its environment, since everybody can read a command line.
    variables = {"MONGO_URI": url, "PORT": str(port)}
    with (
        open(log, "wb") as file,
        running([node, "--require", str(HERE / "loopback.cjs"), str(program)], **variables) as it,
    ):
        assert it.stdout is not None
        for line in it.stdout:
            file.write(line)
            file.flush()
            if line.startswith(b"Omniboard is at"):
                print(f"{line.decode().strip()} (Ctrl-C ends it; log: {log})", flush=True)
    raise UserError(f"Omniboard has ended; the end of {log} says why")


def main() -> int:
    """Open it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", nargs="?", type=Path, default=Path("results"), help="the runs for the stand-in")
    parser.add_argument("--url", default="", help="the server, or a file of mode 0600 that holds its URL")
    parser.add_argument("--db", default="kd_marl", help="the database (default: kd_marl)")
    parser.add_argument("--port", type=int, default=9000, help="of the page; 0: any that is free (default: 9000)")
    arguments = parser.parse_args()
    try:
        with contextlib.ExitStack() as stack:
            url = arguments.url
            if not url and not os.environ.get(destination.URL_VARIABLE):
                url = stack.enter_context(stand_in(arguments.results, arguments.db))
            server = destination.find(url, arguments.db, "--url", "--db")
            show(of_database(server.url, server.database), arguments.port)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
