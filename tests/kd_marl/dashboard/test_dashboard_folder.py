"""Runs of a results folder: what the table shows of them, what changes, and files that are damaged or hostile."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from dashboard_runs import change, put, put_buffer, utc, wait_until, write_curves
from kd_core.errors import UserError
from kd_marl.dashboard import rows, shown
from kd_marl.dashboard.folder import FolderSource
from kd_marl.dashboard.liveness import QUIET_S, SILENT_S, Liveness
from kd_marl.dashboard.query import Query
from kd_marl.suite.attempts_log import State


def seen(results, times=1):
    source = FolderSource(results)
    for _ in range(times):
        source.refresh()
    return source


def only(source):
    (row,) = source.store.rows()
    return row


def test_a_finished_student_has_its_result_in_its_row(tmp_path):
    put(tmp_path, 4, seed=7, score=0.8, teacher=0.9)
    row = only(seen(tmp_path))
    assert (row.key, row.method, row.stage, row.task, row.limits) == (
        "sacred/kd_student/3m/4", "kd_student", "student", "3m", "lh",
    )  # fmt: skip
    assert (row.seed, row.state, row.final, row.t_max) == (7, "finished", True, 1000)
    assert row.win_rate == 0.8
    assert row.return_mean == 8.0
    assert row.retention == pytest.approx(0.8 / 0.9)


@pytest.mark.parametrize(
    ("method", "stage"),
    [("kd_teacher", "teacher"), ("kd_export", "buffer"), ("ctds", "student"), ("mappo", "stock"), ("own", "student")],
)
def test_stages_are_told_apart_by_their_learners(tmp_path, method, stage):
    put(tmp_path, 1, method=method)
    assert only(seen(tmp_path)).stage == stage


def test_a_running_run_shows_how_far_it_is_and_what_it_scored_last(tmp_path):
    curves = {"test_return_mean": ([0, 400], [1.0, 3.0]), "test_battle_won_mean": ([0, 400], [0.0, 0.5])}
    put(tmp_path, 1, status="RUNNING", curves={**curves, "loss": ([0, 450], [2.0, 1.0])})
    row = only(seen(tmp_path))
    assert (row.state, row.final) == ("running", False)
    assert (row.steps, row.t_max, row.return_mean, row.win_rate) == (450, 1000, 3.0, 0.5)
    assert 3600 <= row.seconds < 3700


def test_the_steps_of_a_finished_student_are_those_that_it_has_played(tmp_path):
    put(tmp_path, 1, settings={"t_max": 2000}, curves={"test_return_mean": ([0, 2500], [1.0, 3.0])})
    row = only(seen(tmp_path, times=2))
    assert (row.state, row.final, row.steps, row.t_max) == ("finished", True, 2500, 2000)
    assert row.return_mean == 8.0, "its final evaluation's"


def test_a_buffer_shows_its_own_mean_and_its_episodes(tmp_path):
    put_buffer(tmp_path, 1, episodes=500, mean=-80.81)
    row = only(seen(tmp_path, times=2))
    assert (row.stage, row.episodes, row.buffer_episodes, row.t_max) == ("buffer", 500, 500, None)
    assert (row.return_mean, row.win_rate) == (-80.81, None)


def test_a_buffer_is_seen_growing(tmp_path):
    put_buffer(tmp_path, 1, episodes=0, mean=None, status="RUNNING")
    source = seen(tmp_path)
    assert (only(source).episodes, only(source).return_mean) == (0, None)
    change(tmp_path / "buffers" / "3m" / "1" / "buffer.json", episodes=200, return_mean=-81.5)
    source.refresh()
    assert (only(source).episodes, only(source).return_mean) == (200, -81.5)


@pytest.mark.parametrize("buffer", [None, 7, "", "relative/path", "\0", "{outside}", "{link}"])
def test_a_buffer_that_is_not_in_the_folder_has_no_number(tmp_path, buffer):
    results = tmp_path / "results"
    folder = put_buffer(results, 1, episodes=500, mean=-80.81, where=tmp_path)
    outside, link = tmp_path / "buffers" / "3m" / "1", results / "link"
    link.symlink_to(outside)
    named = buffer.format(outside=outside, link=link) if isinstance(buffer, str) else buffer
    change(folder / "lineage.json", buffer=named)
    row = only(seen(results, times=2))
    assert (row.state, row.episodes, row.return_mean) == ("finished", None, None)


def test_the_words_for_states_are_those_of_the_suite():
    assert {rows.RUNNING, rows.FINISHED, rows.INTERRUPTED, rows.BROKEN} < {state.value for state in State}


@pytest.mark.parametrize(
    ("status", "state", "note"),
    [
        ("INTERRUPTED", "interrupted", "resume=True"),
        ("TIMEOUT", "interrupted", "time limit"),
        ("QUEUED", "interrupted", "queued"),
        ("FAILED", "broken", "FAILED"),
        (None, "broken", "(none)"),
        (["x"], "broken", "(none)"),
    ],
)
def test_how_a_run_ended_is_its_state(tmp_path, status, state, note):
    put(tmp_path, 1, status=status)
    row = only(seen(tmp_path))
    assert row.state == state
    assert note in row.note


def test_a_failed_run_says_the_last_line_of_its_error(tmp_path):
    folder = put(tmp_path, 1, status="FAILED")
    change(folder / "run.json", fail_trace=["Traceback ...\n  File x\n", "error: no teacher for 3m\n", "\n"])
    assert only(seen(tmp_path)).note == "error: no teacher for 3m"


# ---- alive or not ----------------------------------------------------------------------------------------------------


def test_a_run_whose_process_was_killed_is_interrupted(tmp_path):
    """kill -9 leaves the status RUNNING; the same command started again is another run."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.py").write_text("import time; print('on', flush=True); time.sleep(600)")
    words = ["--config=kd_student", "with", "name=a run with spaces", "seed=1"]
    process = subprocess.Popen([sys.executable, "src/main.py", *words], cwd=tmp_path, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        command = f"python src/main.py {words[0]} with 'name=a run with spaces' seed=1"
        now = time.time()
        about = {"beat": now + 1, "started": now + 1, "host": socket.gethostname(), "command": command}
        later = now + 1 + QUIET_S + 1000
        assert Liveness().alive(**about, now=later)
        # Another run of the same command, which began before this process did.
        assert not Liveness().alive(**{**about, "started": now - 600, "beat": now - 500}, now=later)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not Liveness().alive(**about, now=later)
        assert Liveness().alive(**about, now=now + QUIET_S / 2), "it has only just beaten"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_run_of_another_machine_is_told_by_its_heartbeat(tmp_path):
    folder = put(tmp_path, 1, status="RUNNING", beat=SILENT_S - 20)
    change(folder / "run.json", host={"hostname": "another machine"})
    assert only(seen(tmp_path)).state == "running"
    change(folder / "run.json", heartbeat=utc(time.time() - SILENT_S - 20))
    row = only(seen(tmp_path))
    assert row.state == "interrupted"
    assert "resume=True" in row.note


def test_a_run_that_falls_silent_is_interrupted_without_any_file_changing(tmp_path, monkeypatch):
    put(tmp_path, 1, status="RUNNING")
    source = seen(tmp_path)
    assert only(source).state == "running"
    now = time.time()
    monkeypatch.setattr("kd_marl.dashboard.folder.time.time", lambda: now + 300)
    source.refresh()
    assert only(source).state == "interrupted"


# ---- what changes ----------------------------------------------------------------------------------------------------


def test_what_comes_changes_and_goes_is_seen(tmp_path):
    source = seen(tmp_path)
    assert source.store.rows() == []
    folder = put(tmp_path, 1, status="RUNNING", curves={"test_return_mean": ([0], [1.0])})
    source.refresh()
    before = source.store.version
    assert only(source).steps == 0
    write_curves(folder, {"test_return_mean": ([0, 500], [1.0, 2.0])})
    source.refresh()
    assert (only(source).steps, only(source).return_mean) == (500, 2.0)
    assert source.store.version != before
    put(tmp_path, 2, seed=2)
    source.refresh()
    assert {row.seed for row in source.store.rows()} == {1, 2}
    shutil.rmtree(folder)
    source.refresh()
    assert only(source).seed == 2


def test_an_unchanged_folder_has_an_unchanged_version_and_is_not_read_again(tmp_path, monkeypatch):
    for number in range(1, 6):
        put(tmp_path, number)
    put(tmp_path, 6, status="RUNNING", beat=5)
    source = seen(tmp_path, times=2)
    version = source.store.version
    monkeypatch.setattr("kd_marl.dashboard.inside.read", lambda *_: pytest.fail("a file was read again"))
    now = time.time()
    monkeypatch.setattr("kd_marl.dashboard.folder.time.time", lambda: now + 10)
    source.refresh()
    assert source.store.version == version


def test_a_file_that_is_being_written_leaves_the_row_as_it_was(tmp_path):
    folder = put(tmp_path, 1, status="RUNNING", curves={"test_return_mean": ([0, 400], [1.0, 3.0])})
    source = seen(tmp_path)
    before = only(source)
    whole = (folder / "run.json").read_text()
    metrics = (folder / "metrics.json").read_text()
    (folder / "run.json").write_text(whole[: len(whole) // 2])
    (folder / "metrics.json").write_text(metrics[:-9])
    source.refresh()
    after = only(source)
    assert (after.state, after.steps, after.return_mean) == (before.state, before.steps, before.return_mean)
    assert list(source.curves(after.key)["test_return_mean"][1]) == [1.0, 3.0]
    (folder / "run.json").write_text(whole.replace("RUNNING", "COMPLETED"))
    source.refresh()
    assert only(source).state == "finished"


def test_runs_are_found_wherever_they_lie(tmp_path):
    put(tmp_path / "suites" / "smoke", 1, task="pz/with/slashes")
    put(tmp_path, 1)
    (tmp_path / "models" / "x").mkdir(parents=True)
    (tmp_path / "models" / "x" / "config.json").write_text("{}")
    keys = {row.key for row in seen(tmp_path).store.rows()}
    assert keys == {"suites/smoke/sacred/kd_student/pz/with/slashes/1", "sacred/kd_student/3m/1"}


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"there is no folder .*nothing-here"):
        FolderSource(tmp_path / "nothing-here")


# ---- damaged and hostile ---------------------------------------------------------------------------------------------

HOSTILE = {
    "nothing": b"",
    "half a file": b'{"status": "COMP',
    "binary": bytes(range(256)) * 40,
    "no object": b"[1, 2, 3]",
    "not a number": b'{"status": "COMPLETED", "start_time": NaN, "seed": Infinity, "t_max": -Infinity}',
    "a huge number": b'{"seed": ' + b"9" * 5000 + b"}",
    "a large number": b'{"seed": 123456789012345678901234567890, "t_max": 1e999, "name": "kd_student"}',
    "deep": b"[" * 100_000,
    "nested": b'{"name": "kd_student", "lr": ' + b"[" * 950 + b"]" * 950 + b"}",
    "other types": json.dumps(
        {name: [{"a": [1]}] for name in ("name", "map_name", "limits", "seed", "status", "start_time", "command")}
        | {"student": [1], "policy": {"return_mean": {}}, "retention": "x", "sees": [3, {"blocks": [], "draw": 5}]}
    ).encode(),
    "half a surrogate": b'{"name": "\\ud800", "map_name": "\\udfff", "status": "COMPLETED"}',
    "strange times": b'{"status": "RUNNING", "start_time": "0001-01-01T00:00:00", "heartbeat": "9999-12-31T23:59:59"}',
}  # fmt: skip


UNREADABLE = [HOSTILE[name] for name in ("nothing", "half a file", "binary", "no object", "a huge number", "deep")]


@pytest.mark.parametrize("name", ["config.json", "run.json", "summary.json", "metrics.json", "cout.txt"])
@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_damaged_file_breaks_nothing_else(tmp_path, name, content):
    put(tmp_path, 1, seed=1)
    (put(tmp_path, 2, seed=2) / name).write_bytes(content)
    source = seen(tmp_path, times=2)
    found = {row.key: row for row in source.store.rows()}
    assert found["sacred/kd_student/3m/1"].state == "finished"
    odd = found["sacred/kd_student/3m/2"]
    shown.settings(source.details(odd.key).facts.config)
    for steps, values in source.curves(odd.key).values():
        assert len(steps) == len(values)
    json.dumps(Query(words=("kd_student",)).page(source.store.rows())).encode("ascii")
    if name in ("config.json", "run.json") and content in UNREADABLE:
        assert odd.state == "broken"
        assert odd.note.startswith(f"{name} is damaged")


def test_metrics_with_gaps_keep_their_steps(tmp_path):
    folder = put(tmp_path, 1, status="RUNNING")
    text = '{"a": {"steps": [1, 2, 3, 4], "values": [NaN, 2, "x", {"py/object": "numpy.float64"}]}, "b": 3, "c": {}}'
    (folder / "metrics.json").write_text(text)
    source = seen(tmp_path)
    assert source.curves(only(source).key) == {"a": ([1, 2, 3, 4], [None, 2.0, None, None])}


def test_a_file_too_large_to_be_one_of_sacreds_is_not_read(tmp_path):
    folder = put(tmp_path, 1)
    with open(folder / "config.json", "wb") as file:
        file.truncate(1 << 40)
    row = only(seen(tmp_path))
    assert row.state == "broken"
    assert row.note == "config.json is 1048576 MB, and only 4 MB are read"
    assert row.task == "3m"


def test_a_named_pipe_does_not_make_it_wait(tmp_path):
    folder = put(tmp_path, 1)
    for name in ("config.json", "metrics.json", "cout.txt"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
    source = seen(tmp_path)
    row = only(source)
    assert row.note == "config.json is no regular file"
    assert source.details(row.key).output == ""
    assert source.curves(row.key) == {}


def test_no_link_is_followed(tmp_path):
    secret = put(tmp_path / "elsewhere", 1, seed=99)
    (secret / "cout.txt").write_text("a secret")
    results = tmp_path / "results"
    folder = put(results, 1)
    for name in ("cout.txt", "metrics.json", "summary.json"):
        (folder / name).unlink()
        (folder / name).symlink_to(secret / name)
    (results / "sacred" / "linked").symlink_to(secret.parent)
    (results / "sacred" / "kd_student" / "3m" / "2").symlink_to(secret)
    source = seen(results)
    row = only(source)
    assert (row.key, row.retention) == ("sacred/kd_student/3m/1", None)
    assert "summary.json cannot be read" in row.note
    assert source.details(row.key).output == ""
    assert source.curves(row.key) == {}


def test_a_folder_that_becomes_a_link_is_forgotten(tmp_path):
    secret = put(tmp_path / "elsewhere", 1, seed=99)
    results = tmp_path / "results"
    folder = put(results, 1)
    source = seen(results)
    key = only(source).key
    shutil.rmtree(folder)
    folder.symlink_to(secret)
    with pytest.raises(KeyError):
        source.details(key)
    assert source.curves(key) == {}
    source.refresh()
    assert source.store.rows() == []


@pytest.mark.parametrize("key", ["", "..", "../secret", "sacred/kd_student/3m/../../../../etc", "/etc", "sacred", "\0"])
def test_only_what_was_found_can_be_asked_for(tmp_path, key):
    put(tmp_path / "results", 1)
    source = seen(tmp_path / "results")
    for ask in (source.details, source.curves, source.curves_version):
        with pytest.raises(KeyError):
            ask(key)


def test_results_may_be_a_link_themselves(tmp_path):
    put(tmp_path / "disk", 1)
    (tmp_path / "results").symlink_to(tmp_path / "disk")
    assert only(seen(tmp_path / "results")).state == "finished"


# ---- a table of many -------------------------------------------------------------------------------------------------


def test_runs_are_filtered_sorted_and_paged(tmp_path):
    for number in range(1, 6):
        put(tmp_path, number, seed=number, score=number / 10)
    put(tmp_path, 1, method="mappo", status="FAILED", limits="fo", curves={})
    every = seen(tmp_path).store.rows()
    page = Query(sort="win_rate").page(every)
    assert [row["seed"] for row in page["rows"]] == [5, 4, 3, 2, 1, 1]
    assert page["rows"][-1]["method"] == "mappo", "what has no value is last"
    assert [row["seed"] for row in Query(sort="win_rate", descending=False).page(every)["rows"]][:2] == [1, 2]
    assert Query(words=("seed=3",)).page(every)["matching"] == 1
    assert Query(words=("mappo", "broken")).page(every)["matching"] == 1
    page = Query(axes={"state": frozenset({"broken"})}).page(every)
    assert (page["matching"], page["total"]) == (1, 6)
    assert page["counts"]["state"] == {"running": 0, "finished": 5, "interrupted": 0, "broken": 1}
    assert page["counts"]["method"] == {"mappo": 1}


def test_a_new_run_is_seen_in_a_folder_that_has_just_changed(tmp_path):
    """Two runs may begin within one tick of the file system's clock."""
    source = seen(tmp_path)
    for number in range(1, 8):
        put(tmp_path, number)
        source.refresh()
        assert len(source.store.rows()) == number


def test_a_run_that_is_listed_before_it_has_files_is_found_later(tmp_path):
    folder = tmp_path / "sacred" / "kd_student" / "3m" / "1"
    folder.mkdir(parents=True)
    source = seen(tmp_path)
    assert source.store.rows() == []
    shutil.rmtree(folder)
    put(tmp_path, 1)
    wait_until(lambda: source.refresh() or source.store.rows())
