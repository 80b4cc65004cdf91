"""A results folder of very many runs."""

from collections import Counter

import pytest

from dashboard_runs import put
from kd_marl.dashboard.folder import FolderSource
from kd_marl.dashboard.query import Query


@pytest.mark.slow
def test_of_ten_thousand_runs_each_is_read_once(tmp_path, monkeypatch):
    folder = put(tmp_path, 1)
    texts = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".json"}
    for number in range(2, 10_001):
        other = tmp_path / "sacred" / "kd_student" / f"task{number % 50}" / str(number)
        other.mkdir(parents=True)
        for name, text in texts.items():
            (other / name).write_bytes(text)
    read = Counter()
    look_into = FolderSource._look_into

    def counted(self, descriptor, parts, now):
        read[parts] += 1
        look_into(self, descriptor, parts, now)

    monkeypatch.setattr(FolderSource, "_look_into", counted)
    source = FolderSource(tmp_path)
    source.refresh()
    assert (len(source.store.rows()), len(read), read.total()) == (10_000, 10_000, 10_000)
    source.refresh()
    assert read.total() == 10_000, "nothing has changed"
    page = Query(words=("kd_student",), sort="retention").page(source.store.rows())
    assert (page["matching"], len(page["rows"])) == (10_000, 100)
