"""Omniboard on runs of every stage, in a browser: what it shows is what the runs have written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("mongomock")
expect = pytest.importorskip("playwright.sync_api").expect
psutil = pytest.importorskip("psutil")

import omniboard_page  # noqa: E402
from stage_fixtures import TASK, words  # noqa: E402
from wire_mongo import WireMongo  # noqa: E402

pytestmark = pytest.mark.slow

OFTEN = ("test_interval=100", "log_interval=100", "runner_log_interval=100", "learner_log_interval=100")
CURVE = "test_return_mean"


@pytest.fixture(scope="module", autouse=True)
def _installed():
    if lacking := omniboard_page.missing():
        pytest.skip(lacking)


@pytest.fixture(scope="module")
def results(mains, tmp_path_factory):
    """A teacher, its buffer and a student of it."""
    results = tmp_path_factory.mktemp("tracked")
    mains.run(*words("kd_teacher", results, "seed=1", *OFTEN)).check()
    mains.run(*words("kd_export", results, "seed=1")).check()
    mains.run(*words("kd_student", results, "seed=1", "limits=lh", *OFTEN)).check()
    return results


@pytest.fixture(scope="module")
def board(results):
    with omniboard_page.board(results) as board:
        yield board


@pytest.fixture
def page(board):
    with omniboard_page.page() as page:
        omniboard_page.visit(page, board.url)
        yield page


def folder_of(results: Path, config: str) -> Path:
    return results / "sacred" / config / TASK / "1"


def read(results: Path, name: str) -> dict:
    return json.loads((folder_of(results, "kd_student") / name).read_text())


def ask(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_runs_of_every_stage_stand_in_the_table_with_their_parents_and_results(page, results):
    student, buffer, teacher = omniboard_page.rows(page)
    assert [row["Stage"] for row in (student, buffer, teacher)] == ["student", "buffer", "teacher"]
    assert {row["Status"] for row in (student, buffer, teacher)} == {"COMPLETED"}
    assert (student["Teacher run"], student["Buffer run"]) == (teacher["Id"], buffer["Id"])
    assert (buffer["Teacher run"], teacher["Teacher run"]) == (teacher["Id"], "")
    summary = read(results, "summary.json")
    assert float(student["Return"]) == summary["student"]["return_mean"]
    assert float(student["Retention"]) == summary["retention"]
    assert (student["C Name"], student["C Limits"], student["C Seed"]) == ("kd_student", "lh", "1")
    assert {"student", TASK, "lh"} <= set(student["Tags"].split("\n"))


def test_a_run_is_found_by_its_stage(page):
    page.click("text=Column Name")
    page.keyboard.type("Stage")
    page.keyboard.press("Enter")
    page.click("text=Enter Value...")
    page.locator("[id*='-option-']", has_text="student").click()
    page.click("text=Add Filter")
    page.wait_for_selector("text=1 experiments")
    assert [row["Stage"] for row in omniboard_page.rows(page)] == ["student"]


def test_plotted_values_and_every_tab_are_those_of_the_run(page, results, tmp_path):
    omniboard_page.unfold(page, 0)
    curves = page.locator(".js-plotly-plot").evaluate("plot => plot.data.map(({name, x, y}) => ({name, x, y}))")
    plotted = next(curve for curve in curves if curve["name"] == CURVE)
    logged = read(results, "metrics.json")[CURVE]
    assert len(plotted["x"]) >= 4
    assert (plotted["x"], plotted["y"]) == (logged["steps"], logged["values"])
    page.screenshot(path=tmp_path / "omniboard.png")
    assert (tmp_path / "omniboard.png").stat().st_size > 30_000

    last = (folder_of(results, "kd_student") / "cout.txt").read_text().strip().splitlines()[-1]
    for tab, text in {
        "Captured Out": last.strip(),
        "Config": '"limits":"lh"',
        "Run Info": '"stage":"student"',
        "Host Info": "python_version",
        "Source Files": "main.py",
        "Artifacts": "summary.json",
    }.items():
        page.click(f".drilldown-view li >> text={tab}")
        expect(page.locator(".drilldown-view .tab-content")).to_contain_text(text, timeout=30_000)


def test_an_artifact_is_the_file_of_the_run(board, results):
    _, runs = ask(f"{board.url}/sacred/api/v1/Runs?select=artifacts&sort_by=_id&order_by=-1&limit=1")
    artifacts = {entry["name"]: entry["file_id"] for entry in json.loads(runs)[0]["artifacts"]}
    status, data = ask(f"{board.url}/sacred/api/v1/files/preview/{artifacts['summary.json']}/summary.json")
    assert status == 200
    assert data == (folder_of(results, "kd_student") / "summary.json").read_bytes()


def test_only_this_machine_reaches_it_and_only_its_own_page(board):
    process = psutil.Process(board.process.pid)
    listening = {
        connection.laddr.ip
        for child in process.children(recursive=True)
        for connection in child.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    count = f"{board.url}/sacred/api/v1/Runs/count"
    assert ask(count)[0] == ask(count, Origin=board.url)[0] == 200
    assert ask(count, Origin="http://elsewhere.example")[0] == 403
    assert ask(count, Host="elsewhere.example")[0] == 403


def test_a_password_shows_nowhere_and_all_ends_with_ctrl_c(results, tmp_path):
    with WireMongo(tmp_path / "journal", account="kd:not-to-be-seen") as server:
        url = {"KD_MARL_MONGO_URL": server.url}
        push = [sys.executable, "-m", "kd_marl.cli", "track", "push", str(results)]
        subprocess.run(push, env={**os.environ, **url}, check=True, capture_output=True)
        with omniboard_page.board(results, **url) as board:
            _, answer = ask(f"{board.url}/sacred/api/v1/Runs/count")
            assert json.loads(answer) == {"count": 3}
            processes = [psutil.Process(board.process.pid)]
            processes += processes[0].children(recursive=True)
            assert len(processes) == 2
            assert "not-to-be-seen" not in " ".join(word for process in processes for word in process.cmdline())
            assert board.interrupt() == 0
            assert "not-to-be-seen" not in board.said + (omniboard_page.INSTALLED.parent / "log").read_text()
        assert not any(process.is_running() for process in processes)


def test_a_folder_without_runs_is_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("KD_MARL_MONGO_URL", raising=False)
    command = [sys.executable, str(omniboard_page.ROOT / "tools" / "omniboard" / "start.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == done.stderr.splitlines()[-1:]
    assert "Traceback" not in done.stderr
