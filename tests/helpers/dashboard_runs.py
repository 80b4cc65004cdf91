"""Runs on disk as a training leaves them at any moment, and a served dashboard, for the tests of the page."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timezone

import uvicorn

import report_runs
from kd_marl.dashboard.command import _listening
from kd_marl.dashboard.server import Watcher, application

COMMAND = "python src/main.py --config={method} --env-config=smax with env_args.map_name={task} limits=lh seed={seed}"
LEARNERS = {"kd_teacher": "kd_mappo_teacher", "kd_export": "kd_buffer_export", "mappo": "ppo_learner"}


def utc(seconds):
    """A time as Sacred writes it."""
    return datetime.fromtimestamp(seconds, timezone.utc).replace(tzinfo=None).isoformat()


def change(file, **facts):
    """Set facts of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **facts}))


def put(results, number, *, method="kd_student", task="3m", seed=1, status="COMPLETED", beat=None, **given):
    """Write a run's folder and return it; one that is not completed has no summary.

    Args:
        results: the results folder.
        number: the run's.
        method: its configuration's name.
        task: its task.
        seed: its seed.
        status: Sacred's.
        beat: seconds since the last heartbeat; None: it began an hour ago and has just beaten.
        given: as for ``report_runs.put``; also ``curves``, metric -> (steps, values).
    """
    curves, settings = given.pop("curves", None), given.pop("settings", {})
    line = COMMAND.format(method=method, task=task, seed=seed)
    facts = {"learner": LEARNERS.get(method, "kd_mappo_student"), "t_max": 1000, "map_name": task, "command": line}
    folder = report_runs.put(results, number, method, task, seed=seed, settings={**facts, **settings}, **given)
    now = time.time()
    if status != "COMPLETED":
        (folder / "summary.json").unlink()
        host = {"hostname": socket.gethostname(), "cpu": "A processor"}
        change(
            folder / "run.json", status=status, host=host, start_time=utc(now - 3600), heartbeat=utc(now - (beat or 0))
        )
    if curves is not None:
        write_curves(folder, curves)
    (folder / "cout.txt").write_text(f"run {number} began\n")
    return folder


def put_buffer(results, number, *, episodes, mean, where=None, **given):
    """Write a buffer's run, with the host's first test in its metrics, and the facts of its buffer; returns the run."""
    buffer = (where or results) / "buffers" / "3m" / str(number)
    buffer.mkdir(parents=True)
    (buffer / "buffer.json").write_text(json.dumps({"episodes": episodes, "return_mean": mean}))
    curves = {"test_return_mean": ([100], [-119.05]), "test_battle_won_mean": ([100], [0.25])}
    settings = {"buffer_episodes": 500, "t_max": 1_000_000_000}
    folder = put(results, number, method="kd_export", curves=curves, settings=settings, **given)
    (folder / "summary.json").unlink(missing_ok=True)
    teacher = {"path": str(results / "models" / "a teacher" / "400"), "sha256": "0" * 64}
    (folder / "lineage.json").write_text(json.dumps({"stage": "buffer", "teacher": teacher, "buffer": str(buffer)}))
    return folder


def write_curves(folder, curves):
    """Write a run's metrics, metric -> (steps, values)."""
    text = json.dumps({name: {"steps": list(at), "values": list(values)} for name, (at, values) in curves.items()})
    (folder / "metrics.json").write_text(text)


@contextlib.contextmanager
def served(source, suites=None, wait=True) -> Iterator[str]:
    """Serve a source's page on a free port, its address; by default once all runs are read."""
    listener = _listening(0)
    watcher = Watcher(source, suites)
    watcher.start()
    server = uvicorn.Server(uvicorn.Config(application(watcher), log_level="error", access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started and not (wait and source.store.loading is not None))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        watcher.stop()
        thread.join(20)
        listener.close()


def wait_until(true, patience=60.0):
    """Wait for something; fails if it does not come."""
    until = time.monotonic() + patience
    while not true():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.02)


def ask(address, method="GET", **headers):
    """Ask the server: status, headers and body."""
    request = urllib.request.Request(
        address, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()
