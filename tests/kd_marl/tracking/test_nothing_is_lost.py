"""Runs whose server dies, is not there, or is shared: the files are whole, and after a push the database is too."""

from __future__ import annotations

import datetime
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

pymongo = pytest.importorskip("pymongo")
pytest.importorskip("mongomock")

import bson  # noqa: E402

from kd_marl import cli  # noqa: E402
from main_server import ROOT, MainServer  # noqa: E402
from stage_fixtures import words  # noqa: E402
from wire_mongo import MAX_DOCUMENT, WireMongo  # noqa: E402

pytestmark = pytest.mark.slow

KILLS = 20
# Sacred sends at each beat, by default of ten seconds: these runs last only a few of those.
OFTEN = ("--beat-interval=0.2",)
LOGGED = ("test_interval=200", "log_interval=50", "runner_log_interval=50", "learner_log_interval=50")


@pytest.fixture
def server(tmp_path):
    with WireMongo(tmp_path / "journal") as server:
        yield server


def slowly_while(hold: Path) -> str:
    """Python that makes a run log slowly as long as a file is there: it is to last until the test has done its work."""
    return f"""
import os, time
from sacred.run import Run
log = Run.log_scalar
Run.log_scalar = lambda *given, **named: (os.path.exists({str(hold)!r}) and time.sleep(0.05), log(*given, **named))[1]
"""


def tracked(results: Path, url: str, *updates: str) -> list[str]:
    """The command line of a tiny run that is sent to a server."""
    return [*OFTEN, *words("kd_teacher", results, *LOGGED, "tracking=mongo", f"tracking_url={url}", *updates)]


def push(results: Path, server: WireMongo) -> None:
    assert cli.main(["track", "push", str(results), "--url", server.url]) == 0


def folders(results: Path) -> list[Path]:
    return sorted(file.parent for file in results.glob("sacred/*/*/*/run.json"))


def assert_stored_once(server: WireMongo, results: Path) -> None:
    """Each run of the files is one run of the database, with each metric once, point for point."""
    with pymongo.MongoClient(server.url) as client:
        runs = {run["kd_marl"]["folder"]: run for run in client.kd_marl.runs.find()}
        metrics = list(client.kd_marl.metrics.find())
    assert sorted(runs) == [str(folder) for folder in folders(results)]
    for folder in folders(results):
        run = runs[str(folder)]
        assert json.loads((folder / "run.json").read_text())["status"] == run["status"] == "COMPLETED"
        logged = json.loads((folder / "metrics.json").read_text())
        stored = [metric for metric in metrics if metric["run_id"] == run["_id"]]
        assert sorted(metric["name"] for metric in stored) == sorted(logged)
        for metric in stored:
            written = logged[metric["name"]]
            assert (metric["steps"], metric["values"]) == (written["steps"], written["values"]), metric["name"]
            assert [time.isoformat() for time in metric["timestamps"]] == milliseconds(written["timestamps"])
    assert len(metrics) == sum(len(json.loads((f / "metrics.json").read_text())) for f in folders(results))


def milliseconds(times: list[str]) -> list[str]:
    """Times as BSON keeps them."""
    found = map(datetime.datetime.fromisoformat, times)
    return [time.replace(microsecond=time.microsecond // 1000 * 1000).isoformat() for time in found]


def test_twenty_kills_of_the_server_lose_nothing_and_double_nothing(mains: MainServer, server, tmp_path):
    results, hold = tmp_path / "results", tmp_path / "hold"
    hold.touch()
    moments = random.Random(1)
    process = mains.start(*tracked(results, server.url, "t_max=6000", "seed=1"), before=slowly_while(hold))
    while not list(results.glob("sacred/*/*/*/metrics.json")):
        time.sleep(0.1)
    for kill in range(KILLS):
        time.sleep(moments.uniform(0.0, 0.8))
        server.kill()
        assert os.path.exists(f"/proc/{process}"), f"the run ended after {kill} kills: give it more steps"
        if kill < KILLS - 1:
            time.sleep(moments.uniform(0.0, 0.4))
            server.start()
    hold.unlink()
    finished = mains.wait().check()
    assert finished.err.count("the run goes on") == 1
    server.start()
    push(results, server)
    assert_stored_once(server, results)
    push(results, server)
    assert_stored_once(server, results)


def test_answers_that_are_lost_double_nothing(mains: MainServer, server, tmp_path):
    """The server has done what it was told, and the run does not know."""
    with pymongo.MongoClient(server.url) as client:
        lost = {"failCommands": ["insert", "update"], "closeConnection": True, "afterwards": True}
        client.admin.command("configureFailPoint", "failCommand", mode={"times": 12}, data=lost)
        finished = mains.run(*tracked(tmp_path / "results", server.url, "t_max=2000", "seed=1")).check()
        client.admin.command("configureFailPoint", "failCommand", mode="off")
    assert finished.err.count("the run goes on") == 1
    push(tmp_path / "results", server)
    assert_stored_once(server, tmp_path / "results")


def test_a_run_that_never_met_its_server_ends_well_and_is_pushed_later(mains: MainServer, server, tmp_path):
    server.kill()
    finished = mains.run(*tracked(tmp_path / "results", server.url, "seed=1")).check()
    assert finished.err.count("the run goes on") == 1
    [pushing] = re.findall(r"kd-marl track push (\S+) --db kd_marl", finished.err)
    assert Path(pushing) == folders(tmp_path / "results")[0]
    server.start()
    push(tmp_path / "results", server)
    assert_stored_once(server, tmp_path / "results")


def test_eight_runs_at_once_into_one_database_neither_clash_nor_lose(server, tmp_path):
    logs = [tmp_path / f"log {seed}" for seed in range(8)]
    running = []
    for seed, log in enumerate(logs):
        line = tracked(tmp_path / "results", server.url, f"seed={seed}", "t_max=200", "eval_episodes=4")
        with open(log, "w") as file:
            command = [sys.executable, "src/main.py", *line]
            running.append(subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file))
    for process, log in zip(running, logs, strict=True):
        assert process.wait() == 0, log.read_text()
    with pymongo.MongoClient(server.url) as client:
        assert sorted(client.kd_marl.runs.distinct("_id")) == list(range(1, 9))
    if any("track push" in log.read_text() for log in logs):  # so busy that the server kept a run waiting
        push(tmp_path / "results", server)
    assert_stored_once(server, tmp_path / "results")


def test_three_hours_of_frequent_logging_stay_below_what_a_document_may_hold(server, tmp_path):
    """Thirty curves with a point a second, one with twenty a second, and four lines of output a second."""
    folder = tmp_path / "results" / "sacred" / "kd_teacher" / "3m" / "1"
    folder.mkdir(parents=True)
    begun = datetime.datetime(2026, 11, 1)
    names = [f"metric {number}" for number in range(30)]

    def write(hours: int, status: str) -> None:
        def curve(a_second: int) -> dict:
            times = [begun + datetime.timedelta(seconds=i / a_second) for i in range(hours * 3600 * a_second)]
            steps = list(range(len(times)))
            return {
                "steps": steps,
                "values": [step / 7 for step in steps],
                "timestamps": [time.isoformat() for time in times],
            }

        curves = {**dict.fromkeys(names, curve(1)), "frequent": curve(20)}
        now = (begun + datetime.timedelta(hours=hours)).isoformat()
        times = {"start_time": begun.isoformat(), "heartbeat": now, "stop_time": now}
        account = {"status": status, "experiment": {"name": "pymarl", "sources": []}, "host": {}, **times}
        (folder / "run.json").write_text(json.dumps(account))
        (folder / "config.json").write_text(json.dumps({"name": "kd_teacher", "env": "smax", "seed": 1}))
        (folder / "metrics.json").write_text(json.dumps(curves))
        (folder / "info.json").write_text(json.dumps({name: points["values"] for name, points in curves.items()}))
        (folder / "cout.txt").write_text("".join(f"line {i}: {'x' * 500}\n" for i in range(hours * 3600 * 4)))

    for hours, status in ((1, "INTERRUPTED"), (2, "INTERRUPTED"), (3, "COMPLETED")):
        write(hours, status)
        push(tmp_path / "results", server)
    with pymongo.MongoClient(server.url) as client:
        stored = client.kd_marl
        for collection in stored.list_collection_names():
            assert max(len(bson.encode(document)) for document in stored[collection].find()) < 0.75 * MAX_DOCUMENT
        whole = [metric["values"] for metric in stored.metrics.find({"name": names[-1]})]
        parts = stored.metrics.find({"name": {"$regex": "^frequent"}}).sort("name")
        assert whole == [[step / 7 for step in range(3 * 3600)]]
        assert [value for part in parts for value in part["values"]] == [step / 7 for step in range(3 * 3600 * 20)]
        run = stored.runs.find_one()
        files = {entry["name"]: entry["file_id"] for entry in run["artifacts"]}
        assert "line 0:" in run["captured_out"]
        assert f"line {3 * 3600 * 4 - 1}:" in run["captured_out"]
        assert stored["fs.files"].find_one({"_id": files["cout.txt"]})["length"] == (folder / "cout.txt").stat().st_size
