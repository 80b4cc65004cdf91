"""A run's folder as MongoDB documents: the schema of Sacred's MongoObserver, which Omniboard reads.

Everything is derived from the files, so a document can be made, or brought up to date, at any time and by anyone. No
document comes near MongoDB's 16 MB: what is long is cut, and the file that has it whole is attached.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import mimetypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import bson

from kd_core import files
from kd_core.errors import UserError
from kd_marl.runs import lineage
from kd_marl.runs.finished import METRICS_FILE

FORMAT = "MongoObserver-0.7.0"
# Sacred's own files, whose content is in the documents.
_IN_DOCUMENTS = frozenset({"config.json", "cout.txt", "info.json", METRICS_FILE, "run.json"})
# Bytes of the captured output's beginning and end that a document holds.
_OUTPUT_HEAD, _OUTPUT_TAIL = 64 * 1024, 192 * 1024
# Bytes of each other part of a document, characters of a text in it, and how deep it may be nested.
_LARGEST_PART, _LONGEST_TEXT, _DEEPEST = 1 << 20, 64 * 1024, 50
# Points of one metric document: 10 MB.
POINTS = 200_000
_LARGEST_INT = 2**63
# Seconds after its last heartbeat for which a run counts as alive.
_ALIVE_S = 120.0
# What of a result stands in a column.
_RESULT = ("retention", "retention_normalised", "agreement", "flops_ratio")
_SCORES = ("return_mean", "return_std", "win_rate", "length_mean")


@dataclass(frozen=True)
class Curve:
    """Some points of a metric, as they stand in one document.

    Attributes:
        identity: of the document.
        name: the metric's.
        points: ``steps``, ``values`` and ``timestamps``, lists of one length.
    """

    identity: bson.ObjectId
    name: str
    points: Mapping[str, list[Any]]

    def __len__(self) -> int:
        return len(self.points["values"])


@dataclass(frozen=True)
class Attachment:
    """A file beside a run's document.

    Attributes:
        identity: of the stored file: the same run, name and content give the same.
        name: as it is listed.
        path: where it lies.
    """

    identity: bson.ObjectId
    name: str
    path: Path

    @property
    def content_type(self) -> str | None:
        """Its MIME type, by its name."""
        return mimetypes.guess_type(self.name)[0]

    def chunks(self, size: int) -> Iterator[tuple[bson.ObjectId, bytes]]:
        """Read it piece by piece, each with the id of the document that holds it."""
        with open(self.path, "rb") as stream:
            while piece := stream.read(size):
                yield _object_id(str(self.identity), hashlib.sha256(piece).hexdigest(), str(stream.tell())), piece


class RunFiles:
    """The files of one run, read when they are asked for.

    Args:
        folder: its Sacred folder.

    Raises:
        UserError: it is no such folder, or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.account = files.read_json(folder / "run.json")
        self.config = files.read_json(folder / "config.json")
        if (started := _moment(self.account.get("start_time"))) is None:
            raise UserError(f"{folder / 'run.json'} says no start_time: only a run that was started can be tracked")
        self.started = started

    @cached_property
    def key(self) -> str:
        """The run's identity wherever its folder lies: a copy has the same."""
        facts = [self.config.get(name) for name in ("name", "env", "map_name", "seed")]
        return _digest(json.dumps([*facts, self.account["start_time"]]))

    @property
    def status(self) -> str:
        """As Sacred wrote it; a run that was killed has stayed ``RUNNING``."""
        return str(self.account.get("status", "RUNNING"))

    @property
    def beat(self) -> datetime.datetime:
        """Its last heartbeat; before the first its start."""
        return _moment(self.account.get("heartbeat")) or self.started

    @property
    def is_alive(self) -> bool:
        """Whether it is still running, by its last heartbeat."""
        now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
        return self.status == "RUNNING" and (now - self.beat).total_seconds() < _ALIVE_S

    @cached_property
    def summary(self) -> dict[str, Any]:
        """``summary.json``; empty without a result."""
        file = self.folder / "summary.json"
        return files.read_json(file) if file.is_file() else {}

    @cached_property
    def lineage(self) -> dict[str, Any]:
        """What it learnt from and what it made."""
        return lineage.read(self.folder, self.config, self.summary)

    @cached_property
    def curves(self) -> list[Curve]:
        """Its metrics; one with more points than a document may hold goes on as ``name (2)``."""
        file = self.folder / METRICS_FILE
        if not file.is_file():
            return []
        found = []
        for name, entry in files.read_json(file).items():
            try:
                steps, values = entry["steps"], entry["values"]
                # An unpacked evidence file has none.
                times = entry.get("timestamps") or [self.account["start_time"]] * len(values)
                size = min(len(steps), len(values), len(times))
            except (TypeError, KeyError, AttributeError) as error:
                raise UserError(f"{file} is damaged: no Sacred metrics ({error})") from error
            for part, start in enumerate(range(0, size, POINTS)):
                points = {
                    key: points[start : min(start + POINTS, size)]
                    for key, points in (("steps", steps), ("values", values), ("timestamps", times))
                }
                label = encodable(name if part == 0 else f"{name} ({part + 1})")
                found.append(Curve(_object_id(self.key, "metric", label), label, points))
        return found

    @cached_property
    def state(self) -> str:
        """Sha256 of all its files."""
        return _digest(json.dumps([(path.name, files.file_sha256(path)) for path in self._own_files()]))

    @property
    def names(self) -> set[str]:
        """Names of all its files, as they are listed where they are attached."""
        return {encodable(path.name) for path in self._own_files()}

    @cached_property
    def sources(self) -> list[Attachment]:
        """The program's own files, as Sacred saved them; the same file of two runs is stored once."""
        found = []
        for name, place in self.account.get("experiment", {}).get("sources") or []:
            path = self.folder.parent / place
            # A folder from elsewhere does not decide which of this machine's files are sent.
            if path.is_file() and path.resolve().is_relative_to(self.folder.parent.resolve()):
                found.append(Attachment(_object_id("source", name, files.file_sha256(path)), name, path))
        return found

    def document(self) -> tuple[dict[str, Any], list[Attachment]]:
        """Return the fields of the run's document, without ids of other documents, and the files to attach."""
        output, cut = _captured(self.folder / "cout.txt")
        left_out = {"cout.txt"} if cut else set()
        experiment = {**self.account.get("experiment", {}), "sources": []}
        parts = {
            "config": (self.config, "config.json"),
            "info": (self._info(), "info.json"),
            "experiment": (experiment, "run.json"),
            "host": (self.account.get("host", {}), "run.json"),
            "meta": (self.account.get("meta", {}), "run.json"),
            "resources": (self.account.get("resources", []), "run.json"),
            "fail_trace": (self.account.get("fail_trace"), "run.json"),
        }
        fields: dict[str, Any] = {}
        for name, (part, file) in parts.items():
            fields[name] = encodable(part)
            if (size := len(bson.encode({"": fields[name]}))) > _LARGEST_PART:
                note = f"{size} bytes are too many for a document: the artifact {file} has them"
                fields[name] = [note] if isinstance(part, list) else {"left out": note}
                left_out.add(file)
        fields["info"] |= encodable({"stage": self.lineage["stage"], "lineage": self.lineage, "result": self._result()})
        fields["info"]["metrics"] = [{"name": curve.name, "id": str(curve.identity)} for curve in self.curves]
        if not fields["fail_trace"]:
            del fields["fail_trace"]
        times = {name: _moment(self.account.get(name)) for name in ("heartbeat", "stop_time")}
        fields |= {name: time for name, time in times.items() if time}
        fields |= {
            "format": FORMAT,
            "command": encodable(self.account.get("command")),
            "start_time": self.started,
            "status": self.status,
            "captured_out": output,
            "result": fields["info"].get("result", {}).get("return_mean"),
        }
        attached = [path for path in self._own_files() if path.name not in _IN_DOCUMENTS - left_out]
        return fields, [self._attachment(path) for path in attached]

    def tags(self) -> list[str]:
        """Return the words by which Omniboard can filter."""
        limits = "own masks" if self.config.get("masks") else self.config.get("limits")
        task = self.config.get("map_name") or self.config.get("env_args", {}).get("key")
        return [str(tag) for tag in (self.lineage["stage"], task, limits) if tag]

    def _own_files(self) -> list[Path]:
        """List the folder's files, without those that are being written."""
        found = sorted(path for path in self.folder.iterdir() if not path.name.startswith("."))
        return [path for path in found if path.is_file() and not path.is_symlink()]

    def _attachment(self, path: Path) -> Attachment:
        name = encodable(path.name)
        return Attachment(_object_id(self.key, name, files.file_sha256(path)), name, path)

    def _info(self) -> dict[str, Any]:
        """Return what the run noted in Sacred's ``info``, without the numbers that EPyMARL logs there a second time."""
        file = self.folder / "info.json"
        if not file.is_file():
            return {}
        info = files.read_json(file)
        doubled = {name for name in info if f"{name}_T" in info and isinstance(info[name], list)}
        return {
            key: value
            for key, value in info.items()
            if key not in doubled and not (key.endswith("_T") and key[:-2] in doubled)
        }

    def _result(self) -> dict[str, Any]:
        score = self.summary.get("student") or self.summary.get("policy") or {}
        numbers = {name: score.get(name) for name in _SCORES} | {name: self.summary.get(name) for name in _RESULT}
        return {name: value for name, value in numbers.items() if value is not None}


def number(value: Any) -> float | int | None:
    """Return a logged value as a number that MongoDB can hold; None for what is no number."""
    if isinstance(value, Mapping):
        value = value.get("value") if str(value.get("py/object", "")).startswith("numpy.") else None
    if isinstance(value, int) and not -_LARGEST_INT <= value < _LARGEST_INT:
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return value if isinstance(value, (int, float)) else None


def points(curve: Curve, start: int) -> dict[str, list[Any]]:
    """Return a curve's points from one on, as a document holds them."""
    return {
        "steps": [number(step) for step in curve.points["steps"][start:]],
        "values": [number(value) for value in curve.points["values"][start:]],
        "timestamps": [_moment(time) for time in curve.points["timestamps"][start:]],
    }


def encodable(value: Any, depth: int = 0) -> Any:
    """Return JSON data as BSON holds it: numpy's numbers as numbers, long texts cut, keys without ``.`` and ``$``."""
    if depth > _DEEPEST:
        return encodable(json.dumps(value))
    if isinstance(value, Mapping):
        if str(value.get("py/object", "")).startswith("numpy.") and ("value" in value or "values" in value):
            return encodable(value.get("value", value.get("values")), depth)
        if set(value) == {"py/tuple"}:
            return encodable(value["py/tuple"], depth)
        return {_key(key): encodable(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [encodable(inner, depth + 1) for inner in value]
    if isinstance(value, str):
        text = value.encode("utf-8", "replace").decode()
        return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} ... {len(text)} characters"
    if isinstance(value, int) and not -_LARGEST_INT <= value < _LARGEST_INT:
        return str(value)
    return value


def _key(key: str) -> str:
    key = key.encode("utf-8", "replace").decode().replace(".", ",").replace("\0", " ")
    return f"@{key[1:]}" if key.startswith("$") else key


def _captured(file: Path) -> tuple[str, bool]:
    """Read the captured output, the middle left out if it is long; returns it and whether that was so."""
    try:
        size = file.stat().st_size
        with open(file, "rb") as stream:
            if size <= _OUTPUT_HEAD + _OUTPUT_TAIL:
                return stream.read().decode("utf-8", "replace"), False
            head = stream.read(_OUTPUT_HEAD).decode("utf-8", "ignore")
            stream.seek(-_OUTPUT_TAIL, 2)
            tail = stream.read().decode("utf-8", "ignore")
    except FileNotFoundError:
        return "", False
    left_out = size - _OUTPUT_HEAD - _OUTPUT_TAIL
    return f"{head}\n... {left_out} bytes left out: the artifact cout.txt has them ...\n{tail}", True


def _moment(text: Any) -> datetime.datetime | None:
    """Read a time as Sacred writes it, in UTC."""
    try:
        return datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _object_id(*parts: str) -> bson.ObjectId:
    """Make an id of what it stands for, so that whoever stores it again stores the same."""
    return bson.ObjectId(_digest(json.dumps(parts))[:24])
