"""The server that stands in for MongoDB in the tests: what drivers ask of it, answered as MongoDB does.

Where KD_MARL_MONGO_URL names a real MongoDB, the same questions go to it too.
"""

from __future__ import annotations

import os
import signal
import threading
import uuid

import pytest

pymongo = pytest.importorskip("pymongo")
pytest.importorskip("mongomock")

import gridfs  # noqa: E402
from pymongo.errors import AutoReconnect, BulkWriteError, DuplicateKeyError, OperationFailure, WriteError  # noqa: E402

from wire_mongo import WireMongo  # noqa: E402

REAL = os.environ.get("KD_MARL_MONGO_URL")


@pytest.fixture
def server(tmp_path):
    with WireMongo(tmp_path / "journal") as server:
        yield server


def client_of(server):
    return pymongo.MongoClient(server.url, serverSelectionTimeoutMS=3000, retryReads=False)


@pytest.fixture(params=["stand-in", *(["MongoDB"] if REAL else [])])
def database(request):
    url = REAL if request.param == "MongoDB" else request.getfixturevalue("server").url
    with pymongo.MongoClient(url, serverSelectionTimeoutMS=3000) as client:
        name = f"kd_marl_test_{uuid.uuid4().hex[:12]}"
        yield client[name]
        client.drop_database(name)


def test_what_is_written_is_found_sorted_cut_and_projected(database):
    database.runs.insert_many([{"_id": i, "config": {"seed": i % 3, "name": f"run {i}"}} for i in range(250)])
    found = database.runs.find({"config.seed": 1}, {"config.name": 1}).sort("_id", -1).skip(1).limit(2)
    assert list(found) == [
        {"_id": 244, "config": {"name": "run 244"}},
        {"_id": 241, "config": {"name": "run 241"}},
    ]
    assert [run["_id"] for run in database.runs.find().batch_size(7)] == list(range(250))
    assert database.runs.count_documents({"config.seed": 0}) == 84
    assert database.runs.estimated_document_count() == 250
    assert sorted(database.runs.distinct("config.seed")) == [0, 1, 2]
    assert database.list_collection_names() == ["runs"]


def test_updates_say_what_they_did(database):
    metrics = database.metrics
    first = metrics.update_one({"name": "loss"}, {"$push": {"values": {"$each": [1.0, 2.0]}}}, upsert=True)
    second = metrics.update_one({"name": "loss"}, {"$push": {"values": {"$each": [3.0]}}}, upsert=True)
    assert (first.matched_count, second.matched_count, second.upserted_id) == (0, 1, None)
    assert list(metrics.find()) == [{"_id": first.upserted_id, "name": "loss", "values": [1.0, 2.0, 3.0]}]
    metrics.insert_many([{"name": "return"}, {"name": "return"}])
    assert metrics.update_many({"name": "return"}, {"$set": {"unit": "points"}}).modified_count == 2
    assert metrics.replace_one({"name": "loss"}, {"name": "kl"}).modified_count == 1
    assert metrics.find_one({"name": "kl"}) == {"_id": first.upserted_id, "name": "kl"}
    counted = metrics.find_one_and_update(
        {"_id": "counter"}, {"$inc": {"next": 1}}, upsert=True, return_document=pymongo.ReturnDocument.AFTER
    )
    assert counted == {"_id": "counter", "next": 1}
    assert metrics.find_one_and_delete({"_id": "counter"}) == counted
    assert metrics.delete_many({"name": "return"}).deleted_count == 2
    bulk = [pymongo.UpdateOne({"step": 1}, {"$inc": {"n": 1}}, upsert=True)] * 2
    assert len(metrics.bulk_write(bulk).upserted_ids) == 1
    assert metrics.find_one({"step": 1})["n"] == 2
    assert metrics.replace_one({"step": 2}, {"_id": "second", "step": 2}, upsert=True).upserted_id == "second"


def test_an_id_is_given_once(database):
    database.runs.insert_one({"_id": 1})
    with pytest.raises(
        DuplicateKeyError, match=r"E11000 duplicate key error collection: .*runs index: _id_ dup key"
    ) as e:
        database.runs.insert_one({"_id": 1})
    assert (e.value.details["keyPattern"], e.value.details["keyValue"]) == ({"_id": 1}, {"_id": 1})
    with pytest.raises(BulkWriteError) as bulk:
        database.runs.insert_many([{"_id": 2}, {"_id": 1}, {"_id": 3}], ordered=False)
    assert bulk.value.details["nInserted"] == 2
    database.metrics.create_index([("run_id", 1), ("name", 1)], unique=True)
    database.metrics.insert_one({"run_id": 1, "name": "loss"})
    with pytest.raises(DuplicateKeyError, match="run_id_1_name_1"):
        database.metrics.insert_one({"run_id": 1, "name": "loss"})
    assert set(database.metrics.index_information()) == {"_id_", "run_id_1_name_1"}


def test_a_document_that_is_too_large_is_refused_and_the_old_one_stays(database):
    database.metrics.insert_one({"_id": 1, "values": []})
    half = "x" * 9 * 2**20
    database.metrics.update_one({"_id": 1}, {"$push": {"values": half}})
    with pytest.raises(WriteError, match="larger than"):
        database.metrics.update_one({"_id": 1}, {"$push": {"values": half}})
    assert len(database.metrics.find_one({"_id": 1})["values"]) == 1


def test_a_failed_update_changes_nothing(database):
    database.runs.insert_one({"_id": 1, "status": "RUNNING", "info": {}})
    with pytest.raises(OperationFailure):
        database.runs.update_one({"_id": 1}, {"$set": {"status": "COMPLETED"}, "$push": {"info": 1}})
    assert database.runs.find_one() == {"_id": 1, "status": "RUNNING", "info": {}}


def test_files_come_back_whole(database):
    data = bytes(range(256)) * 3000
    files = gridfs.GridFS(database)
    file = files.put(data, filename="artifact://runs/1/agent.th")
    assert files.get(file).read() == data
    assert files.find_one({"filename": "artifact://runs/1/agent.th"})._id == file


def test_pipelines_count_and_look_up_as_dashboards_ask(database):
    loss = database.metrics.insert_one({"run_id": 1, "name": "train.loss", "values": [3, 1]}).inserted_id
    database.runs.insert_many([{"_id": 1, "info": {"metrics": [{"id": str(loss)}]}}, {"_id": 2, "info": {}}])
    assert database.runs.aggregate([{"$collStats": {"count": {}}}]).next()["count"] == 2
    its_metric = {"$match": {"$expr": {"$and": [{"$eq": ["$_id", "$$metric"]}, {"$in": ["$name", ["train.loss"]]}]}}}
    looked_up = {
        "from": "metrics",
        "let": {"metric": {"$toObjectId": "$info.metrics.id"}},
        "pipeline": [its_metric],
        "as": "metric",
    }
    join = {"$concat": ["$$value", {"$cond": [{"$eq": ["$$value", ""]}, "", "_"]}, "$$this"]}
    joined = {"$reduce": {"input": {"$split": ["$metric.name", "."]}, "initialValue": "", "in": join}}
    found = database.runs.aggregate(
        [
            {"$unwind": {"path": "$info.metrics", "preserveNullAndEmptyArrays": True}},
            {"$lookup": looked_up},
            {"$addFields": {"metric": {"$arrayElemAt": ["$metric", 0]}}},
            {"$project": {"values": "$metric.values", "name": joined}},
            {"$sort": {"_id": 1}},
        ]
    )
    one, two = found
    assert one == {"_id": 1, "values": [3, 1], "name": "train_loss"}
    assert (two["_id"], two.get("values"), two["name"]) == (2, None, None)


def test_what_does_not_exist_is_said(database):
    with pytest.raises(OperationFailure, match="no such command: 'kdMarl'") as error:
        database.command("kdMarl")
    assert error.value.code == 59


def test_acknowledged_writes_survive_kill_and_a_torn_last_entry(server):
    with client_of(server) as client:
        ids = [client.kd.metrics.update_one({"n": n}, {"$set": {"x": n}}, upsert=True).upserted_id for n in range(20)]
        client.kd.metrics.delete_one({"n": 3})
        os.kill(server.process.pid, signal.SIGKILL)
        with pytest.raises(AutoReconnect):
            client.kd.metrics.find_one()
        server.kill()
        with open(server.store, "ab") as journal:
            journal.write(b"\x40\x00\x00\x00torn")
        server.start()
        found = {row["_id"]: row["n"] for row in client.kd.metrics.find()}
    assert found == {id_: n for n, id_ in enumerate(ids) if n != 3}
    server.kill()
    server.start()
    with client_of(server) as client:
        assert client.kd.metrics.count_documents({}) == 19


def test_many_clients_at_once_lose_nothing(server):
    def write(client, number):
        for _ in range(25):
            client.kd.counts.update_one({"_id": "all"}, {"$inc": {"n": 1}, "$push": {"by": number}}, upsert=True)

    with client_of(server) as client:
        client.kd.counts.insert_one({"_id": "all"})
        threads = [threading.Thread(target=write, args=(client, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = client.kd.counts.find_one()
    assert found["n"] == 200
    assert all(found["by"].count(number) == 25 for number in range(8))


def test_it_can_be_told_to_be_full_slow_and_forgetful(server):
    with client_of(server) as client:

        def fail(mode, **data):
            client.admin.command(
                "configureFailPoint", "failCommand", mode=mode, data={"failCommands": ["insert"], **data}
            )

        fail({"times": 1}, errorCode=14031)
        with pytest.raises(OperationFailure, match="fail point"):
            client.kd.runs.insert_one({"_id": 1})
        fail({"times": 1}, closeConnection=True, afterwards=True)
        with pytest.raises(AutoReconnect):
            client.kd.runs.insert_one({"_id": 2})
        with pymongo.MongoClient(server.url, socketTimeoutMS=100) as hasty:
            fail("alwaysOn", blockConnection=True, blockTimeMS=500)
            with pytest.raises(AutoReconnect):
                hasty.kd.runs.insert_one({"_id": 3})
        fail("off")
        assert client.kd.runs.find_one() == {"_id": 2}


def test_without_the_password_nothing_is_told(tmp_path):
    with WireMongo(tmp_path / "journal", account="kd:secret") as server:
        with client_of(server) as client:
            client.kd.runs.insert_one({"_id": 1})
            assert client.kd.runs.count_documents({}) == 1
        for url, said in (
            (server.url.replace("secret", "guess"), "Authentication failed"),
            (f"127.0.0.1:{server.port}", "requires auth"),
        ):
            with pymongo.MongoClient(url) as client, pytest.raises(OperationFailure, match=said):
                client.kd.runs.find_one()
