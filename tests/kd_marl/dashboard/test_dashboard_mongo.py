"""The same page on a database: Sacred's documents, read over the wire from a stand-in for MongoDB."""

import json
import uuid
from datetime import datetime, timedelta, timezone

import pytest

from dashboard_runs import ask, put, served, wait_until
from kd_core.errors import UserError
from kd_marl.dashboard.folder import FolderSource
from kd_marl.dashboard.query import Query
from kd_marl.tracking.destination import Destination

pymongo = pytest.importorskip("pymongo")
pytest.importorskip("mongomock")
bson = pytest.importorskip("bson")

from kd_marl.dashboard.mongo import MongoSource  # noqa: E402  it needs pymongo
from wire_mongo import WireMongo  # noqa: E402  likewise

NOW = datetime.now(timezone.utc).replace(tzinfo=None, microsecond=0)


@pytest.fixture(autouse=True)
def _now(monkeypatch):
    """Let each test begin now, however long the others took: a silent run counts as interrupted."""
    monkeypatch.setitem(globals(), "NOW", datetime.now(timezone.utc).replace(tzinfo=None, microsecond=0))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with WireMongo(tmp_path_factory.mktemp("server") / "journal") as found:
        yield found


@pytest.fixture
def database(server):
    """A database of the test's own."""
    client = pymongo.MongoClient(server.url)
    yield client[f"kd{uuid.uuid4().hex}"]
    client.close()


def insert(database, number, *, status="COMPLETED", seed=1, beat=0, method="kd_student", result=None, **more):
    """A run as Sacred's MongoObserver writes it."""
    command = f"python src/main.py --config={method} --env-config=smax with limits=lh seed={seed}"
    config = {"name": method, "learner": "kd_mappo_student", "map_name": "3m", "env": "smax", "limits": "lh", "lr": 0.1}
    document = {
        "_id": number,
        "format": "MongoObserver-0.7.0",
        "status": status,
        "config": {**config, "masks": "", "seed": seed, "t_max": 1000, "command": command},
        "start_time": NOW - timedelta(hours=1),
        "heartbeat": None if beat is None else NOW - timedelta(seconds=beat),
        "host": {"hostname": "another machine", "cpu": "A processor"},
        "experiment": {"name": "pymarl", "dependencies": ["torch==2.13.0"], "repositories": []},
        "info": {"metrics": []} | ({"result": result} if result else {}),
        "artifacts": [],
        "captured_out": f"run {number} began\n",
        **more,
    }
    if status == "COMPLETED":
        document["stop_time"] = NOW
    database["runs"].insert_one(document)


def log(database, number, name, steps, values):
    facts = {"run_id": number, "name": name, "steps": steps, "values": values}
    database["metrics"].insert_one({**facts, "timestamps": [NOW] * len(steps)})


def attach(database, number, content, name="summary.json", size=40):
    """Store a file in GridFS, in several chunks, out of order."""
    file = bson.ObjectId()
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    for n in reversed(range(len(pieces))):
        database["fs.chunks"].insert_one({"files_id": file, "n": n, "data": pieces[n]})
    database["fs.files"].insert_one({"_id": file, "filename": name, "length": len(content), "chunkSize": size})
    database["runs"].update_one({"_id": number}, {"$push": {"artifacts": {"name": name, "file_id": file}}})


def seen(server, database):
    source = MongoSource(Destination(server.url, database.name))
    source.refresh()
    return source


def test_rows_are_as_those_of_a_folder(server, database, tmp_path):
    folder = put(tmp_path / "results", 7, seed=3, score=0.8, teacher=0.9)
    of_folder = FolderSource(tmp_path / "results")
    of_folder.refresh()
    (expected,) = of_folder.store.rows()
    result = {"return_mean": 8.0, "win_rate": 0.8, "retention": 0.8 / 0.9}
    insert(database, 7, seed=3, result=result)
    attach(database, 7, (folder / "summary.json").read_bytes())
    log(database, 7, "test_return_mean", [0, 500, 1000], [-50.0, -40.0, -30.0])
    source = seen(server, database)
    (row,) = source.store.rows()
    for name in (
        "method",
        "stage",
        "task",
        "env",
        "limits",
        "seed",
        "state",
        "t_max",
        "return_mean",
        "win_rate",
        "retention",
    ):
        assert getattr(row, name) == getattr(expected, name), name
    assert source.details("7").facts.summary == json.loads((folder / "summary.json").read_text())
    curves = of_folder.curves(expected.key)["test_return_mean"]
    assert [list(part) for part in source.curves("7")["test_return_mean"]] == [list(part) for part in curves]


def test_a_run_without_a_result_shows_its_last_points(server, database):
    insert(database, 1, status="RUNNING")
    log(database, 1, "test_return_mean", [0, 400], [1.0, 3.0])
    log(database, 1, "test_battle_won_mean", [0, 400], [0.0, 0.5])
    (row,) = seen(server, database).store.rows()
    assert (row.state, row.steps, row.return_mean, row.win_rate) == ("running", 400, 3.0, 0.5)


def test_a_silent_run_is_interrupted_and_a_failed_one_says_why(server, database):
    insert(database, 1, status="RUNNING", beat=600)
    insert(database, 2, status="RUNNING", beat=None)
    insert(database, 3, status="FAILED", fail_trace=["Traceback\n", "error: no teacher\n"])
    insert(database, 4, status="RUNNING", beat=5)
    states = {row.key: (row.state, row.note) for row in seen(server, database).store.rows()}
    assert states["1"][0] == "interrupted"
    assert states["2"][0] == "interrupted", "it began an hour ago and has never beaten"
    assert states["3"] == ("broken", "error: no teacher")
    assert states["4"][0] == "running"


def test_what_comes_changes_and_goes_is_seen(server, database, monkeypatch):
    monkeypatch.setattr("kd_marl.dashboard.mongo._EVERY", 1)
    insert(database, 1, status="RUNNING")
    source = seen(server, database)
    insert(database, 2, seed=2, beat=10**7)
    database["runs"].update_one({"_id": 1}, {"$set": {"heartbeat": NOW + timedelta(seconds=10)}})
    log(database, 1, "test_return_mean", [700], [2.5])
    source.refresh()
    found = {row.key: row for row in source.store.rows()}
    assert (found["1"].steps, found["1"].return_mean) == (700, 2.5)
    assert found["2"].seed == 2
    database["runs"].delete_one({"_id": 1})
    source.refresh()
    assert [row.key for row in source.store.rows()] == ["2"]
    with pytest.raises(KeyError):
        source.details("1")


def test_the_end_of_a_run_is_seen_although_another_clock_is_ahead(server, database):
    insert(database, 1, status="RUNNING", beat=300)
    insert(database, 2, beat=-24 * 3600)
    source = seen(server, database)
    end = {"status": "COMPLETED", "heartbeat": NOW - timedelta(seconds=290), "stop_time": NOW}
    database["runs"].update_one({"_id": 1}, {"$set": end})
    source.refresh()
    assert source.store.row("1").state == "finished"


def test_a_year_beyond_pythons_hides_no_other_run(server, database):
    insert(database, 1, beat=3)
    source = seen(server, database)
    # What the driver would do with such a document of a server.
    options = source._runs.codec_options
    far = bson.decode(bson.encode({"heartbeat": bson.datetime_ms.DatetimeMS(2**55)}), options)
    source._put([{"_id": 2, **far}])
    assert {row.key for row in source.store.rows()} == {"1", "2"}
    assert bson.decode(b"\x0e\0\0\0\x02a\0\x02\0\0\0\xff\0\0", options) == {"a": "\ufffd"}


@pytest.mark.parametrize("odd", [{"length": "long"}, {"length": None}])
def test_an_attached_summary_that_is_none_is_a_fault_of_its_run(server, database, odd):
    insert(database, 1)
    attach(database, 1, b"{}")
    database["fs.files"].update_one({}, {"$set": odd})
    database["fs.chunks"].update_one({}, {"$set": {"data": "text"}})
    assert seen(server, database).details("1").facts.faults == ("summary.json is damaged or half written",)


def test_a_metric_too_long_for_a_document_is_one_curve(server, database):
    insert(database, 1)
    log(database, 1, "loss (2)", [2, 3], [20.0, 30.0])
    log(database, 1, "loss", [0, 1], [0.0, 10.0])
    assert seen(server, database).curves("1") == {"loss": ([0, 1, 2, 3], [0, 10, 20, 30])}


@pytest.mark.parametrize(
    "odd",
    [
        {"config": 3, "host": [], "info": "x", "status": {"a": 1}, "heartbeat": "yesterday", "start_time": 5},
        {
            "config": {"name": {"$x": 1}, "seed": 2**62, "t_max": float("nan")},
            "artifacts": [{"name": "summary.json"}, 3],
        },
        {"captured_out": b"\xff" * 10, "fail_trace": "x", "info": {"result": [1]}, "experiment": {"repositories": [3]}},
    ],
)
def test_odd_documents_break_nothing(server, database, odd):
    insert(database, 1)
    insert(database, "a text as id", **odd)
    log(database, "a text as id", 5, [1], [1])
    log(database, "a text as id", "x", "steps", None)
    source = seen(server, database)
    assert {row.key for row in source.store.rows()} == {"1", "'a text as id'"}
    source.details("'a text as id'")
    assert source.curves("'a text as id'") == {}
    json.dumps(Query().page(source.store.rows()))


def test_nothing_is_written(server, database):
    insert(database, 1)
    source = seen(server, database)
    before = {name: list(database[name].find()) for name in sorted(database.list_collection_names())}
    source.details("1")
    source.curves("1")
    source.refresh()
    assert {name: list(database[name].find()) for name in sorted(database.list_collection_names())} == before


@pytest.mark.slow
def test_the_page_reads_a_database_and_says_when_it_is_away(tmp_path, monkeypatch):
    monkeypatch.setattr("kd_marl.dashboard.mongo._PATIENCE_S", 0.5)
    server = WireMongo(tmp_path / "journal").start()
    database = pymongo.MongoClient(server.url)["kd"]
    insert(database, 1, seed=5, result={"return_mean": 2.0})
    log(database, 1, "test_return_mean", [0, 10], [1.0, 2.0])
    with served(MongoSource(Destination(server.url, "kd"))) as address:
        page = json.loads(ask(f"{address}/api/runs")[2])
        assert (page["total"], page["rows"][0]["seed"]) == (1, 5)
        assert page["title"] == f"127.0.0.1:{server.port}/kd"
        curves = json.loads(ask(f"{address}/api/curves?run=1&metric=test_return_mean&mean=0")[2])
        assert curves["curves"]["test_return_mean"][0]["values"] == [1.0, 2.0]
        server.kill()
        wait_until(lambda: "does not answer" in json.loads(ask(f"{address}/api/runs")[2])["trouble"])
        status, _, body = ask(f"{address}/api/run?key=1")
        assert (status, "does not answer" in body.decode()) == (503, True)
        server.start()
        wait_until(lambda: json.loads(ask(f"{address}/api/runs")[2])["trouble"] == "")
    database.client.close()
    server.kill()


def test_no_password_is_shown(tmp_path):
    with WireMongo(tmp_path / "journal", "somebody:s3cret") as server:
        source = MongoSource(Destination(server.url, "kd"))
        source.refresh()
        assert source.title == f"127.0.0.1:{server.port}/kd"
        with pytest.raises(UserError) as refused:
            MongoSource(Destination("mongodb://somebody:s3 cret@@:x", "kd"))
        assert "s3" not in str(refused.value)
