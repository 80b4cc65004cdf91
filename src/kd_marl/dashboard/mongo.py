"""Runs of a MongoDB database: the documents of Sacred's MongoObserver, and of `kd-marl track push`.

Nothing is written. The first look reads a few fields of every document, later ones those that run or have a new
heartbeat, and now and then which documents there are.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from pymongo.errors import OperationFailure, PyMongoError

from kd_marl.dashboard import inside
from kd_marl.dashboard.folder import SUMMARY, curves_of
from kd_marl.dashboard.inside import UnreadableError
from kd_marl.dashboard.liveness import Liveness
from kd_marl.dashboard.rows import RETURNS, WINS, Facts, Progress, mapping, number, progress, row, text
from kd_marl.dashboard.source import Curve, Details, SourceError, Store
from kd_marl.tracking.destination import Destination

_PATIENCE_S = 10.0
_CONFIG = ("name", "learner", "map_name", "env", "limits", "masks", "seed", "t_max", "command")
_SHOWN = dict.fromkeys(
    (
        *("status", "heartbeat", "start_time", "stop_time", "host.hostname", "fail_trace", "info.result"),
        *(f"config.{key}" for key in _CONFIG),
    ),
    1,
)
# Metrics whose last point stands in the table.
_LAST = (*RETURNS, *WINS, "ep_length_mean")
# How often all numbers of documents are read, to find new and deleted ones; a look is a second.
_EVERY = 10
# Heartbeats are told by the runs' own clocks.
_SLACK = timedelta(seconds=60)
_AT_ONCE = 500
_MOST_SUMMARY, _MOST_OUTPUT, _REMEMBERED = 4 << 20, 64 << 10, 100


class MongoSource:
    """The runs of a database.

    Attributes:
        title: the server and the database, without a password.
        store: its rows.
    """

    def __init__(self, destination: Destination) -> None:
        """Take a database; nothing is asked of the server yet.

        Raises:
            UserError: its URL is none.
        """
        database = destination.connect(_PATIENCE_S)[destination.database]
        self.title, self.store = f"{destination.server}/{destination.database}", Store()
        self._runs, self._metrics = database["runs"], database["metrics"]
        self._files, self._chunks = database["fs.files"], database["fs.chunks"]
        self._liveness, self._looks = Liveness(), 0
        self._ids: dict[str, Any] = {}
        self._running: dict[str, Any] = {}
        self._versions: dict[str, str] = {}
        self._progress: dict[str, Progress] = {}
        self._newest: datetime | None = None
        self._curves: OrderedDict[str, tuple[str, dict[str, Curve]]] = OrderedDict()
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Look for what has changed."""
        with _answered():
            if self.store.loading is not None:
                self._take(self._runs.find({}, _SHOWN))
                self.store.loading = None
            else:
                # Those that ran at the last look may have ended by a clock behind the newest heartbeat's.
                changing: list[dict[str, Any]] = [{"status": "RUNNING"}, {"_id": {"$in": list(self._running.values())}}]
                if self._newest is not None:
                    changing.append({"heartbeat": {"$gte": self._newest - _SLACK}})
                self._take(self._runs.find({"$or": changing}, _SHOWN))
                if self._looks % _EVERY == 0:
                    self._compare()
        self._looks += 1

    def details(self, key: str) -> Details:
        """Read one run."""
        with _answered():
            document = self._runs.find_one({"_id": self._ids[key]})
            if document is None:
                raise KeyError(key)
            summary, faults = self._summary(document)
        output = document.get("captured_out")
        lineage = mapping(mapping(document.get("info")).get("lineage"))
        facts = Facts(mapping(document.get("config")), document, summary, faults, lineage)
        return Details(facts, f"{self.title}, run {key}", output[-_MOST_OUTPUT:] if isinstance(output, str) else "")

    def curves_version(self, key: str) -> str:
        """Name the state of a run's metrics, which are written with its heartbeats."""
        return self._versions[key]

    def curves(self, key: str) -> Mapping[str, Curve]:
        """Read a run's metrics."""
        version = self._versions[key]
        with self._lock:
            known = self._curves.get(key)
        if known is not None and known[0] == version:
            return known[1]
        with _answered():
            documents = list(self._metrics.find({"run_id": self._ids[key]}, {"name": 1, "steps": 1, "values": 1}))
        curves = _joined(documents)
        with self._lock:
            self._curves[key] = (version, curves)
            self._curves.move_to_end(key)
            while len(self._curves) > _REMEMBERED:
                self._curves.popitem(last=False)
        return curves

    def _take(self, documents: Any) -> None:
        """Make rows of documents, those whose result is not said in them with their last points."""
        batch: list[dict[str, Any]] = []
        for document in documents:
            batch.append(document)
            if len(batch) == _AT_ONCE:
                self._put(batch)
                batch = []
        self._put(batch)

    def _put(self, documents: Sequence[dict[str, Any]]) -> None:
        now, unknown = time.time(), {}
        for document in documents:
            key, beat = _key(document["_id"]), document.get("heartbeat")
            version = f"{beat} {document.get('status')}"
            if isinstance(beat, datetime) and (self._newest is None or beat > self._newest):
                self._newest = beat
            changed = self._versions.get(key) != version
            self._ids[key], self._versions[key] = document["_id"], version
            self._running.pop(key, None)
            if document.get("status") == "RUNNING":
                self._running[key] = document["_id"]
            if changed and not _result(document):
                unknown[key] = document["_id"]
        self._read_last(unknown)
        for document in documents:
            key = _key(document["_id"])
            facts = Facts(mapping(document.get("config")), document, _result(document))
            self.store.put(row(key, (), facts, self._progress.get(key, Progress()), self._liveness, now))
        if self.store.loading is not None:
            self.store.loading += len(documents)

    def _read_last(self, ids: Mapping[str, Any]) -> None:
        """Read the last points of some runs."""
        if not ids:
            return
        asked = {"run_id": {"$in": list(ids.values())}, "name": {"$in": list(_LAST)}}
        fields = {"run_id": 1, "name": 1, "steps": {"$slice": -1}, "values": {"$slice": -1}}
        found: dict[str, dict[str, tuple[Any, Any]]] = defaultdict(dict)
        for document in self._metrics.find(asked, fields):
            steps, values = document.get("steps"), document.get("values")
            if isinstance(steps, list) and isinstance(values, list) and steps and values:
                found[_key(document["run_id"])][text(document.get("name"))] = (steps[-1], values[-1])
        for key, last in found.items():
            self._progress[key] = progress(last)

    def _compare(self) -> None:
        """Read the documents that are new, and forget those that are gone."""
        there = {_key(document["_id"]): document["_id"] for document in self._runs.find({}, {"_id": 1})}
        new = [identity for key, identity in there.items() if key not in self._ids]
        for start in range(0, len(new), _AT_ONCE):
            self._take(self._runs.find({"_id": {"$in": new[start : start + _AT_ONCE]}}, _SHOWN))
        for key in self._ids.keys() - there.keys():
            for known in (self._ids, self._running, self._versions, self._progress):
                known.pop(key, None)
            self.store.drop(key)

    def _summary(self, document: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        """Read the ``summary.json`` that is attached to a run; returns it and what is wrong with it."""
        attached = document.get("artifacts")
        named = (
            [entry for entry in attached if mapping(entry).get("name") == SUMMARY] if isinstance(attached, list) else []
        )
        if not named:
            return {}, ()
        file = named[-1].get("file_id")
        about = self._files.find_one({"_id": {"$eq": file}}, {"length": 1})
        if about is None or not 0 <= (number(about.get("length")) or 0) <= _MOST_SUMMARY:
            return {}, (f"{SUMMARY} is missing or too large",)
        content = bytearray()
        for chunk in self._chunks.find({"files_id": {"$eq": file}}, {"data": 1}).sort("n", 1):
            data = chunk.get("data")
            content += data if isinstance(data, bytes) else b""
            if len(content) > _MOST_SUMMARY:
                break
        try:
            return inside.parse(bytes(content), SUMMARY), ()
        except UnreadableError as fault:
            return {}, (str(fault),)


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except OperationFailure as error:
        if error.code in (13, 18):
            raise SourceError("the database refuses the user or the password: correct KD_MARL_MONGO_URL") from None
        raise SourceError(f"the database refuses to answer (code {error.code}); asking again") from None
    except PyMongoError as error:
        # Never the whole message: it may hold the address with its password.
        raise SourceError(f"the database does not answer ({type(error).__name__}); asking again") from None


def _key(identity: Any) -> str:
    """Name a document: Sacred numbers them, but an id may be anything."""
    return str(identity) if isinstance(identity, int) else repr(identity)


def _result(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a document's own fields say of its result, in the form of a summary."""
    found = mapping(mapping(document.get("info")).get("result"))
    return {"policy": found, "retention": found.get("retention")} if found else {}


def _joined(documents: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """Make curves of metric documents; one too long for a document goes on in ``name (2)``."""
    parts: dict[str, dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for document in documents:
        found = re.fullmatch(r"(.+?)(?: \((\d{1,4})\))?", text(document.get("name")))
        if found:
            parts[found[1]][int(found[2] or 1)] = document
    whole: dict[str, Curve] = {}
    for name, numbered in parts.items():
        curves = [curves_of({name: dict(numbered[part])}).get(name) for part in sorted(numbered)]
        present = [curve for curve in curves if curve is not None]
        if present:
            whole[name] = ([s for steps, _ in present for s in steps], [v for _, values in present for v in values])
    return whole
