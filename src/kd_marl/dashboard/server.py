"""The page and its data over HTTP: loopback only, reading only, nothing from elsewhere."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import plotly
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from kd_marl.dashboard import shown
from kd_marl.dashboard.query import Query
from kd_marl.dashboard.source import Source, SourceError
from kd_marl.work import Work

PAGE_FOLDER = Path(__file__).with_name("page")
PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
# The page's own address under the names that a browser on this machine may give it: a page of another name that
# resolves to loopback (DNS rebinding) gets nothing.
HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
MOST_RUNS, MOST_METRICS = 60, 12
# Imports NumPy, SciPy and PyTorch, which the table does not wait for.
DRAWN = Work("kd_marl.dashboard.drawn:drawn")
# How often the source is looked at, and the suites, which take longer.
_LOOK_S, _SUITES_S = 1.0, 10.0

_log = logging.getLogger(__name__)

_HEADERS = {
    "Content-Security-Policy": (
        # Plotly's own styles for maps are refused too; no map is drawn.
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Watcher:
    """Looks at the source again and again, in a thread of its own.

    Attributes:
        source: what it looks at.
        suites: how far the suites are; None before the first look, or where there are none.
    """

    def __init__(self, source: Source, suites: Callable[[], Any] | None = None) -> None:
        """Take a source, and what makes a `kd_marl.dashboard.suites.Suites` once somebody needs it."""
        self.source, self.suites = source, None
        self._make_suites, self._stop = suites, threading.Event()
        self._threads = [threading.Thread(target=self._look, daemon=True)]
        if suites is not None:
            self._threads.append(threading.Thread(target=self._look_at_suites, daemon=True))

    def start(self) -> None:
        """Begin to look."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def _look(self) -> None:
        self._again(self.source.refresh, _LOOK_S)

    def _look_at_suites(self) -> None:
        # Loads PyTorch, which stops everything else for a moment: the table comes first.
        while self.source.store.loading is not None and not self._stop.wait(0.1):
            pass
        if self._stop.is_set() or self._make_suites is None:
            return
        suites = self._make_suites()

        def look() -> None:
            self.suites = suites.standings()

        self._again(look, _SUITES_S)

    def _again(self, look: Callable[[], None], pause: float) -> None:
        """Look until told to stop; the page says why it cannot."""
        store, trouble = self.source.store, ""
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                look()
                said = ""
            except SourceError as error:
                said = str(error)
            except Exception as error:
                # A fault of ours; what is known is shown all the same, and the next look may go well.
                said = f"the runs could not be read again ({type(error).__name__}: {error})"
                if said != trouble:
                    _log.exception("a look at the runs failed")
            if said != trouble:
                store.trouble = trouble = said
            # A large folder takes its time: half of it is left to the page.
            self._stop.wait(max(pause, time.monotonic() - begun))


def application(watcher: Watcher) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Build the ASGI application: the page, its data, and the headers of every answer."""
    source = watcher.source

    def runs(request: Request) -> Response:
        store = source.store
        version = _digest(store.version, watcher.suites, str(request.query_params))
        if _known(request, version):
            return _unchanged(version)
        page = Query.read(request.query_params).page(store.rows())
        about = {"title": source.title, "loading": store.loading, "trouble": store.trouble, "suites": watcher.suites}
        return _json({**page, **about}, version)

    def run(request: Request) -> Response:
        key = request.query_params.get("key", "")
        try:
            row, details = source.store.row(key), source.details(key)
        except KeyError:
            return _json({"error": "there is no such run, or it is gone"}, status=404)
        facts = details.facts
        answer = {
            "row": asdict(row),
            "place": details.place,
            "faults": facts.faults,
            "command": shown.repeating_command(facts),
            "masks": shown.masks_command(facts),
            "times": shown.times(facts.account),
            "machine": shown.machine(facts.account),
            "result": shown.result(facts.summary),
            "sight": shown.sight(facts.summary),
            "settings": shown.settings(facts.config),
            "output": details.output,
        }
        version = _digest(json.dumps(_clean(answer), default=str))
        return _unchanged(version) if _known(request, version) else _json(answer, version)

    def curves(request: Request) -> Response:
        keys = list(dict.fromkeys(request.query_params.getlist("run")))[:MOST_RUNS]
        metrics = list(dict.fromkeys(request.query_params.getlist("metric")))[:MOST_METRICS]
        rows = []
        for key in keys:
            try:
                rows.append((source.store.row(key), source.curves_version(key)))
            except KeyError:
                continue
        version = _digest(str(request.query_params), [(row.key, state) for row, state in rows])
        if _known(request, version):
            return _unchanged(version)
        drawn = DRAWN.load()
        return _json(drawn(source, [row for row, _ in rows], metrics, request.query_params.get("mean") == "1"), version)

    def unanswered(request: Request, error: Exception) -> Response:
        return _json({"error": str(error)}, status=503)

    async def page(request: Request) -> Response:
        return FileResponse(PAGE_FOLDER / "index.html", headers={"Content-Type": "text/html; charset=utf-8"})

    def served(path: Path, kind: str) -> Callable[[Request], Awaitable[Response]]:
        async def file(request: Request) -> Response:
            return FileResponse(path, media_type=kind)

        return file

    return _Guard(
        Starlette(
            routes=[
                Route("/", page, methods=["GET"]),
                Route("/page.js", served(PAGE_FOLDER / "page.js", "text/javascript"), methods=["GET"]),
                Route("/page.css", served(PAGE_FOLDER / "page.css", "text/css"), methods=["GET"]),
                Route("/icon.svg", served(PAGE_FOLDER / "icon.svg", "image/svg+xml"), methods=["GET"]),
                Route("/plotly.js", served(PLOTLY, "text/javascript"), methods=["GET"]),
                Route("/api/runs", runs, methods=["GET"]),
                Route("/api/run", run, methods=["GET"]),
                Route("/api/curves", curves, methods=["GET"]),
            ],
            exception_handlers={SourceError: unanswered},
        )
    )


class _Guard:
    """Lets reading requests to this machine's own names through, and gives every answer its headers."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower().encode(): value.encode() for name, value in _HEADERS.items()}
                message["headers"] = [(n, v) for n, v in message["headers"] if n.lower() not in own] + list(own.items())
            await send(message)

        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        app: Any = self._app
        if len(hosts) != 1 or _name(hosts[0]) not in HOSTS:
            app = PlainTextResponse("this page is served to 127.0.0.1 and localhost only\n", 403)
        elif scope["method"] not in ("GET", "HEAD"):
            app = PlainTextResponse("this page only reads\n", 405, {"Allow": "GET, HEAD"})
        await app(scope, receive, with_headers)


def _name(host: str) -> str:
    """Return a Host header's name without its port."""
    name, colon, port = host.rpartition(":")
    return name.lower() if colon and port.isdecimal() else host.lower()


def _digest(*parts: Any) -> str:
    return '"' + hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()[:24] + '"'


def _known(request: Request, version: str) -> bool:
    return request.headers.get("if-none-match") == version


def _unchanged(version: str) -> Response:
    return Response(status_code=304, headers={"ETag": version})


def _json(value: Any, version: str = "", status: int = 200) -> Response:
    # ASCII: half of a surrogate pair, which a name may have, is no UTF-8.
    body = json.dumps(_clean(value), allow_nan=False, default=str).encode("ascii")
    return Response(body, status, {"ETag": version} if version else {}, "application/json")


def _clean(value: Any) -> Any:
    """Replace what JSON does not have: not-a-number and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _clean(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_clean(part) for part in value]
    return value
