"""Brings a run's documents in a MongoDB database up to the state of its files.

Whoever does it again changes nothing, and whoever was interrupted goes on: ids are made of what they stand for, points
are appended only where as many stand before them as in the file, and the document's ``kd_marl.state`` is written last.
"""

from __future__ import annotations

import contextlib
import datetime
from typing import Any

import pymongo
from bson import ObjectId
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure, PyMongoError

from kd_core.errors import UserError
from kd_marl.tracking import documents
from kd_marl.tracking.documents import Attachment, RunFiles

# Bytes of a stored file that stand in one document: GridFS's own choice.
_CHUNK = 255 * 1024
_DUPLICATE = 11000
# Attempts at what another process may have changed in the meantime, and at a run's number.
_ATTEMPTS, _NUMBERS = 5, 1000
# Omniboard's columns beside those of the configuration, as the first run of a database sets them.
_COLUMNS = {
    "stage": "info.stage",
    "teacher run": "info.parents.teacher",
    "buffer run": "info.parents.buffer",
    "return": "info.result.return_mean",
    "win rate": "info.result.win_rate",
    "retention": "info.result.retention",
    "agreement": "info.result.agreement",
}


class Database:
    """A database of runs.

    Args:
        database: pymongo's.
    """

    def __init__(self, database: Any) -> None:
        self.runs, self.metrics = database["runs"], database["metrics"]
        self.files, self.chunks = database["fs.files"], database["fs.chunks"]
        self.columns = database["omniboard.custom.columns"]

    def bring_up(self, run: RunFiles) -> bool:
        """Bring a run's documents up to the state of its files.

        Returns:
            Whether there was anything to do.

        Raises:
            UserError: the files are damaged, or another process keeps changing the same documents.
            PyMongoError: the server is away, refuses, or takes too long.
        """
        state = "" if run.is_alive else run.state
        shown = {"kd_marl": 1, "heartbeat": 1, "info.parents": 1, "artifacts": 1}
        known = self.runs.find_one({"kd_marl.key": run.key}, shown) or self._begin(run)
        if _is_lesser_copy(run, known):
            return False
        parents = known.get("info", {}).get("parents") or {}
        found = {**self._parents(run, parents), **parents}
        if state and known["kd_marl"].get("state") == state and found == parents:
            return False
        number = known["_id"]
        self._append(number, run)
        fields, attachments = run.document()
        fields["info"]["parents"] = found
        fields["experiment"]["sources"] = [[file.name, self._store(file, file.name)] for file in run.sources]
        if state:
            fields["artifacts"] = [
                {"name": file.name, "file_id": self._store(file, f"artifact://runs/{number}/{file.name}")}
                for file in attachments
            ]
        facts = {"key": run.key, "state": state, "folder": str(run.folder.absolute()), **_made(run)}
        self.runs.update_one({"_id": number}, {"$set": {**fields, "kd_marl": facts}})
        if state:
            stored = {entry["file_id"] for entry in fields["artifacts"]}
            for entry in known.get("artifacts", []):
                if entry["file_id"] not in stored:
                    self._remove(entry["file_id"])
        return True

    def _begin(self, run: RunFiles) -> dict[str, Any]:
        """Insert a run's document with the next free number, and return it."""
        self._set_up()
        # Points without their run are of a document that somebody deleted: they are this run's again.
        curves = [curve.identity for curve in run.curves]
        first: dict[str, Any] = {
            "format": documents.FORMAT,
            "status": run.status,
            "start_time": run.started,
            "experiment": {"name": run.account.get("experiment", {}).get("name", "")},
            "host": {},
            "config": {},
            "info": {},
            "artifacts": [],
            "omniboard": {"tags": run.tags()},
            "kd_marl": {"key": run.key},
        }
        for _ in range(_NUMBERS):
            # Sacred's own --id makes numbers that are texts.
            last = self.runs.find_one({"_id": {"$gte": 0}}, {"_id": 1}, sort=[("_id", pymongo.DESCENDING)])
            number = int(last["_id"]) + 1 if last else 1
            try:
                self.runs.insert_one({"_id": number, **first})
            except DuplicateKeyError:
                # Another run took the number, or another process began this run.
                if (known := self.runs.find_one({"kd_marl.key": run.key})) is not None:
                    return known
            else:
                self.metrics.update_many({"_id": {"$in": curves}}, {"$set": {"run_id": number}})
                return {"_id": number, **first}
        raise UserError(f"no number for {run.folder}: other runs took {_NUMBERS} of them: try again")

    def _set_up(self) -> None:
        """Make the indexes, and in an empty database Omniboard's columns for what only our runs have."""
        if self.runs.find_one({}, {"_id": 1}) is None:
            for name, path in _COLUMNS.items():
                self.columns.update_one({"name": name}, {"$set": {"config_path": path}}, upsert=True)
        self.runs.create_index("kd_marl.key", unique=True, sparse=True)
        self.metrics.create_index("run_id")
        self.chunks.create_index([("files_id", 1), ("n", 1)], unique=True)

    def _append(self, number: int, run: RunFiles) -> None:
        """Append the points of the metrics that the database does not have yet."""
        for _ in range(_ATTEMPTS):
            stored = {entry["_id"]: entry["count"] for entry in self.metrics.find({"run_id": number}, {"count": 1})}
            todo: list[Any] = []
            for curve in run.curves:
                have = stored.get(curve.identity, 0)
                if have >= len(curve):
                    continue
                points, count = documents.points(curve, have), len(curve)
                if curve.identity not in stored:
                    facts = {"_id": curve.identity, "run_id": number, "name": curve.name, "count": count}
                    todo.append(pymongo.InsertOne({**facts, **points}))
                else:
                    push = {key: {"$each": more} for key, more in points.items()}
                    where = {"_id": curve.identity, "count": have}
                    todo.append(pymongo.UpdateOne(where, {"$push": push, "$set": {"count": count}}))
            if not todo:
                return
            try:
                done = self.metrics.bulk_write(todo, ordered=False)
                if done.matched_count + done.inserted_count == len(todo):
                    return
            except BulkWriteError as error:
                if any(fault["code"] != _DUPLICATE for fault in error.details["writeErrors"]):
                    raise
        raise UserError(f"another process sends {run.folder} at the same time: wait for it")

    def _parents(self, run: RunFiles, known: dict[str, int]) -> dict[str, int]:
        """Find the numbers of the runs that made a run's teacher and its buffer, if they are in the database."""
        teacher, buffer = run.lineage.get("teacher"), run.lineage.get("buffer")
        wanted = {}
        if teacher:
            wanted["teacher"] = {"kd_marl.model": teacher["sha256"]}
        if buffer and run.lineage["stage"] != "buffer":
            wanted["buffer"] = {"kd_marl.buffer": buffer}
        found = {}
        for name, query in wanted.items():
            if name not in known:
                # The first: whoever resumed or evaluated it has the same. It may have started later, as our own child.
                parent = self.runs.find_one(query, {"_id": 1}, sort=[("start_time", pymongo.ASCENDING)])
                if parent is not None:
                    found[name] = parent["_id"]
        return found

    def _store(self, file: Attachment, filename: str) -> ObjectId:
        """Store a file in GridFS, unless it is there whole, and return its id.

        The file's own document comes last. Two processes that store the same file write the same chunks.
        """
        identity = file.identity
        if self.files.find_one({"_id": identity}, {"_id": 1}) is not None:
            return identity
        facts = {"_id": identity, "filename": filename, "chunkSize": _CHUNK, "contentType": file.content_type}
        length = 0
        with contextlib.suppress(DuplicateKeyError):
            for n, (chunk, data) in enumerate(file.chunks(_CHUNK)):
                whole = {"files_id": identity, "n": n, "data": data}
                self.chunks.replace_one({"_id": chunk}, whole, upsert=True)
                length += len(data)
            now = datetime.datetime.now(datetime.timezone.utc)
            self.files.insert_one({**facts, "length": length, "uploadDate": now})
        return identity

    def _remove(self, identity: ObjectId) -> None:
        self.files.delete_one({"_id": identity})
        self.chunks.delete_many({"files_id": identity})


def _is_lesser_copy(run: RunFiles, known: dict[str, Any]) -> bool:
    """Tell whether the database has a later state of a run, or more files, and has them from another folder."""
    sent, stored = known.get("heartbeat"), {entry["name"] for entry in known.get("artifacts", [])}
    elsewhere = known["kd_marl"].get("folder") != str(run.folder.absolute())
    is_older = isinstance(sent, datetime.datetime) and sent > run.beat
    return elsewhere and (is_older or not stored <= run.names)


def _made(run: RunFiles) -> dict[str, Any]:
    """Say what later runs may have as a parent: a teacher's weights, an expert buffer's folder."""
    model = run.lineage.get("model")
    if run.lineage["stage"] == "teacher" and model:
        return {"model": model["sha256"]}
    if run.lineage["stage"] == "buffer" and run.lineage.get("buffer"):
        return {"buffer": run.lineage["buffer"]}
    return {}


def reason(error: Exception) -> str:
    """Say in a few words what a server did, without anything of its URL."""
    if isinstance(error, OperationFailure) and error.code in (13, 18):
        return "it refuses the user or the password"
    if isinstance(error, pymongo.errors.ServerSelectionTimeoutError):
        return "nobody answers there"
    if isinstance(error, pymongo.errors.NetworkTimeout):
        return "it takes too long"
    if isinstance(error, OperationFailure):
        return f"it refuses: {(error.details or {}).get('errmsg') or error.code}"[:200]
    return "the connection broke" if isinstance(error, PyMongoError) else f"{type(error).__name__}: {error}"[:200]
