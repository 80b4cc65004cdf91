"""A run that is sent while it lasts: whatever the server does, the run ends well, soon, and with one warning."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch

import tracked_runs
from kd_marl.plugin.observer import RunRecord
from kd_marl.tracking import follower
from kd_marl.tracking.destination import Destination
from tracked_runs import bring_up, content, curves, log
from wire_mongo import WireMongo

# What a test waits for at most; beats come every 0.1 s.
PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def server():
    with tracked_runs.served() as running:
        yield running


@pytest.fixture
def destination(server):
    return Destination(f"mongodb://{server.address}", server.empty().name)


def warnings(caplog):
    ours = [record for record in caplog.records if record.name == follower.__name__]
    return [record.getMessage() for record in ours if record.levelname == "WARNING"]


def wait_for(condition):
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.02)


def status(folder):
    return json.loads((folder / "run.json").read_text())["status"]


def test_what_is_sent_live_is_what_a_push_would_send(tmp_path, server, destination, caplog):
    database = server.client[destination.database]

    def work(run):
        tracked_runs.logging()(run)
        wait_for(lambda: curves(database).get("loss", ([], []))[0] == [0, 1, 2, 3, 4])
        assert database["runs"].find_one()["status"] == "RUNNING"
        tracked_runs.logging(points=2)(run)
        return 7

    folder = tracked_runs.run(tmp_path, work, destination)
    document = database["runs"].find_one()
    assert (document["status"], document["_id"]) == ("COMPLETED", 1)
    assert curves(database)["loss"][0] == [0, 1, 2, 3, 4, 0, 1]
    assert not warnings(caplog)
    assert bring_up(database, folder) is False
    pushed = server.empty()
    bring_up(pushed, folder)
    assert content(database) == content(pushed)


@pytest.mark.parametrize(
    ("ending", "expected"), [(KeyboardInterrupt, "INTERRUPTED"), (ZeroDivisionError, "FAILED"), (None, "COMPLETED")]
)
def test_however_a_run_ends_that_stands_in_the_database(tmp_path, server, destination, ending, expected):
    def work(run):
        tracked_runs.logging()(run)
        if ending:
            raise ending("the end")

    folder = tracked_runs.run(tmp_path, work, destination)
    document = server.client[destination.database]["runs"].find_one()
    assert document["status"] == status(folder) == expected
    assert ("the end" in "".join(document.get("fail_trace", []))) == (expected == "FAILED")


def test_numbers_of_any_kind_lose_no_later_ones(tmp_path, server, destination, caplog):
    def work(run):
        run.info["numpy"] = np.float64(0.5)
        for step, value in enumerate(
            [np.float32(1.5), 2**70, [1, 2], torch.tensor(3.0), "text", None, float("nan"), 9]
        ):
            run.log_scalar("any", value, np.int64(step))
            run.log_scalar("other", float(step), step)
        time.sleep(0.3)
        run.log_scalar("any", 10.0, 8)
        return np.float64(2.5)

    tracked_runs.run(tmp_path, work, destination)
    database = server.client[destination.database]
    found = curves(database)
    assert found["any"][0] == list(range(9)) and found["other"][0] == list(range(8))
    values = found["any"][1]
    assert values[:6] == [1.5, float(2**70), None, None, None, None] and np.isnan(values[6]) and values[7:] == [9, 10.0]
    assert database["runs"].find_one()["info"]["numpy"] == 0.5
    assert not warnings(caplog)


def test_without_a_server_a_run_ends_well_and_soon_and_can_be_sent_later(tmp_path, server, caplog):
    caplog.set_level("INFO")
    nowhere = Destination("mongodb://127.0.0.1:1", "kd")
    before = time.monotonic()
    folder = tracked_runs.run(tmp_path, tracked_runs.logging(), nowhere)
    assert time.monotonic() - before < follower.LAST_S + 5
    assert status(folder) == "COMPLETED"
    assert [text for text in warnings(caplog) if "nobody answers there" in text] == warnings(caplog)
    assert len(warnings(caplog)) == 1 and str(folder) in warnings(caplog)[0]
    assert f"kd-marl track push {folder} --db kd" in caplog.text
    database = server.empty()
    bring_up(database, folder)
    assert curves(database)["loss"][0] == [0, 1, 2, 3, 4]


def test_a_server_that_dies_and_comes_back_has_every_number_once(tmp_path, caplog):
    with WireMongo(tmp_path / "store") as running:
        destination = Destination(running.url, "kd")

        def work(run):
            for step in range(60):
                log(run, "loss", float(step), step)
                if step == 10:
                    wait_for(lambda: sent("loss"))
                    running.kill()
                if step == 30:
                    wait_for(lambda: warnings(caplog))
                    running.start()
                time.sleep(0.01)

        def sent(name):
            with destination.connect(5.0) as client:
                return client["kd"]["metrics"].find_one({"name": name})

        folder = tracked_runs.run(tmp_path, work, destination)
        assert sent("loss")["steps"] == list(range(60)) and status(folder) == "COMPLETED"
        assert len(warnings(caplog)) == 1


def test_a_heartbeat_that_outlasts_the_run_is_sent_too(tmp_path, server, destination):
    record = RunRecord(str(tmp_path))
    sending = follower.Follower(destination, record)
    folder = tracked_runs.run(tmp_path, tracked_runs.logging())
    record.dir = str(folder)
    sending.completed_event()
    whole = json.loads((folder / "metrics.json").read_text())
    for curve in whole.values():
        for points in curve.values():
            points.append(points[-1])
    (folder / "metrics.json").write_text(json.dumps(whole))
    sending.heartbeat_event()
    assert curves(server.client[destination.database])["loss"][0] == [0, 1, 2, 3, 4, 4]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"errorCode": 14031}, "it refuses"),
        ({"errorCode": 13}, "refuses the user or the password"),
        ({"blockConnection": True, "blockTimeMS": 60_000}, "it takes too long"),
        ({"closeConnection": True, "afterwards": True}, "the connection broke"),
    ],
)
def test_a_full_or_slow_server_costs_one_warning(tmp_path, server, destination, caplog, monkeypatch, fault, reason):
    monkeypatch.setattr(follower, "PATIENCE_S", 0.5)
    monkeypatch.setattr(follower, "LAST_S", 2.0)
    writing = {"failCommands": ["insert", "update", "createIndexes"], **fault}

    def work(run):
        tracked_runs.logging()(run)
        server.client["admin"].command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": writing})
        wait_for(lambda: warnings(caplog))

    before = time.monotonic()
    try:
        folder = tracked_runs.run(tmp_path, work, destination)
    finally:
        server.client["admin"].command({"configureFailPoint": "failCommand", "mode": "off"})
    assert time.monotonic() - before < PATIENCE_S
    assert status(folder) == "COMPLETED"
    assert len(warnings(caplog)) == 1 and reason in warnings(caplog)[0]


def test_the_password_lands_nowhere(tmp_path, caplog, capfd):
    account = "reader:s3cret-of-this-test"
    with tracked_runs.served(account) as server:
        database = server.empty()
        right = Destination(f"mongodb://{account}@{server.address}", database.name)
        wrong = Destination(f"mongodb://{account}-wrong@{server.address}", database.name)
        caplog.set_level("DEBUG")
        tracked_runs.run(tmp_path, tracked_runs.logging(), right)
        tracked_runs.run(tmp_path, tracked_runs.logging(), wrong)
        assert "refuses the user or the password" in warnings(caplog)[0]
        assert set(curves(database)) == {"loss", "return"}
        texts = [str(content(database)), str(content(server.client["admin"])), repr(right), right.server]
    texts += [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    texts += [record.getMessage() for record in caplog.records] + list(capfd.readouterr())
    assert not [text for text in texts if "s3cret" in text]
