"""Runs of a results folder: Sacred's folders ``sacred/<name>/<task>/<id>/``, wherever they lie in it.

The first look reads three small files of every run. Afterwards runs that change are looked at every time, all others in
turn, and a folder is listed again only when its own time says that something came or went.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from kd_core.errors import UserError
from kd_marl.dashboard import inside
from kd_marl.dashboard.inside import Stamp, UnreadableError
from kd_marl.dashboard.liveness import Liveness
from kd_marl.dashboard.rows import BUFFER, RUNNING, Facts, Progress, number, progress, row, stage_of
from kd_marl.dashboard.source import Curve, Details, SourceError, Store
from kd_marl.runs.folders import NO_RUNS

Parts: TypeAlias = tuple[str, ...]

CONFIG, ACCOUNT, SUMMARY, METRICS, OUTPUT = "config.json", "run.json", "summary.json", "metrics.json", "cout.txt"
LINEAGE, BUFFER_FACTS = "lineage.json", "buffer.json"
_FACTS = (CONFIG, ACCOUNT, SUMMARY)
# What a file may have: a run's facts are a few kilobytes, its metrics a few megabytes.
_MOST_FACTS, _MOST_METRICS, _MOST_OUTPUT = 4 << 20, 64 << 20, 64 << 10
# Deeper than any suite's results/suites/NAME/sacred/NAME/TASK/ID, with a task that has slashes.
_DEEPEST = 12
# A run is looked at every time for so long after its last change.
_WARM_S = 60.0
# Others in turn, so many each time; and so long may reading metrics for the table take each time.
_IN_TURN, _READING_S = 500, 0.3
# A folder that changed so lately may change again within one tick of its clock.
_TICK_S = 2.0
_REMEMBERED = 100


@dataclass
class _Known:
    """A run that was read.

    Attributes:
        stamps: of its files, as they were read.
        progress: what its metrics say, as far as they were read.
        changed: when it last was another than before.
        facts: only while it runs: what its row is made of again as time passes.
    """

    stamps: dict[str, Stamp | None] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    changed: float = 0.0
    facts: Facts | None = None


class FolderSource:
    """The runs of a results folder.

    Attributes:
        title: the folder.
        store: its rows.
    """

    def __init__(self, root: Path) -> None:
        """Take a folder that exists.

        Raises:
            UserError: it does not, or is no folder.
        """
        if not root.is_dir():
            raise UserError(f"there is no folder {root}: give a results folder, for example results")
        self.root = root.resolve()
        self.title = str(self.root)
        self.store = Store()
        self._liveness = Liveness()
        self._known: dict[Parts, _Known] = {}
        # Folders that may hold runs -> their time when they were listed; None: list them again.
        self._listed: dict[Parts, int | None] = {(): None}
        self._unread: OrderedDict[Parts, None] = OrderedDict()
        self._next = 0
        self._metrics: OrderedDict[Parts, tuple[Stamp, dict[str, Curve]]] = OrderedDict()
        self._metrics_lock = threading.Lock()

    def refresh(self) -> None:
        """Look for what has changed."""
        now = time.time()
        if not self.root.is_dir():
            raise SourceError(f"the folder {self.root} is gone")
        opening = self.store.loading is not None
        with _no_garbage() if opening else contextlib.nullcontext():
            self._list_changed(now)
        self.store.loading = None
        for parts in self._in_turn(now):
            self._look(parts, now)
        self._read_on(now, finals=not opening)

    def details(self, key: str) -> Details:
        """Read one run."""
        parts = self._parts(key)
        try:
            with inside.folder(self.root, parts) as folder:
                facts = replace(_facts(folder)[0], lineage=_lineage(folder))
                output = _output(folder)
        except (OSError, UnreadableError) as error:
            raise KeyError(key) from error
        return Details(facts, str(self.root.joinpath(*parts)), output)

    def curves_version(self, key: str) -> str:
        """Name the state of a run's metrics."""
        return str(self._stamp(self._parts(key), METRICS))

    def curves(self, key: str) -> Mapping[str, Curve]:
        """Read a run's metrics; while they are being written, what they were before."""
        parts = self._parts(key)
        with self._metrics_lock:
            known = self._metrics.get(parts)
        if known is not None and known[0] == self._stamp(parts, METRICS):
            return known[1]
        try:
            with inside.folder(self.root, parts) as folder:
                content, stamp = inside.read(folder, METRICS, _MOST_METRICS)
            curves = curves_of(inside.parse(content, METRICS))
        except (OSError, UnreadableError):
            return known[1] if known is not None else {}
        with self._metrics_lock:
            self._metrics[parts] = (stamp, curves)
            self._metrics.move_to_end(parts)
            while len(self._metrics) > _REMEMBERED:
                self._metrics.popitem(last=False)
        return curves

    def _parts(self, key: str) -> Parts:
        # Only what a look has found: no path is ever made of what a browser sends.
        self.store.row(key)
        return tuple(key.split("/"))

    def _stamp(self, parts: Parts, name: str) -> Stamp | None:
        try:
            with inside.folder(self.root, parts) as folder:
                return inside.stamp(folder, name)
        except (OSError, UnreadableError):
            return None

    # ---- what is there -----------------------------------------------------------------------------------------------

    def _list_changed(self, now: float) -> None:
        """List the folders that have changed, and read the runs in them that were not known."""
        for parts, listed in list(self._listed.items()):
            try:
                if os.stat(self.root.joinpath(*parts), follow_symlinks=not parts).st_mtime_ns == listed:
                    continue
                with inside.folder(self.root, parts) as folder:
                    self._list(folder, parts, now)
            except (OSError, UnreadableError):
                if parts:
                    self._listed.pop(parts, None)

    def _list(self, folder: int, parts: Parts, now: float) -> None:
        """List one open folder; where it is no run, also the folders in it that were not known."""
        changed = os.fstat(folder).st_mtime_ns
        with os.scandir(folder) as entries:
            names = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        if parts and any(not names.get(name, True) for name in (CONFIG, ACCOUNT)):
            self._listed.pop(parts, None)
            self._known[parts] = _Known(changed=now)
            self._look_into(folder, parts, now)
            if self.store.loading is not None:
                self.store.loading += 1
            return
        self._listed[parts] = changed if time.time() - changed / 1e9 > _TICK_S else None
        for name, is_folder in names.items():
            below = (*parts, name)
            unknown = is_folder and below not in self._known and below not in self._listed
            if unknown and name not in NO_RUNS and name.isprintable() and len(below) <= _DEEPEST:
                with contextlib.suppress(OSError, UnreadableError):
                    descriptor = inside.open_below(folder, name)
                    try:
                        self._list(descriptor, below, now)
                    finally:
                        os.close(descriptor)

    def _in_turn(self, now: float) -> Iterable[Parts]:
        """Return the runs to look at: those that run or changed lately, and some of the others."""
        every = list(self._known)
        self._next = self._next % max(1, len(every))
        turn = every[self._next : self._next + _IN_TURN]
        self._next += _IN_TURN
        warm = [parts for parts, known in self._known.items() if known.facts or now - known.changed < _WARM_S]
        return dict.fromkeys([*warm, *turn] if len(warm) <= _IN_TURN else [*warm[:_IN_TURN], *turn])

    # ---- one run -----------------------------------------------------------------------------------------------------

    def _look(self, parts: Parts, now: float) -> None:
        """Read a run again if one of its files is another; forget it if it is gone."""
        try:
            with inside.folder(self.root, parts) as folder:
                if any(inside.stamp(folder, name) != stamp for name, stamp in self._known[parts].stamps.items()):
                    self._look_into(folder, parts, now)
                elif (facts := self._known[parts].facts) is not None:
                    # Nobody may have ended it.
                    self._put(parts, facts, now)
        except (OSError, UnreadableError):
            del self._known[parts]
            self._unread.pop(parts, None)
            self.store.drop("/".join(parts))

    def _look_into(self, folder: int, parts: Parts, now: float) -> None:
        """Read a run's small files."""
        known = self._known[parts]
        facts, stamps = _facts(folder)
        if facts.faults and known.stamps and now - known.changed < _WARM_S:
            # Sacred writes in place: the next look finds it whole. The row stays as it was until then.
            return
        stamps[METRICS] = inside.stamp(folder, METRICS)
        if stamps[METRICS] != known.stamps.get(METRICS):
            self._unread[parts] = None
        known.stamps, known.changed = stamps, now if known.stamps else _last(stamps)
        self._put(parts, facts, now)

    def _put(self, parts: Parts, facts: Facts, now: float) -> None:
        known = self._known[parts]
        if stage_of(facts.config) == BUFFER:
            facts = replace(facts, buffer=self._buffer(parts))
        made = row("/".join(parts), parts, facts, known.progress, self._liveness, now)
        known.facts = facts if made.state == RUNNING else None
        self.store.put(made)

    def _buffer(self, parts: Parts) -> Mapping[str, Any]:
        """Read what the buffer that a run writes says of itself; nothing where it lies outside the results folder."""
        try:
            with inside.folder(self.root, parts) as folder:
                buffer = _lineage(folder).get("buffer")
            # A path that was noted through a link is the same folder.
            below = Path(os.path.realpath(buffer)).relative_to(self.root) if isinstance(buffer, str) else None
            if below is None:
                return {}
            with inside.folder(self.root, below.parts) as folder:
                return inside.parse(inside.read(folder, BUFFER_FACTS, _MOST_FACTS)[0], BUFFER_FACTS)
        except (OSError, ValueError, UnreadableError):
            return {}

    def _read_on(self, now: float, finals: bool) -> None:
        """Read the metrics of runs for a moment: those whose score is in no other file, then others, the newest first.

        Args:
            now: the time.
            finals: whether to read those that have a result too, of which only the steps are missing.
        """
        until = time.monotonic() + _READING_S
        final = {parts: self.store.row("/".join(parts)).final for parts in self._unread}
        unread = [parts for parts in final if finals or not final[parts]]
        for parts in sorted(unread, key=lambda parts: (final[parts], -self._known[parts].changed)):
            if time.monotonic() > until:
                return
            del self._unread[parts]
            key, known = "/".join(parts), self._known[parts]
            if curves := self.curves(key):
                known.progress = progress({name: (steps[-1], values[-1]) for name, (steps, values) in curves.items()})
            try:
                with inside.folder(self.root, parts) as folder:
                    self._put(parts, _facts(folder)[0], now)
            except (OSError, UnreadableError):
                continue


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    """Let the collector rest while many files are parsed: what they hold has no cycles, and looking takes a third."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def curves_of(metrics: Mapping[str, Any]) -> dict[str, Curve]:
    """Take the curves of Sacred's metrics; what is none is left out, a value that is no number is a gap."""
    curves: dict[str, Curve] = {}
    for name, entry in metrics.items():
        steps, values = (entry.get("steps"), entry.get("values")) if isinstance(entry, dict) else (None, None)
        if not isinstance(steps, list) or not isinstance(values, list):
            continue
        pairs = [
            (step, number(value)) for at, value in zip(steps, values, strict=False) if (step := number(at)) is not None
        ]
        if pairs:
            curves[name] = ([step for step, _ in pairs], [value for _, value in pairs])
    return curves


def _facts(folder: int) -> tuple[Facts, dict[str, Stamp | None]]:
    """Read a run's small files; returns what they hold, and their stamps."""
    found: dict[str, Mapping[str, Any]] = {name: {} for name in _FACTS}
    stamps: dict[str, Stamp | None] = dict.fromkeys(_FACTS)
    faults = []
    for name in _FACTS:
        try:
            content, stamps[name] = inside.read(folder, name, _MOST_FACTS)
            found[name] = inside.parse(content, name)
        except FileNotFoundError:
            if name != SUMMARY:
                faults.append(f"{name} is missing")
        except UnreadableError as fault:
            faults.append(str(fault))
            stamps[name] = stamps[name] or inside.stamp(folder, name)
    return Facts(found[CONFIG], found[ACCOUNT], found[SUMMARY], tuple(faults)), stamps


def _lineage(folder: int) -> Mapping[str, Any]:
    try:
        return inside.parse(inside.read(folder, LINEAGE, _MOST_FACTS)[0], LINEAGE)
    except (OSError, UnreadableError):
        return {}


def _output(folder: int) -> str:
    try:
        return inside.tail(folder, OUTPUT, _MOST_OUTPUT).decode("utf-8", "replace")
    except (OSError, UnreadableError):
        return ""


def _last(stamps: Mapping[str, Stamp | None]) -> float:
    """Return when the newest of some files was written."""
    return max((stamp[0] / 1e9 for stamp in stamps.values() if stamp), default=0.0)
