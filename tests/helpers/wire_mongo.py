"""A small server for tests that speaks MongoDB's wire protocol over TCP; mongomock holds the documents.

It is not MongoDB: one thing at a time, no replica set, no transactions, and what mongomock lacks is refused. A write is
in the journal before it is acknowledged, so it survives ``kill -9``::

    python tests/helpers/wire_mongo.py --port 0 --store FILE

prints the port it listens on, on this machine alone. WIRE_MONGO_ACCOUNT=user:password makes it ask for them.
The server's own test command ``configureFailPoint`` makes it slow, full or forgetful: see
`Engine.do_configurefailpoint`.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import datetime
import hashlib
import hmac
import itertools
import os
import random
import secrets
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import bson
import mongomock
from mongomock import aggregate
from pymongo.errors import DuplicateKeyError, OperationFailure

OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
CHECKSUM, MORE_TO_COME = 1, 2
MAX_DOCUMENT, MAX_MESSAGE = 16 * 1024**2, 48_000_000
FIRST_BATCH = 101
# What a MongoDB 7 says of itself: old drivers need the low end, new ones the high end.
HELLO = {
    "ismaster": True,
    "isWritablePrimary": True,
    "helloOk": True,
    "maxBsonObjectSize": MAX_DOCUMENT,
    "maxMessageSizeBytes": MAX_MESSAGE,
    "maxWriteBatchSize": 100_000,
    "logicalSessionTimeoutMinutes": 30,
    "minWireVersion": 0,
    "maxWireVersion": 21,
    "readOnly": False,
}
VERSION = "7.0.0"
# What a client may ask before it has said its password.
OPEN_TO_ALL = {"hello", "ismaster", "saslstart", "saslcontinue", "buildinfo", "ping"}
ITERATIONS = 4096
# The variable that holds user:password, which must not show in the list of processes.
ACCOUNT = "WIRE_MONGO_ACCOUNT"

Document = dict[str, Any]


class Expressions(aggregate._Parser):
    """mongomock's expressions, with what it lacks and Omniboard's metric columns need."""

    def parse(self, expression: Any) -> Any:
        match expression:
            case {"$toObjectId": given}:
                value = self._parse_or_nothing(given)
                return bson.ObjectId(value) if isinstance(value, (str, bson.ObjectId)) else None
            case {"$arrayElemAt": _}:
                try:
                    return super().parse(expression)
                except KeyError:
                    return None
            case {"$reduce": {"input": given, "initialValue": first, "in": step}}:
                items, total = self._parse_or_nothing(given), self.parse(first)
                if not isinstance(items, list):
                    return None
                for this in items:
                    total = Expressions(self._doc_dict, {**self._user_vars, "value": total, "this": this}).parse(step)
                return total
        return super().parse(expression)


aggregate._Parser = Expressions


class RefusedError(Exception):
    """The server's answer to what it cannot do."""

    def __init__(self, code: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.answer = {"code": code, "errmsg": message, **more}


class ForgottenError(Exception):
    """The command was done, and its answer is lost on the way."""


class Login:
    """One connection's way through SCRAM-SHA-256 (RFC 7677): who it is, once it has proved it."""

    def __init__(self, user: str, password: str) -> None:
        self.user, self.password = user, password
        self.done = not user
        self.messages: list[str] = []

    def start(self, payload: bytes) -> Document:
        first = payload.decode().removeprefix("n,,")
        said = dict(part.split("=", 1) for part in first.split(","))
        self.named = said["n"]
        self.salt = secrets.token_bytes(16)
        answer = f"r={said['r']}{secrets.token_hex(12)},s={base64.b64encode(self.salt).decode()},i={ITERATIONS}"
        self.messages = [first, answer]
        return {"conversationId": 1, "done": False, "payload": answer.encode()}

    def go_on(self, payload: bytes) -> Document:
        final, _, proof = payload.decode().rpartition(",p=")
        message = ",".join([*self.messages, final]).encode()
        salted = hashlib.pbkdf2_hmac("sha256", self.password.encode(), self.salt, ITERATIONS)
        client, own = (hmac.digest(salted, name, "sha256") for name in (b"Client Key", b"Server Key"))
        signature = hmac.digest(hashlib.sha256(client).digest(), message, "sha256")
        expected = bytes(a ^ b for a, b in zip(client, signature, strict=True))
        if self.named != self.user or not hmac.compare_digest(expected, base64.b64decode(proof)):
            raise RefusedError(18, "Authentication failed.", codeName="AuthenticationFailed")
        self.done = True
        verifier = base64.b64encode(hmac.digest(own, message, "sha256")).decode()
        return {"conversationId": 1, "done": True, "payload": f"v={verifier}".encode()}


class Engine:
    """The commands: a method ``do_...`` each, with the command's name in small letters; one runs at a time."""

    def __init__(self, store: Path | None) -> None:
        self.client = mongomock.MongoClient()
        self.lock = threading.RLock()
        self.cursors: dict[int, tuple[str, list[Document]]] = {}
        self.fail_point: Document | None = None
        self.journal: int | None = None
        if store is not None:
            self.replay(store)
            self.journal = os.open(store, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def replay(self, store: Path) -> None:
        """Do again what the journal holds; a last entry that was cut off was never acknowledged, and goes."""
        data = store.read_bytes() if store.is_file() else b""
        start = 0
        while len(data) - start >= 4 and len(data) >= (
            end := start + int.from_bytes(data[start : start + 4], "little")
        ):
            entry = bson.decode(data[start:end])
            with contextlib.suppress(RefusedError):
                self.write(entry["db"], entry["kind"], entry["collection"], entry["statement"])
            start = end
        if start < len(data):
            os.truncate(store, start)

    def run(self, login: Login, database: str, command: Document) -> Document:
        """The answer to a command."""
        name = next(iter(command))
        do: Callable[[str, Document], Document] | None = getattr(self, f"do_{name.lower()}", None)
        failing = self.failing(name)
        if failing.get("blockConnection"):
            time.sleep(failing["blockTimeMS"] / 1000)
        try:
            if "errorCode" in failing:
                raise RefusedError(failing["errorCode"], "failing command by a fail point")
            if do is None:
                raise RefusedError(59, f"no such command: '{name}'")
            if failing.get("closeConnection") and not failing.get("afterwards"):
                raise ForgottenError
            if not login.done and name.lower() not in OPEN_TO_ALL:
                raise RefusedError(13, f"Command {name} requires authentication", codeName="Unauthorized")
            with self.lock, translated():
                answer = do(login if name.startswith("sasl") else database, command)
            if failing.get("closeConnection"):
                raise ForgottenError
            return {**answer, "ok": 1.0}
        except RefusedError as error:
            return {"ok": 0.0, **error.answer}

    # -- what a server is asked before anything else ----------------------------------------------------------------

    def do_hello(self, database: str, command: Document) -> Document:
        mechanisms = {"saslSupportedMechs": ["SCRAM-SHA-256"]} if "saslSupportedMechs" in command else {}
        return {**HELLO, **mechanisms, "localTime": datetime.datetime.now(datetime.timezone.utc)}

    do_ismaster = do_hello

    def do_ping(self, database: str, command: Document) -> Document:
        return {}

    do_endsessions = do_ping

    def do_saslstart(self, login: Login, command: Document) -> Document:
        return login.start(command["payload"])

    def do_saslcontinue(self, login: Login, command: Document) -> Document:
        return login.go_on(command["payload"])

    def do_buildinfo(self, database: str, command: Document) -> Document:
        return {"version": VERSION, "versionArray": [7, 0, 0, 0], "bits": 64, "maxBsonObjectSize": MAX_DOCUMENT}

    def do_configurefailpoint(self, database: str, command: Document) -> Document:
        """MongoDB's own ``failCommand``, as far as it goes here.

        ``mode`` is "off", "alwaysOn" or {"times": n}. ``data`` has ``failCommands`` and any of ``errorCode`` (14031 is
        a full disk), ``blockConnection`` with ``blockTimeMS`` (slow), and ``closeConnection``. With ``afterwards``,
        which MongoDB lacks, the command is done before the connection is closed: its answer is lost.
        """
        mode = command["mode"]
        times = mode["times"] if isinstance(mode, dict) else 0 if mode == "off" else float("inf")
        self.fail_point = {"times": times, **command.get("data", {})}
        return {}

    def failing(self, name: str) -> Document:
        """What the fail point says of this command."""
        with self.lock:
            point = self.fail_point
            if point is None or point["times"] < 1 or name not in point.get("failCommands", ()):
                return {}
            point["times"] -= 1
            return point

    # -- reading ----------------------------------------------------------------------------------------------------

    def do_find(self, database: str, command: Document) -> Document:
        limit = command.get("limit", 0)
        found = self.client[database][command["find"]].find(
            command.get("filter") or {},
            command.get("projection") or None,
            sort=list(command.get("sort", {}).items()) or None,
            skip=command.get("skip", 0),
            limit=abs(limit),
        )
        return self.batches(database, command["find"], found, command, command.get("singleBatch") or limit < 0)

    def do_aggregate(self, database: str, command: Document) -> Document:
        name, pipeline = command["aggregate"], command["pipeline"]
        if any(stage.keys() & {"$out", "$merge"} for stage in pipeline):
            raise RefusedError(238, "a pipeline that writes is not supported here")
        collection = self.client[database][name]
        if pipeline and "$collStats" in pipeline[0]:
            counted = {"ns": f"{database}.{name}", "count": len(list(collection.find({}, {"_id": 1})))}
            documents, pipeline = [counted], pipeline[1:]
        else:
            documents = list(collection.find())
        found = self.pipeline(database, documents, pipeline)
        return self.batches(database, name, found, command.get("cursor", {}))

    def pipeline(self, database: str, documents: list[Document], stages: list[Document]) -> list[Document]:
        """The documents after the stages; the ``$lookup`` with a pipeline of its own, which mongomock lacks, too."""
        for at, stage in enumerate(stages):
            lookup = stage.get("$lookup", {})
            if "pipeline" not in lookup:
                continue
            documents = self.pipeline(database, documents, stages[:at])
            foreign = list(self.client[database][lookup["from"]].find())
            for document in documents:
                [values] = self.pipeline(database, [document], [{"$project": {"_id": 0, **lookup.get("let", {})}}])
                names = {f"$${name}": values.get(name) for name in lookup.get("let", {})}
                own = replaced(lookup["pipeline"], names)
                document[lookup["as"]] = self.pipeline(database, foreign, own)
            return self.pipeline(database, documents, stages[at + 1 :])
        return list(aggregate.process_pipeline(documents, self.client[database], stages, None))

    def batches(
        self, database: str, name: str, found: Iterable[Document], options: Document, single: bool = False
    ) -> Document:
        namespace, waiting = f"{database}.{name}", list(found)
        batch, rest = cut(waiting, options.get("batchSize", FIRST_BATCH))
        cursor = random.getrandbits(62) + 1 if rest and not single else 0
        if cursor:
            self.cursors[cursor] = namespace, rest
        return {"cursor": {"firstBatch": batch, "id": bson.Int64(cursor), "ns": namespace}}

    def do_getmore(self, database: str, command: Document) -> Document:
        cursor = command["getMore"]
        if cursor not in self.cursors:
            raise RefusedError(43, f"cursor id {cursor} not found", codeName="CursorNotFound")
        namespace, waiting = self.cursors.pop(cursor)
        batch, rest = cut(waiting, command.get("batchSize") or len(waiting))
        if rest:
            self.cursors[cursor] = namespace, rest
        return {"cursor": {"nextBatch": batch, "id": bson.Int64(cursor if rest else 0), "ns": namespace}}

    def do_killcursors(self, database: str, command: Document) -> Document:
        killed = [cursor for cursor in command["cursors"] if self.cursors.pop(cursor, None)]
        return {"cursorsKilled": killed, "cursorsNotFound": [], "cursorsAlive": [], "cursorsUnknown": []}

    def do_count(self, database: str, command: Document) -> Document:
        options = {"skip": command.get("skip", 0), "limit": abs(command.get("limit", 0))}
        return {"n": len(list(self.client[database][command["count"]].find(command.get("query") or {}, **options)))}

    def do_distinct(self, database: str, command: Document) -> Document:
        found = self.client[database][command["distinct"]].find(command.get("query") or {})
        return {"values": found.distinct(command["key"])}

    def do_listdatabases(self, database: str, command: Document) -> Document:
        names = self.client.list_database_names()
        return {"databases": [{"name": name, "sizeOnDisk": 0, "empty": False} for name in names], "totalSize": 0}

    def do_listcollections(self, database: str, command: Document) -> Document:
        names = self.client[database].list_collection_names(command.get("filter") or None)
        made = self.client[database].list_collection_names()
        found = [
            {"name": n, "type": "collection", "options": {}, "info": {"readOnly": False}} for n in names if n in made
        ]
        return self.batches(database, "$cmd.listCollections", found, command.get("cursor", {}))

    def do_listindexes(self, database: str, command: Document) -> Document:
        found = list(self.client[database][command["listIndexes"]].list_indexes())
        if not found:
            raise RefusedError(
                26, f"ns does not exist: {database}.{command['listIndexes']}", codeName="NamespaceNotFound"
            )
        return self.batches(database, command["listIndexes"], found, command.get("cursor", {}))

    # -- writing: each statement goes through `write`, which notes it in the journal first --------------------------

    def do_insert(self, database: str, command: Document) -> Document:
        return self.statements(database, "insert", command, "documents")

    def do_update(self, database: str, command: Document) -> Document:
        return self.statements(database, "update", command, "updates")

    def do_delete(self, database: str, command: Document) -> Document:
        return self.statements(database, "delete", command, "deletes")

    def statements(self, database: str, kind: str, command: Document, field: str) -> Document:
        total: Document = {"n": 0}
        errors = []
        for index, statement in enumerate(command[field]):
            try:
                done = self.write(database, kind, command[kind], statement)
            except RefusedError as error:
                errors.append({"index": index, **error.answer})
                if command.get("ordered", True):
                    break
                continue
            if "upserted" in done:
                total.setdefault("upserted", []).append({"index": index, "_id": done.pop("upserted")})
            for key, value in done.items():
                total[key] = total.get(key, 0) + value
        return {**total, **({"writeErrors": errors} if errors else {})}

    def do_findandmodify(self, database: str, command: Document) -> Document:
        name = next(iter(command.values()))
        collection, query = self.client[database][name], command.get("query") or {}
        fields = command.get("fields") or None
        found = collection.find_one(query, sort=list((command.get("sort") or {}).items()) or None)
        shown = collection.find_one({"_id": found["_id"]}, fields) if found else None
        if found:
            query = {**query, "_id": found["_id"]}
        if command.get("remove"):
            done = self.write(database, "delete", name, {"q": query, "limit": 1}) if found else {"n": 0}
            return {"value": shown, "lastErrorObject": done}
        statement = {"q": query, "u": command["update"], "upsert": command.get("upsert", False)}
        done = self.write(database, "update", name, statement)
        if command.get("new") and done["n"]:
            shown = collection.find_one({"_id": found["_id"] if found else done["upserted"]}, fields)
        last = {"n": done["n"], "updatedExisting": found is not None}
        return {"value": shown, "lastErrorObject": {**last, **({} if found else done)}}

    def do_createindexes(self, database: str, command: Document) -> Document:
        for index in command["indexes"]:
            self.write(database, "index", command["createIndexes"], index)
        return {"createdCollectionAutomatically": False}

    def do_dropindexes(self, database: str, command: Document) -> Document:
        return self.write(database, "dropIndex", command["dropIndexes"], {"index": command["index"]})

    def do_create(self, database: str, command: Document) -> Document:
        return self.write(database, "create", command["create"], {})

    def do_drop(self, database: str, command: Document) -> Document:
        if command["drop"] not in self.client[database].list_collection_names():
            raise RefusedError(26, "ns not found", codeName="NamespaceNotFound")
        return self.write(database, "drop", command["drop"], {})

    def do_dropdatabase(self, database: str, command: Document) -> Document:
        for name in self.client[database].list_collection_names():
            self.write(database, "drop", name, {})
        return {"dropped": database}

    def write(self, database: str, kind: str, name: str, statement: Document) -> Document:
        """Do one statement, all or nothing."""
        collection = self.client[database][name]
        if kind == "insert" and "_id" not in statement:
            statement = {"_id": bson.ObjectId(), **statement}
        if kind == "update" and statement.get("upsert") and "_id" not in statement["q"]:
            with translated():
                found = collection.find_one(statement["q"])
            if found is None:  # the journal names the new document, so that it has the same id ever after
                change = statement["u"] if isinstance(statement["u"], dict) else {}
                statement = {**statement, "q": {**statement["q"], "_id": change.get("_id", bson.ObjectId())}}
        if self.journal is not None:
            entry = {"db": database, "kind": kind, "collection": name, "statement": statement}
            os.write(self.journal, bson.encode(entry))
        with translated():
            return getattr(self, f"_{kind}")(collection, statement)

    def _insert(self, collection: Any, document: Document) -> Document:
        if len(bson.encode(document)) > MAX_DOCUMENT:
            raise RefusedError(10334, "object to insert too large", codeName="BSONObjectTooLarge")
        if collection.find_one({"_id": document["_id"]}, {"_id": 1}) is not None:
            raise duplicate(collection, "_id_", {"_id": document["_id"]})
        try:
            collection.insert_one(document)
        except DuplicateKeyError:
            raise duplicate(collection, *broken_index(collection, document)) from None
        return {"n": 1}

    def _update(self, collection: Any, statement: Document) -> Document:
        query, change, multi = statement["q"], statement["u"], statement.get("multi", False)
        matching = itertools.islice(collection._iter_documents(query), None if multi else 1)
        before = [bson.encode(document) for document in matching]
        try:
            if isinstance(change, dict) and not next(iter(change), "").startswith("$"):
                done = collection.replace_one(query, change, upsert=statement.get("upsert", False))
            else:
                update = collection.update_many if multi else collection.update_one
                options = {"array_filters": statement.get("arrayFilters"), "collation": statement.get("collation")}
                done = update(query, change, upsert=statement.get("upsert", False), **options)
            for old in before:
                now = collection.find_one({"_id": bson.decode(old)["_id"]})
                if len(bson.encode(now)) > MAX_DOCUMENT:
                    raise RefusedError(17419, f"Resulting document after update is larger than {MAX_DOCUMENT}")
        except Exception as error:
            for old in map(bson.decode, before):  # mongomock changes in place: undo what it has done
                collection._store[old["_id"]] = old
            if isinstance(error, DuplicateKeyError):
                raise duplicate(collection, *broken_index(collection, query)) from None
            raise
        if done.upserted_id is not None:
            return {"n": 1, "nModified": 0, "upserted": done.upserted_id}
        return {"n": done.matched_count, "nModified": done.modified_count}

    def _delete(self, collection: Any, statement: Document) -> Document:
        delete = collection.delete_one if statement.get("limit") else collection.delete_many
        return {"n": delete(statement["q"], collation=statement.get("collation")).deleted_count}

    def _index(self, collection: Any, index: Document) -> Document:
        known = ("name", "unique", "sparse", "expireAfterSeconds", "partialFilterExpression")
        collection.create_index(list(index["key"].items()), **{key: index[key] for key in known if key in index})
        return {}

    def _dropIndex(self, collection: Any, statement: Document) -> Document:  # noqa: N802
        if statement["index"] == "*":
            collection.drop_indexes()
        else:
            collection.drop_index(statement["index"])
        return {}

    def _create(self, collection: Any, statement: Document) -> Document:
        if collection.name in collection.database.list_collection_names():
            raise RefusedError(48, f"Collection {collection.full_name} already exists.", codeName="NamespaceExists")
        collection.database.create_collection(collection.name)
        return {}

    def _drop(self, collection: Any, statement: Document) -> Document:
        collection.drop()
        return {}


@contextlib.contextmanager
def translated() -> Any:
    """Turn what mongomock raises into a server's answer."""
    try:
        yield
    except NotImplementedError as error:
        raise RefusedError(238, str(error), codeName="NotImplemented") from error
    except OperationFailure as error:
        raise RefusedError(error.code or 2, str(error)) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RefusedError(9, f"{type(error).__name__}: {error}", codeName="FailedToParse") from error


def duplicate(collection: Any, index: str, key: Document) -> RefusedError:
    """What MongoDB says of a value that is there already."""
    shown = ", ".join(
        f"{name}: {value!r}" if not isinstance(value, str) else f'{name}: "{value}"' for name, value in key.items()
    )
    text = f"E11000 duplicate key error collection: {collection.full_name} index: {index} dup key: {{ {shown} }}"
    return RefusedError(11000, text, keyPattern=dict.fromkeys(key, 1), keyValue=key)


def broken_index(collection: Any, document: Document) -> tuple[str, Document]:
    """The unique index that a document would break, and its values."""
    for index in collection.list_indexes():
        key = {name: value_at(document, name) for name in index["key"]}
        if index.get("unique") and collection.find_one(key) is not None:
            return index["name"], key
    return "_id_", {"_id": document.get("_id")}


def value_at(document: Any, path: str) -> Any:
    """The value at a path like "config.seed"; None where there is none."""
    for step in path.split("."):
        document = document.get(step) if isinstance(document, dict) else None
    return document


def replaced(value: Any, names: Document) -> Any:
    """An expression with the variables of a ``$lookup`` filled in."""
    if isinstance(value, dict):
        return {key: replaced(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [replaced(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def cut(waiting: list[Document], count: int) -> tuple[list[Document], list[Document]]:
    """The next batch, of so many documents and no more than a message holds, and the rest."""
    size = taken = 0
    for document in waiting[:count]:
        size += len(bson.encode(document))
        if taken and size > MAX_DOCUMENT:
            break
        taken += 1
    return waiting[:taken], waiting[taken:]


class Connection(socketserver.BaseRequestHandler):
    """One client: a message in, a message out."""

    server: Server

    def handle(self) -> None:
        self.login = Login(self.server.user, self.server.password)
        with contextlib.suppress(ConnectionError, ForgottenError):
            while head := self.receive(16):
                length, request, _, kind = struct.unpack("<iiii", head)
                body = self.receive(length - 16)
                if body is None:
                    return
                if kind == OP_MSG:
                    self.message(request, body)
                elif kind == OP_QUERY:
                    self.old_query(request, body)
                else:
                    return

    def message(self, request: int, body: bytes) -> None:
        flags = int.from_bytes(body[:4], "little")
        end = len(body) - (4 if flags & CHECKSUM else 0)
        command: Document = {}
        lists: Document = {}
        at = 4
        while at < end:
            kind, size = body[at], int.from_bytes(body[at + 1 : at + 5], "little")
            section = body[at + 1 : at + 1 + size]
            if kind == 0:
                command = bson.decode(section)
            else:
                name, _, documents = section[4:].partition(b"\0")
                lists[name.decode()] = bson.decode_all(documents)
            at += 1 + size
        answer = self.server.engine.run(self.login, command["$db"], {**command, **lists})
        if not flags & MORE_TO_COME:
            self.answer(request, OP_MSG, struct.pack("<iB", 0, 0) + bson.encode(answer))

    def old_query(self, request: int, body: bytes) -> None:
        """The handshake of a driver that does not know yet whom it talks to."""
        name, _, rest = body[4:].partition(b"\0")
        size = int.from_bytes(rest[8:12], "little")
        query = bson.decode(rest[8 : 8 + size])
        answer = self.server.engine.run(self.login, name.decode().partition(".")[0], query.get("$query", query))
        self.answer(request, OP_REPLY, struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(answer))

    def answer(self, request: int, kind: int, body: bytes) -> None:
        self.request.sendall(struct.pack("<iiii", 16 + len(body), request, request, kind) + body)

    def receive(self, size: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < size:
            part = self.request.recv(min(size - len(parts), 1 << 20))
            if not part:
                return None
            parts += part
        return bytes(parts)


class Server(socketserver.ThreadingTCPServer):
    """Listens on this machine alone."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, port: int, store: Path | None, account: str = "") -> None:
        self.engine = Engine(store)
        self.user, _, self.password = account.partition(":")
        super().__init__(("127.0.0.1", port), Connection)


class WireMongo:
    """A server as a process of its own, which a test may kill and start again on the same port.

    Args:
        store: its journal.
        account: ``user:password``; without it everyone is let in.
    """

    def __init__(self, store: Path, account: str = "") -> None:
        self.store, self.account = store, account
        self.port = 0
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Its address, with the account that it asks for."""
        return f"mongodb://{self.account}{'@' if self.account else ''}127.0.0.1:{self.port}"

    def start(self) -> WireMongo:
        """Start it; it answers when this returns."""
        words = [sys.executable, __file__, "--port", str(self.port), "--store", str(self.store), "--until-input-ends"]
        environment = {**os.environ, ACCOUNT: self.account}
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        return self

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def __enter__(self) -> WireMongo:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


def main() -> None:
    """Serve until it is told to stop."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=27017, help="0: any that is free")
    parser.add_argument("--store", type=Path, help="the journal; without it all is forgotten at the end")
    parser.add_argument(
        "--until-input-ends", action="store_true", help="end with the process that holds our input open"
    )
    arguments = parser.parse_args()
    with Server(arguments.port, arguments.store, os.environ.get(ACCOUNT, "")) as server:
        print(server.server_address[1], flush=True)
        if arguments.until_input_ends:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            sys.stdin.read()
        else:
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()


if __name__ == "__main__":
    main()
