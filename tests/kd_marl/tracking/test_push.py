"""`kd-marl track push`: each run once, resumed after an interruption, and one line for whatever is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid

import pymongo
import pytest

import tracked_runs
from kd_marl.cli import main
from kd_marl.tracking import push
from kd_marl.tracking.destination import URL_VARIABLE
from tracked_runs import content, curves, rewrite

# A MongoDB server that a test may write to, a database of its own each time.
REAL = os.environ.get(URL_VARIABLE, "")


def interrupted(run):
    tracked_runs.logging()(run)
    raise KeyboardInterrupt


def failed(run):
    tracked_runs.logging()(run)
    raise ZeroDivisionError("the end")


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Results of a finished, an interrupted and a failed run."""
    results = tmp_path_factory.mktemp("results")
    for seed, work in enumerate((tracked_runs.logging(), interrupted, failed)):
        tracked_runs.run(results, work, seed=seed)
    return results


@pytest.fixture
def results(three, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(three, tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture(scope="module")
def server():
    with tracked_runs.served() as running:
        yield running


@pytest.fixture
def database(server):
    return server.empty()


@pytest.fixture
def send(server, database, monkeypatch):
    """Sends folders to the database; returns the exit status."""
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    return lambda *folders: main(["track", "push", *map(str, folders), "--url", server.address, "--db", database.name])


def test_finished_interrupted_and_failed_runs_are_sent_once_each(results, database, send, capsys):
    assert send(results) == 0
    assert "3 sent, 0 there already" in capsys.readouterr().out
    assert [run["status"] for run in database["runs"].find().sort("_id")] == ["COMPLETED", "INTERRUPTED", "FAILED"]
    once = content(database)
    assert send(results, results / "sacred") == 0
    assert "0 sent, 3 there already" in capsys.readouterr().out
    assert content(database) == once


def test_a_copy_of_the_results_is_there_already(results, database, send, capsys, tmp_path):
    send(results)
    shutil.copytree(results, tmp_path / "copy")
    assert send(tmp_path / "copy") == 0
    assert "0 sent, 3 there already" in capsys.readouterr().out
    assert database["runs"].count_documents({}) == 3


def test_an_older_copy_takes_nothing_away(results, database, send, capsys, tmp_path):
    shutil.copytree(results, tmp_path / "backup")
    for folder in (tmp_path / "backup" / "sacred" / "kd_student" / "spread").glob("[0-9]*"):
        rewrite(folder / "run.json", status="RUNNING", heartbeat="2026-01-01T00:00:00.000001", stop_time=None)
        (folder / "metrics.json").unlink()
    send(results)
    once = content(database)
    capsys.readouterr()
    send(tmp_path / "backup", results)
    assert content(database) == once


def test_a_copy_that_lacks_files_takes_nothing_away(results, database, send, tmp_path):
    run = results / "sacred" / "kd_student" / "spread" / "1"
    rewrite(run / "summary.json", policy={"return_mean": 1.0})
    shutil.copytree(results, tmp_path / "backup")
    send(results)
    once = content(database)
    (tmp_path / "backup" / run.relative_to(results) / "summary.json").unlink()
    send(tmp_path / "backup")
    assert content(database) == once


def test_a_run_too_large_for_a_document_is_a_line(results, database, send, capsys):
    run = results / "sacred" / "kd_student" / "spread" / "1" / "run.json"
    rewrite(run, experiment={"name": "x" * (17 << 20)})
    assert send(results) == 1
    shown = capsys.readouterr()
    assert "is damaged (DocumentTooLarge" in shown.err and "2 sent, 0 there already, 1 that cannot be read" in shown.out


def test_an_interruption_by_the_server_is_one_line_and_the_command_goes_on(results, server, database, send, capsys):
    with server.dying(25, answer_lost=True):
        assert send(results) == 2
    error = capsys.readouterr().err
    assert re.search(r"error: 127\.0\.0\.1:\d+: .*; \d of 3 runs are in test-\d+: repeat the command to go on\n", error)
    assert "Traceback" not in error
    assert send(results) == 0
    whole = server.empty()
    assert main(["track", "push", str(results), "--url", server.address, "--db", whole.name]) == 0
    assert content(database) == content(whole)


def test_ctrl_c_is_one_line_and_the_command_goes_on(results, database, send, capsys, monkeypatch):
    bring_up = push.Database.bring_up

    def stopped(self, run):
        if database["runs"].count_documents({}) == 1:
            raise KeyboardInterrupt
        return bring_up(self, run)

    with monkeypatch.context() as patched:
        patched.setattr(push.Database, "bring_up", stopped)
        assert send(results) == 2
    assert "stopped; 1 of 3 runs are in" in capsys.readouterr().err
    assert send(results) == 0
    assert "2 sent, 1 there already" in capsys.readouterr().out


def test_without_a_server_it_says_so(results, capsys, monkeypatch):
    monkeypatch.setattr(push, "PATIENCE_S", 0.3)
    assert main(["track", "push", str(results), "--url", "127.0.0.1:1"]) == 2
    assert "error: 127.0.0.1:1: nobody answers there; 0 of 3 runs" in capsys.readouterr().err


def test_a_damaged_run_is_named_and_the_others_are_sent(results, database, send, capsys):
    runs = sorted((results / "sacred" / "kd_student" / "spread").glob("[0-9]*"))
    (runs[0] / "metrics.json").write_text('{"loss": {"steps"')
    (runs[1] / "summary.json").write_text('{"student": 5}')
    assert send(results) == 1
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if "error" in line]
    assert len(lines) == 2 and str(runs[0] / "metrics.json") in lines[0] and f"{runs[1]} is damaged" in lines[1]
    assert "1 sent, 0 there already, 2 that cannot be read" in shown.out
    assert database["runs"].find_one({"status": "FAILED"})


def test_a_run_that_is_still_running_sends_itself(results, database, send, capsys):
    run = results / "sacred" / "kd_student" / "spread" / "1"
    shutil.copytree(run, run.with_name("9"))
    alive = {"status": "RUNNING", "start_time": "2999-01-01T00:00:00.000001", "heartbeat": "2999-01-01T00:00:00.000001"}
    rewrite(run.with_name("9") / "run.json", **alive)
    assert send(results) == 0
    assert "3 sent, 0 there already, 1 still running" in capsys.readouterr().out
    # One that was killed has stayed so.
    rewrite(run.with_name("9") / "run.json", **{**alive, "heartbeat": "2026-01-01T00:00:00.000001"})
    assert send(results) == 0
    assert "1 sent, 3 there already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["/no/such/folder", "--url", "localhost"], "/no/such/folder is no folder"),
        (["{empty}", "--url", "localhost"], "no run in"),
        (["{empty}"], "no MongoDB server is named: give --url"),
        (["{empty}", "--url", "mongodb://me:s3cret@localhost"], "--url holds a password"),
        (["{empty}", "--url", "localhost", "--db", "a/b"], "--db 'a/b' names no database"),
    ],
)
def test_a_mistake_is_one_line(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    assert main(["track", "push", *(word.format(empty=tmp_path) for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "s3cret" not in error


def test_a_real_server_has_every_number_once(results, capsys):
    if not REAL:
        pytest.skip(f"set {URL_VARIABLE} to a MongoDB server that may be written to")
    name = f"kd_marl_test_{uuid.uuid4().hex}"
    metrics = results / "sacred" / "kd_student" / "spread" / "1" / "metrics.json"
    whole = json.loads(metrics.read_text())
    with pymongo.MongoClient(REAL) as client:
        try:
            for size in (2, 5):
                part = {key: {kind: points[:size] for kind, points in curve.items()} for key, curve in whole.items()}
                metrics.write_text(json.dumps(part))
                assert main(["track", "push", str(results), "--db", name]) == 0
            once = content(client[name])
            assert main(["track", "push", str(results), "--db", name]) == 0
            assert content(client[name]) == once
            assert curves(client[name])["loss"] == (whole["loss"]["steps"], whole["loss"]["values"])
            assert client[name]["runs"].count_documents({}) == 3
        finally:
            client.drop_database(name)
