"""Evidence files: a report from them equals one from the runs; nothing of the machine is in them; faults are said."""

from __future__ import annotations

import json
import lzma
import re
import time

import numpy as np
import pytest

from kd_core.errors import UserError
from kd_marl import cli
from kd_marl.report import tables
from kd_marl.runs import evidence, finished, search
from report_runs import fill, grouped, put

pytest.importorskip("matplotlib")


def report(*words):
    return cli.main(["report", *map(str, words)])


def pages(folder):
    """The report's files, without what names its own command."""
    own = re.compile(r"(`|<code>)kd-marl report .*?(`|</code>)")
    return {file.name: own.sub("", file.read_text()) for file in folder.iterdir() if file.is_file()}


@pytest.mark.slow
def test_the_same_page_can_be_made_from_the_evidence_alone(tmp_path):
    fill(tmp_path / "battles")
    kept = tmp_path / "evidence"
    assert report(tmp_path / "battles", "--to", tmp_path / "a", "--keep", kept) == 0
    assert report(kept / "battles.json.xz", "--to", tmp_path / "b", "--unpack", tmp_path / "results") == 0
    assert search.find([tmp_path / "results" / "battles"]).runs
    assert pages(tmp_path / "a").keys() == pages(tmp_path / "b").keys()
    for name, text in pages(tmp_path / "a").items():
        assert squeezed(text) == squeezed(pages(tmp_path / "b")[name]), name
    assert f"--keep {kept}`" in (tmp_path / "a" / "report.md").read_text()


def squeezed(text):
    """A text without the blanks and dashes that align its tables."""
    return re.sub(r"[ -]+", " ", text)


def test_every_number_of_a_run_comes_back_bit_for_bit(tmp_path):
    folder = put(tmp_path / "battles", 1)
    odd = {"loss": {"steps": [1, 2, 3], "values": [1 / 3, float("nan"), -0.0]}}
    (folder / "metrics.json").write_text(json.dumps(odd))
    (before,) = search.find([tmp_path / "battles"]).runs
    (file,) = evidence.keep([before], tmp_path)
    (after,) = evidence.read(file)
    assert (after.config, after.summary, after.account, after.stress, after.place) == (
        *(before.config, before.summary, before.account, before.stress, "sacred/kd_student/3m/1"),
    )
    for name, curve in before.metrics.items():
        assert [part.tobytes() for part in curve] == [part.tobytes() for part in after.metrics[name]]
    assert before.counts.keys() == after.counts.keys() and before.metrics.keys() == after.metrics.keys()
    for policy, counts in before.counts.items():
        assert counts.dtype == after.counts[policy].dtype and np.array_equal(counts, after.counts[policy])
    # Blocks of features stay in the order of the observation.
    assert json.dumps(after.summary) == json.dumps(before.summary)
    assert evidence.content([after]) == file.read_bytes()


def test_evidence_leaves_out_what_sacred_notes_of_the_machine_and_its_paths(tmp_path):
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
    found = search.find([tmp_path / "battles"]).runs
    (file,) = evidence.keep(found, tmp_path)
    assert "secret" not in lzma.decompress(file.read_bytes()).decode()
    (run,) = evidence.read(file)
    # A page made from the folder itself says no more.
    assert (run.config, run.summary, run.account) == (found[0].config, found[0].summary, found[0].account)
    assert (run.config["local_results_path"], run.config["teacher"]) == ("battles", "src/zoo/3m")
    assert run.account["experiment"]["repositories"] == [{"commit": "0123456789", "dirty": True}]
    assert run.account["host"] == {"cpu": "A processor", "python_version": "3.11.7"}
    assert run.account["status"] == "COMPLETED"


def test_evidence_gathers_over_several_reports_and_stays_as_it_is_otherwise(tmp_path):
    put(tmp_path / "one" / "battles", 1, seed=1)
    put(tmp_path / "two" / "battles", 2, seed=2)
    file = tmp_path / "battles.json.xz"
    for machine in ("one", "two"):
        assert evidence.keep(search.find([tmp_path / machine / "battles"]).runs, tmp_path) == [file]
    assert [run.seed for run in evidence.read(file)] == [1, 2]
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    found = search.find([file, tmp_path / "one" / "battles"])
    # A run that is in both is one run.
    assert [run.seed for run in found.runs] == [1, 2]
    evidence.keep(found.runs, tmp_path)
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


def test_another_run_at_a_place_that_is_taken_is_refused_before_anything_is_written(tmp_path, capsys):
    put(tmp_path / "one" / "battles", 1, start="2026-01-01T00:00:00")
    put(tmp_path / "two" / "battles", 1, start="2026-02-02T00:00:00")
    folders = (tmp_path / "one" / "battles", tmp_path / "two" / "battles")
    # --records: what the option was called before evidence was one file.
    assert report(*folders, "--to", tmp_path / "a", "--records", tmp_path / "evidence") == 2
    assert "holds another run as sacred/kd_student/3m/1, started 2026-01-01" in capsys.readouterr().err
    assert not (tmp_path / "a").exists() and not (tmp_path / "evidence").exists()


def test_evidence_becomes_results_folders_again(tmp_path):
    fill(tmp_path / "battles")
    stressed = {"format": "kd-marl/stress", "version": 1, "measures": "win rate", "episodes": 5}
    row = {"name": "none", "teacher_mean": 1.0, "student_mean": 1.0}
    row |= {f"retention_{of}": 1.0 for of in ("teacher", "undisturbed", "disturbed")}
    folder = tmp_path / "battles" / "sacred" / "kd_student" / "3m" / "1"
    (folder / "stress.json").write_text(json.dumps({**stressed, "rows": [row]}))
    runs = search.find([tmp_path / "battles"]).runs
    (file,) = evidence.keep(runs, tmp_path)
    assert evidence.unpack(evidence.read(file), tmp_path / "results") == len(runs)
    again = search.find([tmp_path / "results" / "battles"]).runs
    assert evidence.content(again) == file.read_bytes() and any(run.stress for run in again)
    # What is there is left alone.
    assert evidence.unpack(evidence.read(file), tmp_path / "results") == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda facts: facts.update(format="other"), "format: 'kd-marl/evidence' was expected"),
        (lambda facts: facts.update(version=2), "has version 2, this kd-marl reads version 1"),
        (lambda facts: facts["runs"][0]["summary"].update(limits="some"), "runs[0].summary.limits: 'some' is not one"),
        (lambda facts: facts["runs"][0].update(place="../elsewhere"), "runs[0].place"),
        (lambda facts: facts["runs"][0]["metrics"]["test_return_mean"].update(steps="AAA"), "damaged at sacred/"),
        (lambda facts: facts["runs"][0]["actions"]["student"].update(shape=[1, 3, 8]), "damaged at sacred/"),
        (lambda facts: facts["runs"].append(facts["runs"][0]), "two of its runs have one place"),
        (lambda facts: facts["runs"][0].pop("config"), "'config' is a required property"),
    ],
)
def test_what_is_no_evidence_is_refused(tmp_path, change, said):
    put(tmp_path / "battles", 1)
    (file,) = evidence.keep(search.find([tmp_path / "battles"]).runs, tmp_path)
    facts = json.loads(lzma.decompress(file.read_bytes()))
    change(facts)
    file.write_bytes(lzma.compress(json.dumps(facts).encode()))
    with pytest.raises(UserError) as refused:
        evidence.read(file)
    assert said in str(refused.value) and str(file) in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"no xz", lzma.compress(b"{")])
def test_half_a_file_is_refused(tmp_path, content):
    (tmp_path / "x.json.xz").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read the evidence in .*x\.json\.xz"):
        search.find([tmp_path / "x.json.xz"])


def test_an_account_may_lack_any_part():
    assert finished.account({}) == {"experiment": {"repositories": []}, "host": {}}


# ------------------------------------------------------------------------------------------- the project's own evidence
@pytest.fixture(scope="module")
def files(root):
    return sorted((root / "evidence").glob("*.json.xz"))


def test_the_project_s_evidence_is_small_whole_and_read_fast(files):
    counts, took = {}, []
    for file in files:
        begin = time.process_time()
        counts[evidence.suite_name(file)] = len(evidence.read(file))
        took.append(time.process_time() - begin)
    assert counts == {"mask_cost": 9, "mpe": 80, "paper": 72, "smax": 52}
    assert sum(file.stat().st_size for file in files) < 2_000_000
    assert max(took) < 5


def test_every_run_of_the_evidence_is_in_a_table_with_the_numbers_that_it_had(files):
    found = grouped(*files)
    assert not found.left_out and sum(len(group.runs) for group in found.main.values()) == 213
    head, rows = tables.scores_table(found, ("smax", "5m_vs_6m"))
    row = next(dict(zip(head, cells, strict=True)) for cells in rows if cells[:2] == ["KD-MARL", "LH, paper"])
    # As the report stated it when its runs were 1,066 files.
    assert (row["win rate, ours"], row["retention, ours"]) == ("71.3 % [69.5, 72.2]", "92.9 % [91.6, 95.2]")
