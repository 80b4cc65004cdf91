"""A stock learner's weights are on disk whole or not at all, and damaged ones are named."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import pytest
import torch

from kd_core.errors import UserError
from kd_marl.plugin import weights


class Learner:
    """Saves two files, as EPyMARL's learners do."""

    def __init__(self, size=4):
        self.agent, self.mixer = torch.nn.Linear(size, size), torch.nn.Linear(2, 2)

    def save_models(self, path):
        torch.save(self.agent.state_dict(), f"{path}/agent.th")
        torch.save(self.mixer.state_dict(), f"{path}/mixer.th")

    def load_models(self, path):
        self.agent.load_state_dict(torch.load(f"{path}/agent.th", map_location=lambda storage, location: storage))
        self.mixer.load_state_dict(torch.load(f"{path}/mixer.th", map_location=lambda storage, location: storage))


def whole(size=4):
    learner = Learner(size)
    weights.saved_whole(learner)
    weights.loaded_in_one_line(learner)
    return learner


def test_weights_are_written_and_read_as_without_the_change(tmp_path):
    learner, plain = whole(), Learner()
    learner.save_models(str(tmp_path / "50"))
    plain.load_models(str(tmp_path / "50"))
    assert torch.equal(plain.agent.weight, learner.agent.weight)
    assert {file.name for file in tmp_path.rglob("*")} == {"50", "agent.th", "mixer.th"}
    learner.load_models(str(tmp_path / "50"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_one_line_and_leaves_the_checkpoints_before_it_whole(small_disk):
    whole().save_models(str(small_disk / "50"))
    (small_disk / "100").mkdir()
    with pytest.raises(UserError, match=rf"disk full while writing the weights in {small_disk}/100: free some space"):
        whole(size=400).save_models(str(small_disk / "100"))
    assert {file.name for file in small_disk.rglob("*")} == {"50", "agent.th", "mixer.th"}
    whole().load_models(str(small_disk / "50"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk full while writing the weights"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot write the weights in .*: .*Read-only file system"),
        (RuntimeError("[enforce fail] unexpected pos 64 vs 0"), "cannot write the weights in .*unexpected pos"),
    ],
)
def test_what_else_may_hinder_it_is_said(tmp_path, error, message):
    learner = Learner()

    def fail(path):
        Path(path, "agent.th").write_bytes(b"half")
        raise error

    learner.save_models = fail
    weights.saved_whole(learner)
    with pytest.raises(UserError, match=message):
        learner.save_models(str(tmp_path / "50"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["agent.th", "mixer.th"])
@pytest.mark.parametrize("size", [0, 10, 600], ids=["empty", "cut", "cut late"])
def test_a_damaged_file_is_named(tmp_path, name, size):
    learner = whole()
    learner.save_models(str(tmp_path))
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(UserError, match=rf"^{file} is damaged \(cut short or altered\): copy it again"):
        learner.load_models(str(tmp_path))


def test_weights_of_another_network_are_no_damage(tmp_path):
    whole(size=4).save_models(str(tmp_path))
    with pytest.raises(UserError, match="holds no weights of this configuration"):
        whole(size=5).load_models(str(tmp_path))
