"""A run's documents are brought up to its files: again changes nothing, an interruption loses and doubles nothing."""

from __future__ import annotations

import hashlib
import json
import shutil

import pymongo
import pytest
from pymongo.errors import AutoReconnect

import tracked_runs
from kd_marl.runs import lineage
from kd_marl.tracking import documents
from tracked_runs import bring_up, content, curves, rewrite


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tracked_runs.run(tmp_path_factory.mktemp("results"), tracked_runs.logging())
    (folder / "summary.json").write_text(json.dumps({"student": {"return_mean": 1.0}}))
    # Of several pieces.
    (folder / "plot.png").write_bytes(bytes(range(256)) * 2500)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(finished.parent, tmp_path / "results")
    return tmp_path / "results" / "1"


@pytest.fixture(scope="module")
def server():
    with tracked_runs.served() as running:
        yield running


@pytest.fixture
def database(server):
    return server.empty()


def test_twice_is_once(folder, database):
    assert bring_up(database, folder) is True
    once = content(database)
    assert bring_up(database, folder) is False
    assert content(database) == once
    assert curves(database) == {
        "loss": ([0, 1, 2, 3, 4], [0.0, 1.0, 2.0, 3.0, 4.0]),
        "return": (
            [0, 1, 2, 3, 4],
            [100.0, 101.0, 102.0, 103.0, 104.0],
        ),
    }


@pytest.mark.parametrize("answer_lost", [False, True])
def test_whenever_it_is_cut_off_the_next_time_ends_with_the_same_documents(folder, server, answer_lost):
    whole = server.empty()
    bring_up(whole, folder)
    cuts = 0
    for calls in range(200):
        database = server.empty()
        # A client of its own: one that has met a dead server waits before it asks again.
        with pymongo.MongoClient(server.address, retryReads=False) as client, server.dying(calls, answer_lost):
            try:
                bring_up(client[database.name], folder)
                break
            except AutoReconnect:
                cuts += 1
        bring_up(database, folder)
        assert content(database) == content(whole)
    # The indexes, the number, the metrics, each file and each of its pieces, the document.
    assert cuts > 15


def test_a_run_that_goes_on_is_appended_to(folder, database):
    whole = json.loads((folder / "metrics.json").read_text())
    for size in (0, 1, 3, 5):
        part = {name: {key: points[:size] for key, points in entry.items()} for name, entry in whole.items()}
        (folder / "metrics.json").write_text(json.dumps(part if size else {}))
        bring_up(database, folder)
        assert {len(values) for _, values in curves(database).values()} == ({size} if size else set())
    assert curves(database)["loss"] == ([0, 1, 2, 3, 4], [0.0, 1.0, 2.0, 3.0, 4.0])


def test_two_that_append_at_once_append_once(folder, database, monkeypatch):
    once = documents.points
    bring_up(database, folder)
    with_more = tracked_runs.logging(points=9)
    grown = tracked_runs.run(folder.parent / "other", with_more)
    shutil.copy(grown / "metrics.json", folder / "metrics.json")

    def overtaken(curve, start):
        monkeypatch.setattr(documents, "points", once)
        bring_up(database, folder)
        return once(curve, start)

    monkeypatch.setattr(documents, "points", overtaken)
    bring_up(database, folder)
    assert all(steps == list(range(9)) for steps, _ in curves(database).values())


def test_numbers_of_runs_do_not_clash_with_those_that_are_there(folder, server, database, monkeypatch):
    database["runs"].insert_many([{"_id": 7, "status": "COMPLETED"}, {"_id": "named by --id"}])
    insert, taken = server.engine.do_insert, []

    def taken_just_before(name, command):
        if command["insert"] == "runs" and not taken:
            taken.append(insert(name, {"insert": "runs", "documents": [{"_id": command["documents"][0]["_id"]}]}))
        return insert(name, command)

    monkeypatch.setattr(server.engine, "do_insert", taken_just_before)
    bring_up(database, folder)
    assert database["runs"].find_one({"kd_marl": {"$exists": True}})["_id"] == 9
    assert set(curves(database, 9)) == {"loss", "return"}
    # Somebody else's database keeps its columns.
    assert "omniboard.custom.columns" not in database.list_collection_names()


def test_a_student_names_the_runs_of_its_teacher_and_its_buffer(tmp_path, database):
    results, weights = tmp_path / "results", tmp_path / "model"
    weights.mkdir()
    (weights / "agent.th").write_bytes(b"weights")
    teacher = {"path": str(weights), "sha256": hashlib.sha256(b"weights").hexdigest()}
    folders = {}
    for stage in ("student", "buffer", "teacher"):
        folders[stage] = tracked_runs.run(results, tracked_runs.logging(), name=stage)
    lineage.write(folders["teacher"], "teacher", None, None, weights)
    lineage.write(folders["buffer"], "buffer", teacher, tmp_path / "buffer")
    lineage.write(folders["student"], "student", teacher, tmp_path / "buffer")
    for stage in ("student", "teacher", "buffer"):
        bring_up(database, folders[stage])
    # Its parents were not there yet; that alone is worth another look.
    assert bring_up(database, folders["student"]) is True
    assert bring_up(database, folders["student"]) is False
    parents = {run["info"]["stage"]: run["info"]["parents"] for run in database["runs"].find()}
    assert parents == {"student": {"teacher": 2, "buffer": 3}, "teacher": {}, "buffer": {"teacher": 2}}


def test_a_file_that_changed_takes_the_place_of_the_old_one(folder, database):
    bring_up(database, folder)
    before = database["fs.files"].count_documents({})
    rewrite(folder / "summary.json", retention=0.5)
    assert bring_up(database, folder) is True
    assert database["fs.files"].count_documents({}) == before
    artifacts = {entry["name"]: entry["file_id"] for entry in database["runs"].find_one()["artifacts"]}
    chunks = database["fs.chunks"].find({"files_id": artifacts["summary.json"]})
    assert b"".join(chunk["data"] for chunk in chunks) == (folder / "summary.json").read_bytes()
    pieces = sorted(database["fs.chunks"].find({"files_id": artifacts["plot.png"]}), key=lambda piece: piece["n"])
    assert len(pieces) == 3 and b"".join(piece["data"] for piece in pieces) == (folder / "plot.png").read_bytes()


def test_what_a_user_wrote_in_omniboard_stays(folder, database):
    bring_up(database, folder)
    assert database["runs"].find_one()["omniboard"] == {"tags": ["student", "spread", "lh"]}
    database["runs"].update_one({}, {"$set": {"omniboard": {"tags": ["best"], "notes": "for the paper"}}})
    rewrite(folder / "summary.json", retention=0.5)
    bring_up(database, folder)
    assert database["runs"].find_one()["omniboard"] == {"tags": ["best"], "notes": "for the paper"}


def test_a_run_that_was_deleted_there_can_be_sent_again(folder, database):
    bring_up(database, folder)
    database["runs"].delete_many({})
    database["runs"].insert_one({"_id": 1})
    bring_up(database, folder)
    assert curves(database, 1) == {} and set(curves(database, 2)) == {"loss", "return"}
