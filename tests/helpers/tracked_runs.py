"""Runs of Sacred's own with our observers, in this process and within a second, and a server for them."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sacred import SETTINGS, Experiment

# Whoever imports this is skipped where they are missing.
pymongo = pytest.importorskip("pymongo")
pytest.importorskip("mongomock")

from kd_marl.plugin.observer import RunRecord  # noqa: E402
from kd_marl.tracking.database import Database  # noqa: E402
from kd_marl.tracking.destination import Destination  # noqa: E402
from kd_marl.tracking.documents import RunFiles  # noqa: E402
from kd_marl.tracking.follower import Follower  # noqa: E402
from wire_mongo import ForgottenError, Server  # noqa: E402

CONFIG = {
    "name": "kd_student",
    "learner": "kd_mappo_student",
    "env": "gymma",
    "env_args": {"key": "spread"},
    "map_name": "spread",
    "limits": "lh",
    "masks": "",
}


def run(
    results: Path, work: Callable[..., Any], destination: Destination | None = None, beat_s: float = 0.1, **config: Any
) -> Path:
    """Run ``work(run)`` as a Sacred experiment and return its folder; what it raises ends the run as it would."""
    before = SETTINGS["CAPTURE_MODE"]
    experiment = Experiment("pymarl", interactive=True)
    experiment.add_config({**CONFIG, "seed": 1, **config})
    record = RunRecord(str(results / "sacred" / "kd_student" / "spread"))
    experiment.observers.append(record)
    if destination is not None:
        experiment.observers.append(Follower(destination, record))

    @experiment.main
    def main(_run):
        return work(_run)

    try:
        SETTINGS["CAPTURE_MODE"] = "sys"
        with contextlib.suppress(ArithmeticError, KeyboardInterrupt):
            experiment.run(options={"--beat-interval": beat_s})
    finally:
        SETTINGS["CAPTURE_MODE"] = before
    return Path(record.dir)


def log(sacred_run: Any, name: str, value: Any, step: int) -> None:
    """Log a number as EPyMARL's Logger does, twice."""
    sacred_run.info.setdefault(name, []).append(value)
    sacred_run.info.setdefault(f"{name}_T", []).append(step)
    sacred_run.log_scalar(name, value, step)


def logging(names: tuple[str, ...] = ("loss", "return"), points: int = 5) -> Callable[[Any], None]:
    """Work that logs value = 100 * metric + step."""

    def work(sacred_run):
        for step in range(points):
            for at, name in enumerate(names):
                log(sacred_run, name, 100.0 * at + step, step)

    return work


def rewrite(file: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    facts = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**facts, **changes}))


def bring_up(database: Any, folder: Path) -> bool:
    """Send a folder to a database of pymongo or mongomock."""
    return Database(database).bring_up(RunFiles(folder))


@contextlib.contextmanager
def served(account: str = "") -> Iterator[Served]:
    """A server in a thread of this process, which a test can reach into."""
    with Server(0, None, account) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_address[1]}"
        with pymongo.MongoClient(f"mongodb://{account}{'@' if account else ''}{address}") as client:
            yield Served(server.engine, address, client)
        server.shutdown()


class Served:
    """A running server: its engine, its ``host:port``, and a client."""

    def __init__(self, engine: Any, address: str, client: Any) -> None:
        self.engine, self.address, self.client = engine, address, client
        self._names = itertools.count()

    def empty(self) -> Any:
        """A new database."""
        return self.client[f"test-{next(self._names)}"]

    @contextlib.contextmanager
    def dying(self, calls: int, answer_lost: bool) -> Iterator[None]:
        """After so many commands every connection is cut: before a command is done, or before it is answered."""
        run, left = self.engine.run, [calls]

        def cut(login, database, command):
            if next(iter(command)) in ("hello", "ismaster", "endSessions"):
                return run(login, database, command)
            left[0] -= 1
            if left[0] >= 0 or answer_lost:
                answer = run(login, database, command)
            if left[0] < 0:
                raise ForgottenError
            return answer

        self.engine.run = cut
        try:
            yield
        finally:
            self.engine.run = run


def content(database: Any) -> dict[str, list[Any]]:
    """Everything in a database but the moments of uploads, in order."""
    names = sorted(database.list_collection_names())
    found = {name: sorted(database[name].find(), key=lambda entry: str(entry["_id"])) for name in names}
    for entry in found.get("fs.files", []):
        entry.pop("uploadDate")
    # Named by the server.
    for entry in found.get("omniboard.custom.columns", []):
        entry.pop("_id")
    return found


def curves(database: Any, number: int = 1) -> dict[str, tuple[list[Any], list[Any]]]:
    """Steps and values of a run's metrics."""
    return {entry["name"]: (entry["steps"], entry["values"]) for entry in database["metrics"].find({"run_id": number})}
