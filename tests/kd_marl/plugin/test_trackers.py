"""`use_tensorboard` and `use_wandb`: what they wrote is read back, on both hosts."""

from __future__ import annotations

import json
import shutil
import struct
import sys

import pytest

from kd_core.errors import UserError
from kd_marl.plugin import trackers
from stage_fixtures import words

OFF = {"use_tensorboard": False, "use_wandb": False, "wandb_team": None, "wandb_project": None, "wandb_mode": "offline"}
TINY = [
    *("t_max=300", "test_interval=100", "log_interval=100", "runner_log_interval=100", "learner_log_interval=100"),
    *("test_nepisode=2", "batch_size_run=2", "batch_size=2", "buffer_size=2", "hidden_dim=8", "seed=1"),
]


@pytest.fixture
def host(request, tmp_path):
    """Where to run: its environment variables, what is run first, and the folder of its TensorBoard files."""
    logs = tmp_path / "host" / "results" / "tb_logs"
    if request.param == "bundled":
        before = f"import pathlib, epymarl_lite.run\nepymarl_lite.run._TB_LOGS = pathlib.Path({str(logs)!r})"
        return {}, before, logs
    # A copy, since a checkout writes beside itself.
    home = request.getfixturevalue("checkout")["EPYMARL_HOME"]
    shutil.copytree(f"{home}/src", tmp_path / "host" / "src")
    return {"EPYMARL_HOME": str(tmp_path / "host")}, "", logs


def scalars(folder):
    """Logged name -> steps and values, as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def records(data):
    """The records of a ``.wandb`` file, which is a log as LevelDB's: pieces with a checksum, in blocks."""
    block, header, at, whole = 32 * 1024, 7, 7, b""
    while at + header <= len(data):
        if block - at % block < header:
            at += block - at % block
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + header : at + header + size]
        at += header + size
        # A whole record, or the last piece of one.
        if kind in (1, 4):
            yield whole
            whole = b""


def history(file):
    """Logged name -> steps and values of an offline run of Weights & Biases."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = {}
    for data in records(file.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for name, value in items.items():
            if not name.startswith("_"):
                found.setdefault(name, []).append((record.history.step.num, value))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("host", ["bundled", "checkout"], indirect=True)
def test_what_was_written_is_what_sacred_has(host, mains, tmp_path):
    for package in ("tensorboard", "wandb"):
        pytest.importorskip(package)
    environment, before, logs = host
    on = ["use_tensorboard=True", "use_wandb=True", "wandb_team=team", "wandb_project=project", "wandb_mode=offline"]
    offline = {**environment, "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}
    mains.run(*words("mappo", tmp_path / "results", *TINY, *on), env=offline, before=before).check()
    (metrics,) = (tmp_path / "results" / "sacred").rglob("metrics.json")
    expected = {
        name: list(zip(curve["steps"], curve["values"], strict=True))
        for name, curve in json.loads(metrics.read_text()).items()
    }
    assert {"return_mean", "test_return_mean", "pg_loss"} <= set(expected)
    (folder,) = logs.iterdir()
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    for written in (scalars(folder), history(file)):
        assert set(written) == set(expected)
        for name, points in expected.items():
            assert [step for step, _ in written[name]] == [step for step, _ in points]
            assert [value for _, value in written[name]] == pytest.approx([value for _, value in points], nan_ok=True)


@pytest.mark.parametrize(
    ("given", "missing", "message"),
    [
        ({"use_tensorboard": True}, "torch.utils.tensorboard", r"TensorBoard, which is not installed: .*\[track\]"),
        ({"use_wandb": True}, "wandb", r"Weights & Biases, which is not installed: .*\[track\]"),
        ({"use_wandb": True}, "", "use_wandb=True needs wandb_team: give wandb_team=NAME"),
        ({"use_wandb": True, "wandb_team": "me"}, "", "needs wandb_project"),
        (
            {"use_wandb": True, "wandb_team": "me", "wandb_project": "kd", "wandb_mode": "ofline"},
            "",
            "wandb_mode=ofline: expected offline or online; did you mean 'offline'",
        ),
    ],
)
def test_a_mistake_is_one_line(given, missing, message, monkeypatch):
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=message):
        trackers.check({**OFF, **given})


def test_nothing_is_imported_for_what_is_off(monkeypatch):
    for module in ("torch.utils.tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    trackers.check(OFF)
