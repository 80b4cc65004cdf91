"""The work of `kd-marl dashboard`: a source, a server, and a line that says where the page is."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Any

import uvicorn

from kd_core.errors import UserError
from kd_marl.dashboard.folder import FolderSource
from kd_marl.dashboard.server import Watcher, application
from kd_marl.dashboard.source import Source
from kd_marl.tracking import destination
from kd_marl.work import Work

HOST = "127.0.0.1"


def dashboard(args: argparse.Namespace) -> int:
    """Serve the page until it is stopped; returns the exit status."""
    source = _source(args)
    watcher = Watcher(source, _suites(args, source))
    with _listening(args.port) as listener:
        address = f"http://{HOST}:{listener.getsockname()[1]}/"
        watcher.start()
        config = uvicorn.Config(
            application(watcher), log_level="warning", access_log=False, server_header=False, lifespan="off"
        )
        server = _Server(config, address, args.open if args.open is not None else _has_screen())
        print(f"{source.title}\n{address}  (Ctrl-C ends it)", flush=True)
        # The server ends its answers first, and then raises the signal again.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
        watcher.stop()
    return 0


class _Server(uvicorn.Server):
    """A server that opens the page in a browser once it answers."""

    def __init__(self, config: uvicorn.Config, address: str, opens: bool) -> None:
        super().__init__(config)
        self._address, self._opens = address, opens

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._opens:
            threading.Thread(target=webbrowser.open, args=(self._address,), daemon=True).start()


def _source(args: argparse.Namespace) -> Source:
    if args.mongo is None and args.db is None:
        return FolderSource(args.results or Path("results"))
    if args.results is not None:
        raise UserError(f"give a results folder or a database, not both: leave out {args.results}, or --mongo and --db")
    if args.mongo is None:
        raise UserError(
            "--db names a database of a server: give --mongo URL too, or --mongo alone with the URL in "
            f"{destination.URL_VARIABLE}"
        )
    database = destination.find(args.mongo, args.db or "kd_marl", "--mongo", "--db")
    source: Any = Work("kd_marl.dashboard.mongo:MongoSource", extra="track").load()
    return source(database)


def _suites(args: argparse.Namespace, source: Source) -> Any:
    """Return what makes the suites' view; None where there are no suites."""
    if not isinstance(source, FolderSource):
        if args.suite:
            raise UserError("--suite is for a results folder: a database has no suites")
        return None
    files = args.suite or sorted(Path("suites").glob("*.yaml"))
    for file in args.suite or []:
        if not file.is_file():
            raise UserError(f"there is no file {file}: give a suite, for example suites/smoke.yaml")
    if not files:
        return None
    root = source.root
    return lambda: Work("kd_marl.dashboard.suites:Suites").load()(files, root, bool(args.suite))


def _listening(port: int) -> socket.socket:
    """Return a socket that listens on loopback.

    Raises:
        UserError: the port is taken, or is none.
    """
    if not 0 <= port < 1 << 16:
        raise UserError(f"--port is {port}: give a number from 0 (any free one) to 65535")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        # From now on a browser waits for its answer, however long the server takes to begin.
        listener.listen()
    except OSError as error:
        listener.close()
        raise UserError(
            f"port {port} of this machine cannot be used ({error.strerror}): give another, such as "
            f"--port {port + 1 if port < (1 << 16) - 1 else port - 1}, or --port 0 for any free one"
        ) from None
    return listener


def _has_screen() -> bool:
    """Tell whether somebody sits before this machine: at a terminal, with a screen, not over SSH."""
    screen = sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return screen and sys.stdout.isatty() and "SSH_CONNECTION" not in os.environ
