"""The page over HTTP: who is answered, with which headers, and that nothing but the results can be read."""

import http.client
import json
import re
import urllib.parse

import pytest

from dashboard_runs import ask, change, put, served, wait_until, write_curves
from kd_marl.dashboard.folder import FolderSource

CURVE = {"test_return_mean": ([0, 500, 1000], [-3.0, -2.0, -1.0])}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for seed in (1, 2, 3):
        values = [seed * value for value in CURVE["test_return_mean"][1]]
        put(folder, seed, seed=seed, curves={"test_return_mean": ([0, 500, 1000], values)})
    put(folder, 1, method="mappo", status="RUNNING", curves=CURVE)
    (folder.parent / "outside.json").write_text('{"secret": 1}')
    return folder


@pytest.fixture(scope="module")
def address(results):
    with served(FolderSource(results)) as found:
        yield found


def get(address, path, **query):
    status, headers, body = ask(f"{address}{path}?{urllib.parse.urlencode(query, doseq=True)}")
    return status, headers, json.loads(body)


def test_the_table_has_all_runs(address, results):
    status, _, page = get(address, "/api/runs")
    assert (status, page["total"], page["loading"], page["trouble"]) == (200, 4, None, "")
    assert page["title"] == str(results)
    assert page["rows"][0]["method"] == "mappo", "the newest first"
    assert get(address, "/api/runs", text="seed=2 finished")[2]["matching"] == 1
    assert get(address, "/api/runs", state="running")[2]["matching"] == 1
    assert [row["seed"] for row in get(address, "/api/runs", sort="seed", order="up")[2]["rows"]] == [1, 1, 2, 3]


@pytest.mark.parametrize("query", [{"sort": "__class__"}, {"offset": "-1"}, {"offset": "9" * 30}, {"order": "'"}])
def test_a_query_that_is_none_counts_as_not_asked(address, query):
    status, _, page = get(address, "/api/runs", **query)
    assert (status, len(page["rows"])) == (200, 4)


def test_a_run_has_its_command_result_and_sight(address):
    _, _, run = get(address, "/api/run", key="sacred/kd_student/3m/2")
    assert run["command"].startswith("python src/main.py --config=kd_student")
    assert run["result"]["columns"] == ["", "teacher", "student", "random"]
    assert ["win rate", "90.0 %", "80.0 %", "0.0 %"] in run["result"]["rows"]
    assert run["sight"]["blocks"] == ["A", "E", "O"]
    assert run["sight"]["agents"][0] == {
        "agent": "agent_0", "blocks": {"A": [2, 4], "E": [6, 6], "O": [0, 2]}, "seen": "8", "of": 12.0,
    }  # fmt: skip
    assert ["lr", "0.01"] in run["settings"]
    assert ["env_args.map_name", "3m"] in run["settings"]
    assert run["output"] == "run 2 began\n"
    running = get(address, "/api/run", key="sacred/mappo/3m/1")[2]
    assert (running["result"], running["sight"]) == (None, None)
    assert running["masks"] == "kd-marl masks --env-config=smax --map-name=3m --limits=lh"


def test_curves_are_the_runs_own_and_means_have_intervals(address):
    keys = [f"sacred/kd_student/3m/{seed}" for seed in (1, 2, 3)]
    _, _, each = get(address, "/api/curves", run=keys, metric="test_return_mean", mean="0")
    assert [line["values"] for line in each["curves"]["test_return_mean"]] == [[-3, -2, -1], [-6, -4, -2], [-9, -6, -3]]
    _, _, mean = get(address, "/api/curves", run=keys, metric="test_return_mean", mean="1")
    (line,) = mean["curves"]["test_return_mean"]
    assert line["values"] == [-6, -4, -2]
    # Of -3, -6 and -9: t of two degrees of freedom times three over the root of three.
    assert line["high"][0] - line["low"][0] == pytest.approx(2 * 4.3027 * 3 / 3**0.5, rel=1e-4)
    assert mean["metrics"] == ["test_return_mean"]


def test_what_is_unchanged_is_not_sent_again(tmp_path):
    folder = put(tmp_path, 1, status="RUNNING", curves=CURVE)
    key = "sacred/kd_student/3m/1"
    with served(FolderSource(tmp_path)) as address:
        paths = [
            "/api/runs?sort=seed",
            f"/api/run?key={key}",
            f"/api/curves?run={key}&metric=test_return_mean",
        ]
        wait_until(lambda: get(address, "/api/runs")[2]["rows"][0]["steps"] == 1000)
        versions = {path: ask(address + path)[1]["ETag"] for path in paths}
        for path, version in versions.items():
            status, _, body = ask(address + path, If_None_Match=version)
            assert (status, body) == (304, b""), path
        write_curves(folder, {"test_return_mean": ([0, 500, 1000, 1500], [-3.0, -2.0, -1.0, 4.0])})
        (folder / "cout.txt").write_text("more\n")
        for path, version in versions.items():
            wait_until(lambda path=path, version=version: ask(address + path, If_None_Match=version)[0] == 200)
        assert get(address, "/api/runs")[2]["rows"][0]["return_mean"] == 4.0


# ---- who is answered, and what can be had ----------------------------------------------------------------------------


def raw(address, line, *headers):
    """Send a request as it stands; returns the status."""
    host, port = address.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.connect()
    connection.sock.sendall("\r\n".join([line, *headers, "Connection: close", "", ""]).encode("latin-1"))
    answer = connection.sock.makefile("rb").read()
    connection.close()
    return int(answer.split(b" ", 2)[1]), answer


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:1234", "127.0.0.1:9", "[::1]:80"])
def test_the_machines_own_names_are_answered(address, host):
    assert raw(address, "GET / HTTP/1.1", f"Host: {host}")[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8350", "localhost.evil.example", "", "127.0.0.1.nip.io"]
)
@pytest.mark.parametrize("path", ["/", "/api/runs", "/plotly.js"])
def test_a_name_that_was_bound_to_loopback_gets_nothing(address, host, path):
    status, answer = raw(address, f"GET {path} HTTP/1.1", f"Host: {host}")
    assert status in (400, 403)
    assert b"kd_student" not in answer


def test_a_request_without_a_host_or_with_two_gets_nothing(address):
    assert raw(address, "GET / HTTP/1.0")[0] == 403
    assert raw(address, "GET / HTTP/1.1", "Host: localhost", "Host: evil.example")[0] in (400, 403)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize("path", ["/", "/api/runs", "/api/run?key=sacred/kd_student/3m/1", "/page.js"])
def test_nothing_can_be_changed(address, method, path):
    status, headers, _ = ask(address + path, method)
    assert status == 405
    assert headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/", "/api/runs", "/page.js", "/page.css", "/icon.svg", "/plotly.js", "/nothing"])
def test_every_answer_has_a_strict_policy(address, path):
    for method in ("GET", "HEAD"):
        _, headers, body = ask(address + path, method)
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert (policy["script-src"], policy["style-src"], policy["connect-src"]) == ("'self'",) * 3
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers
        assert method == "GET" or body == b""


@pytest.mark.parametrize(
    "path",
    [
        "/../outside.json", "/%2e%2e/outside.json", "/..%2foutside.json", "/static/../../outside.json", "/etc/passwd",
        "//etc/passwd", "/page/page.js", "/page.js/../server.py", "/sacred/kd_student/3m/1/config.json",
        "/api/run?key=../outside.json", "/api/run?key=/etc/passwd", "/api/run?key=sacred/kd_student/3m/1/../../../..",
        "/api/run?key=sacred%2Fkd_student%2F3m%2F..%2F3m%2F1", "/api/run", "/api/run?key=%00",
    ],
)  # fmt: skip
def test_nothing_outside_the_results_can_be_had(address, path):
    status, answer = raw(address, f"GET {path} HTTP/1.1", "Host: localhost")
    assert status == 404, answer
    assert b"secret" not in answer
    assert b"root:" not in answer


def test_curves_of_what_is_no_run_are_empty(address):
    _, _, answer = get(address, "/api/curves", run=["../..", "/etc/passwd", "sacred"], metric=["a", "__proto__"])
    assert answer == {"groups": [], "names": {}, "metrics": [], "curves": {"a": [], "__proto__": []}}


def test_markup_in_a_run_is_sent_as_data_only(tmp_path):
    folder = put(tmp_path, 1, method="<img src=x>", settings={"lr": "<script>alert(1)</script>"})
    change(folder / "summary.json", sees=[{"agent": "<b>", "blocks": {"<i>": [1, 2]}, "observed": 2, "draw": [1, 2]}])
    with served(FolderSource(tmp_path)) as address:
        key = "sacred/<img src=x>/3m/1"
        status, headers, run = get(address, "/api/run", key=key)
        assert (status, headers["Content-Type"]) == (200, "application/json")
        assert run["sight"]["agents"][0]["seen"] == "1 to 2"
        assert ["lr", "<script>alert(1)</script>"] in run["settings"]


def test_numbers_that_json_does_not_have_are_null(tmp_path):
    folder = put(tmp_path, 1)
    (folder / "config.json").write_text('{"name": "kd_student", "lr": NaN, "nested": {"a": Infinity}, "seed": 1}')
    (folder / "metrics.json").write_text('{"a": {"steps": [0, 1], "values": [NaN, 1]}}')
    with served(FolderSource(tmp_path)) as address:
        for path in (
            "/api/runs",
            "/api/run?key=sacred/kd_student/3m/1",
            "/api/curves?run=sacred/kd_student/3m/1&metric=a",
        ):
            _, _, body = ask(address + path)
            json.loads(body, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_a_folder_that_is_taken_away_is_said_and_comes_back(tmp_path):
    results = tmp_path / "results"
    put(results, 1)
    with served(FolderSource(results)) as address:
        results.rename(tmp_path / "away")
        wait_until(lambda: "is gone" in get(address, "/api/runs")[2]["trouble"])
        (tmp_path / "away").rename(results)
        wait_until(lambda: get(address, "/api/runs")[2]["trouble"] == "")
        wait_until(lambda: get(address, "/api/runs")[2]["total"] == 1)


def test_the_page_asks_for_nothing_that_is_not_served(address):
    _, _, page = ask(address + "/")
    for link in re.findall(r'(?:src|href)="([^"]*)"', page.decode()):
        assert link.startswith("/")
        assert ask(address + link)[0] == 200
    assert not re.search(rb"<script(?![^>]*src=)|\son\w+=|style=|https?://", page), (
        "nothing inline, nothing from elsewhere"
    )
