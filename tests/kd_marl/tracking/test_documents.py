"""Documents of a run: what MongoDB and Omniboard cannot take is made so that they can, and nothing grows too large."""

from __future__ import annotations

import json

import bson
import numpy as np
import pytest

import tracked_runs
from kd_core.errors import UserError
from kd_marl.tracking import documents
from kd_marl.tracking.documents import RunFiles, encodable, number

LIMIT = 16 * 1024**2


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tracked_runs.run(tmp_path_factory.mktemp("results"), tracked_runs.logging())


@pytest.fixture
def folder(finished, tmp_path):
    """A copy that a test may change."""
    copy = tmp_path / "1"
    copy.mkdir()
    for path in finished.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def test_numbers_that_mongodb_cannot_hold_become_numbers_that_it_can():
    assert number(np.float64(1.5)) == 1.5 and number(True) is True
    assert number({"py/object": "numpy.float32", "dtype": "float32", "value": 2.5}) == 2.5
    assert number(2**63) == float(2**63) and number(-(2**63)) == -(2**63)
    assert number(10**400) == float("inf") and number(-(10**400)) == float("-inf")
    assert number([1, 2]) is None and number("3") is None and number({"py/reduce": []}) is None


def test_whatever_a_configuration_holds_can_be_encoded():
    deep: dict = {}
    for _ in range(300):
        deep = {"deeper": deep}
    strange = {
        "a.b": 1,
        "$set": 2,
        "nul\0": 3,
        "big": 2**70,
        "lone": "\ud800",
        "numpy": {"py/object": "numpy.int64", "dtype": "int64", "value": 7},
        "array": {"py/object": "numpy.ndarray", "dtype": "float64", "values": [1.0, 2.0]},
        "tuple": {"py/tuple": [1, 2]},
        "long": "x" * 10**6,
        "deep": deep,
    }
    decoded = bson.decode(bson.encode(encodable(strange)))
    assert {key: decoded[key] for key in ("a,b", "@set", "nul ")} == {"a,b": 1, "@set": 2, "nul ": 3}
    assert (decoded["big"], decoded["numpy"], decoded["array"], decoded["tuple"]) == (str(2**70), 7, [1.0, 2.0], [1, 2])
    assert decoded["long"].endswith("... 1000000 characters") and len(decoded["long"]) < 70_000


def test_numbers_stand_in_metrics_and_not_again_in_info(folder):
    tracked_runs.rewrite(folder / "info.json", note="mine", alone_T=[1])
    fields, _ = RunFiles(folder).document()
    assert {"loss", "loss_T", "return", "return_T"}.isdisjoint(fields["info"])
    assert (fields["info"]["note"], fields["info"]["alone_T"]) == ("mine", [1])
    assert {entry["name"] for entry in fields["info"]["metrics"]} == {"loss", "return"}


def test_a_log_of_three_hours_and_parts_without_bound_stay_far_below_the_limit(folder):
    line = "[INFO 12:00:00] pymarl Recent Stats | t_env:  ünïcode\n".encode()
    (folder / "cout.txt").write_bytes(b"first\n" + line * (40 * 1024**2 // len(line)) + b"last\n")
    many = {f"key {i}": "x" * 1000 for i in range(20_000)}
    tracked_runs.rewrite(folder / "info.json", **many)
    tracked_runs.rewrite(folder / "config.json", masks=many)
    tracked_runs.rewrite(folder / "run.json", fail_trace=["x" * 1000] * 20_000, status="FAILED")
    fields, attachments = RunFiles(folder).document()
    assert len(bson.encode(fields)) < LIMIT / 16
    output = fields["captured_out"]
    assert output.startswith("first\n") and output.endswith("last\n") and "left out: the artifact cout.txt" in output
    assert {"cout.txt", "info.json", "config.json", "run.json"} <= {file.name for file in attachments}
    # What the columns need is there all the same.
    assert fields["info"]["stage"] == "student" and len(fields["info"]["metrics"]) == 2


def test_a_metric_with_more_points_than_a_document_holds_goes_on_in_another(folder, monkeypatch):
    monkeypatch.setattr(documents, "POINTS", 2)
    parts = {curve.name: curve.points["steps"] for curve in RunFiles(folder).curves if curve.name.startswith("loss")}
    assert parts == {"loss": [0, 1], "loss (2)": [2, 3], "loss (3)": [4]}


def test_the_largest_metric_document_fits(folder):
    curve = documents.Curve(
        bson.ObjectId(),
        "loss",
        {
            "steps": list(range(10**9, 10**9 + documents.POINTS)),
            "values": [0.5] * documents.POINTS,
            "timestamps": ["2026-11-30T12:00:00.123456"] * documents.POINTS,
        },
    )
    assert len(bson.encode(documents.points(curve, 0))) < LIMIT * 0.75


def test_a_copy_is_the_same_run_and_another_start_is_another(folder, finished):
    assert RunFiles(folder).key == RunFiles(finished).key
    tracked_runs.rewrite(folder / "run.json", start_time="2026-11-30T12:00:00.000001")
    assert RunFiles(folder).key != RunFiles(finished).key


def test_the_result_stands_in_its_column_and_the_files_beside_it(folder):
    score = {"return_mean": -12.5, "win_rate": None}
    (folder / "summary.json").write_text(json.dumps({"student": score, "retention": 0.9}))
    (folder / "plot.png").write_bytes(b"png")
    (folder / ".summary.json.kd-tmp").write_text("{")
    (folder / "link").symlink_to("/etc/hostname")
    fields, attachments = RunFiles(folder).document()
    assert fields["result"] == -12.5
    assert fields["info"]["result"] == {"return_mean": -12.5, "retention": 0.9}
    assert [(file.name, file.content_type) for file in attachments] == [
        ("plot.png", "image/png"),
        ("summary.json", "application/json"),
    ]


def test_a_folder_does_not_name_files_of_this_machine(folder):
    tracked_runs.rewrite(folder / "run.json", experiment={"sources": [["passwd", "../../../../../../etc/passwd"]]})
    assert RunFiles(folder).sources == []


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("run.json", "{", "damaged: no JSON"),
        ("run.json", '{"status": "QUEUED"}', "no start_time"),
        ("metrics.json", '{"loss": 5}', "damaged: no Sacred metrics"),
        ("config.json", "[]", "expected a JSON object"),
    ],
)
def test_a_damaged_folder_is_said_in_one_line(folder, file, text, message):
    (folder / file).write_text(text)
    with pytest.raises(UserError, match=message):
        RunFiles(folder).document()
