"""Sacred's record of a run: as Sacred writes it, and whole at every moment."""

from __future__ import annotations

import errno
import json
import os

import pytest
from sacred.observers import FileStorageObserver

from kd_marl.plugin.observer import RunRecord

CONTENT = {"b": [1.5, float("nan")], "a": {"tuple": (1, 2)}, "ü": "ß"}


@pytest.fixture
def record(tmp_path):
    observer = RunRecord(str(tmp_path))
    observer.dir = str(tmp_path)
    return observer


def test_a_file_has_the_bytes_that_sacred_would_have_written(record, tmp_path):
    record.save_json(CONTENT, "run.json")
    sacreds = FileStorageObserver(str(tmp_path))
    sacreds.dir = str(tmp_path)
    sacreds.save_json(CONTENT, "other.json")
    assert (tmp_path / "run.json").read_bytes() == (tmp_path / "other.json").read_bytes()


def test_a_disk_that_fills_up_leaves_the_file_as_it_was(record, tmp_path, monkeypatch):
    record.save_json({"status": "RUNNING"}, "run.json")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        record.save_json(CONTENT, "run.json")
    assert json.loads((tmp_path / "run.json").read_text()) == {"status": "RUNNING"}
    assert os.listdir(tmp_path) == ["run.json"]
