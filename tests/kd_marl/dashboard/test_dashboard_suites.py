"""How far suites are, on the page: the same counts as `kd-marl suite status`, and an estimate."""

import json
import time
from collections import Counter
from dataclasses import asdict

import pytest

from dashboard_runs import ask, served, wait_until
from kd_core.host import get_host
from kd_marl.cli import main
from kd_marl.dashboard.folder import FolderSource
from kd_marl.dashboard.suites import Suites
from kd_marl.plugin import register
from kd_marl.suite import document
from kd_marl.suite.attempts_log import Attempt, Outcome
from kd_marl.suite.lock import locked
from kd_marl.suite.plan import Plan

SUITE = """
name: made-up
tasks: {spread: {env: mpe, key: pz-mpe-simple-spread-v3}}
methods: [mappo]
limits: [fo]
seeds: [1, 2, 3, 4]
"""


@pytest.fixture
def suite(tmp_path):
    """A suite of four runs: one is finished, one runs, one is broken, one is left."""
    (tmp_path / "made-up.yaml").write_text(SUITE)
    results = tmp_path / "results" / "suites" / "made-up"
    host = get_host()
    register.register(host)
    plan = Plan(host, document.load(tmp_path / "made-up.yaml"), results)
    jobs = [plan.job(label) for label in plan.nodes]
    now = time.time()
    attempts = [
        Attempt(now - 500, ended=now - 400, outcome=Outcome.FINISHED.value),
        Attempt(now - 40),
        Attempt(now - 90, ended=now - 80, outcome=Outcome.FAILED.value, message="error: <b>no memory</b>"),
    ]
    for job, attempt in zip(jobs, attempts, strict=False):
        job.lock.parent.mkdir(parents=True, exist_ok=True)
        log = {"label": job.label, "attempts": [asdict(attempt)]}
        (job.lock.parent / f"{job.key}.json").write_text(json.dumps(log))
    finished = jobs[0].proof.folder / "1"
    finished.mkdir(parents=True)
    config = plan._lines.cell(plan.nodes[jobs[0].label].cell)[1]
    (finished / "config.json").write_text(json.dumps(config, default=str))
    (finished / "run.json").write_text('{"status": "COMPLETED"}')
    (finished / "summary.json").write_text("{}")
    with locked(jobs[1].lock) as held:
        assert held
        yield tmp_path


def test_a_suite_is_as_far_as_its_status_says(suite, capsys, monkeypatch):
    (found,) = Suites([suite / "made-up.yaml"], suite / "results", given=False).standings()
    assert found["counts"] == {"finished": 1, "running": 1, "broken": 1, "missing": 1}
    assert found["running"] == ["spread/mappo/fo/seed2"]
    assert found["notes"] == ["spread/mappo/fo/seed3: error: <b>no memory</b>"]
    # The one that runs has taken 40 of 100 seconds; the one that is left follows it on the same processor.
    assert found["seconds"] == pytest.approx(160, abs=15)
    assert sum((Counter(row["counts"]) for row in found["rows"]), Counter()) == Counter(found["counts"])
    monkeypatch.chdir(suite)
    assert main(["suite", "status", "made-up.yaml"]) == 0
    assert "1 finished, 1 running, 1 broken, 1 missing" in capsys.readouterr().out


def test_a_suite_whose_runs_are_elsewhere_is_shown_only_if_it_was_asked_for(suite):
    other = suite / "other"
    other.mkdir()
    assert Suites([suite / "made-up.yaml"], other, given=False).standings() == []
    (found,) = Suites([suite / "made-up.yaml"], other, given=True).standings()
    assert found["counts"] == {"missing": 4}
    assert found["seconds"] is None


def test_a_file_that_is_no_suite_says_why_if_it_was_asked_for(suite):
    (suite / "odd.yaml").write_text("tasks: 3")
    assert Suites([suite / "odd.yaml"], suite / "results", given=False).standings() == []
    (found,) = Suites([suite / "odd.yaml"], suite / "results", given=True).standings()
    assert "odd.yaml" in found["fault"]


def test_the_page_has_the_suites(suite):
    made = Suites([suite / "made-up.yaml"], suite / "results", given=False)
    with served(FolderSource(suite / "results"), lambda: made) as address:
        wait_until(lambda: json.loads(ask(f"{address}/api/runs")[2])["suites"])
        (found,) = json.loads(ask(f"{address}/api/runs")[2])["suites"]
        assert found["name"] == "made-up"
