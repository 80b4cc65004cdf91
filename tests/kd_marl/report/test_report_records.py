"""`kd-marl report --records`: a copy of what a page was made from, and the same page from the copy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from kd_marl import cli
from kd_marl.report import keep
from report_runs import fill, put

pytest.importorskip("matplotlib")


def pages(folder):
    """The report's files, without the head of the page, which names its command."""
    return {
        file.name: file.read_text().partition("Overview")[2] if file.suffix in (".md", ".html") else file.read_text()
        for file in folder.iterdir()
        if file.is_file()
    }


def test_the_same_page_can_be_made_from_the_records_alone(tmp_path):
    fill(tmp_path / "battles")
    records = tmp_path / "records"
    assert cli.main(["report", str(tmp_path / "battles"), "--to", str(tmp_path / "a"), "--records", str(records)]) == 0
    assert cli.main(["report", str(records / "battles"), "--to", str(tmp_path / "b")]) == 0
    assert pages(tmp_path / "a") == pages(tmp_path / "b")
    assert f"--records {records}`" in (tmp_path / "a" / "report.md").read_text()


def test_records_leave_out_what_sacred_notes_of_the_machine_and_its_paths(tmp_path):
    folder = put(tmp_path / "battles", 1)
    record = json.loads((folder / "run.json").read_text())
    record["host"] |= {"hostname": "secret-host", "ENV": {"USER": "secret-user"}}
    record["experiment"] |= {"base_dir": "/home/secret", "sources": [["main.py", "secret"]]}
    record["experiment"]["repositories"] = [{"url": "/home/secret", "commit": "0123456789", "dirty": True}] * 3
    record["meta"] = {"options": {"--file_storage": "/home/secret"}}
    (folder / "run.json").write_text(json.dumps(record))
    results, zoo = tmp_path / "secret" / "battles", tmp_path / "secret" / "src" / "zoo" / "3m"
    places = {"local_results_path": str(results), "teacher": str(zoo)}
    for name, facts in (("config", places), ("summary", {"command": f"python src/main.py with {places['teacher']}"})):
        file = folder / f"{name}.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **facts}))
    kept = tmp_path / "records"
    assert cli.main(["report", str(tmp_path / "battles"), "--to", str(tmp_path / "a"), "--records", str(kept)]) == 0
    copy = kept / "battles" / folder.relative_to(tmp_path / "battles")
    assert sorted(file.name for file in copy.iterdir()) == sorted(file.name for file in folder.iterdir())
    assert not any(b"secret" in file.read_bytes() for file in copy.iterdir())
    config = json.loads((copy / "config.json").read_text())
    assert (config["local_results_path"], config["teacher"]) == ("battles", "src/zoo/3m")
    assert "secret" not in (tmp_path / "a" / "report.md").read_text()
    left = json.loads((copy / "run.json").read_text())
    assert left["experiment"]["repositories"] == [{"commit": "0123456789", "dirty": True}]
    assert left["host"] == {"cpu": "A processor", "python_version": "3.11.7"} and left["status"] == "COMPLETED"


def test_records_gather_over_several_reports(tmp_path):
    records = ["--to", str(tmp_path / "a"), "--records", str(tmp_path / "records")]
    put(tmp_path / "one" / "battles", 1, seed=1)
    put(tmp_path / "two" / "battles", 2, seed=2)
    for machine in ("one", "two"):
        assert cli.main(["report", str(tmp_path / machine / "battles"), *records]) == 0
    kept = (tmp_path / "records" / "battles" / "sacred" / "kd_student" / "3m").iterdir()
    assert sorted(folder.name for folder in kept) == ["1", "2"]


def test_a_report_of_records_into_themselves_leaves_them_as_they_are(tmp_path):
    put(tmp_path / "battles", 1)
    to = ["--to", str(tmp_path / "a"), "--records", str(tmp_path / "records")]
    assert cli.main(["report", str(tmp_path / "battles"), *to]) == 0
    files = sorted(file for file in (tmp_path / "records").rglob("*") if file.is_file())
    before = [(file.read_bytes(), file.stat().st_mtime_ns) for file in files]
    assert files and cli.main(["report", str(tmp_path / "records" / "battles"), *to]) == 0
    assert [(file.read_bytes(), file.stat().st_mtime_ns) for file in files] == before


def test_results_folders_of_one_name_are_refused_before_anything_is_written(tmp_path, capsys):
    for machine in ("one", "two"):
        put(tmp_path / machine / "battles", 1)
    folders = [str(tmp_path / machine / "battles") for machine in ("one", "two")]
    status = cli.main(["report", *folders, "--to", str(tmp_path / "a"), "--records", str(tmp_path / "records")])
    assert status == 2 and "two results folders are called battles" in capsys.readouterr().err
    assert not (tmp_path / "a").exists() and not (tmp_path / "records").exists()


def test_an_account_of_an_older_run_may_lack_any_part():
    assert keep.account({}) == {"experiment": {"repositories": []}, "host": {}}


def test_the_project_s_own_records_make_a_report(tmp_path, capsys):
    folders = sorted(folder for folder in (Path(__file__).parents[3] / "docs" / "records").iterdir() if folder.is_dir())
    assert cli.main(["report", *map(str, folders), "--to", str(tmp_path / "to")]) == 0
    out, err = capsys.readouterr()
    shown = re.search(r"^(\d+) runs of (\d+) with a result", out, re.MULTILINE)
    assert shown and shown[1] == shown[2] and not err


def test_the_report_of_this_project_is_made_from_all_of_its_records(root):
    kept = len(list((root / "docs" / "records").rglob("summary.json")))
    page = (root / "docs" / "report" / "report.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| runs found +\| {kept} with a result ", page, re.MULTILINE)
