"""Thousands of damaged bundles and expert buffers: refused in one line or read as what they were; nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import tagged_episodes
from kd_core.artifacts.expert_buffer import ExpertBuffer, check_buffer
from kd_core.errors import UserError
from kd_marl.deploy.check import check_bundle
from kd_onboard.bundle import profile_text, read_bundle
from kd_onboard.errors import BundleError
from mutations import as_text, damaged_bytes, damaged_json, damaged_safetensors
from onboard_bundles import write_bundle

# Together more than 10,000 damaged folders. A hang ends a test at the limit, and a crash of the process all of them.
BUNDLES, SEALED, CHECKED, BUFFERS = 4000, 2000, 300, 4500
# Thousands of examples need no store of them and no explanation beyond the smallest failing one.
QUICK = settings(database=None, phases=[Phase.generate, Phase.shrink])
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


class Workspace:
    """A folder that is damaged and mended again and again; it remembers where, so that mending is quick."""

    def __init__(self, folder: Path, make: Callable[[Path], object]) -> None:
        self.folder = folder
        make(folder)
        self.files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        self.touched: set[str] = set()

    def clear(self, path):
        """Nothing is there any more."""
        self.touched.add(path)
        target = f"{self.folder}/{path}"
        if os.path.isdir(target) and not os.path.islink(target):
            os.rmdir(target)
        elif os.path.lexists(target):
            os.unlink(target)
        return target

    def put(self, path, data):
        # Not rewritten in place: some file systems wait for the disk then.
        with open(self.clear(path), "wb") as file:
            file.write(data)

    def mend(self):
        """Everything as it was."""
        for path in self.touched:
            self.clear(path)
            if path in self.files:
                self.put(path, self.files[path])
        self.touched = set()

    def same(self):
        """Whether every file is there with its bytes, and no other."""
        for path in self.touched:
            target = f"{self.folder}/{path}"
            kept = os.path.isfile(target) and not os.path.islink(target)
            if kept != (path in self.files) or os.path.lexists(target) != kept:
                return False
            if kept and Path(target).read_bytes() != self.files[path]:
                return False
        return True


def memory_folder(tmp_path_factory, name):
    """A temporary folder, in memory where the system has such a place."""
    base = Path("/dev/shm")
    if os.access(base, os.W_OK):
        return Path(tempfile.mkdtemp(dir=base, prefix=f"kd-{name}-"))
    return tmp_path_factory.mktemp(name)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = memory_folder(tmp_path_factory, "bundle")
    yield Workspace(folder / "bundle", write_bundle)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def whole_bundle(tmp_path_factory, tiny_bundle):
    folder = memory_folder(tmp_path_factory, "whole")
    yield Workspace(folder / "bundle", lambda target: shutil.copytree(tiny_bundle, target))
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def buffer(tmp_path_factory):
    folder = memory_folder(tmp_path_factory, "buffer")
    yield Workspace(folder / "buffer", lambda target: tagged_episodes.write(target, 10))
    shutil.rmtree(folder)


def damage_a_file(data, space):
    """One file changed, removed, renamed, exchanged, linked or joined by a stranger."""
    path = data.draw(st.sampled_from(sorted(space.files)))
    name = path.rsplit("/", 1)[-1]
    kind = data.draw(st.sampled_from(["bytes"] * 6 + ["json"] * 3 + ["rename", "remove", "exchange", "link", "folder"]))
    if kind == "json" and path.endswith(".json"):
        space.put(path, as_text(data.draw(damaged_json(json.loads(space.files[path])))))
    elif kind == "rename":
        space.clear(path)
        space.put(
            path[: -len(name)] + data.draw(st.sampled_from(["x", f"{name}.bak", name.upper()])), space.files[path]
        )
    elif kind == "remove":
        space.clear(path)
    elif kind == "exchange":
        space.put(path, space.files[data.draw(st.sampled_from(sorted(space.files)))])
    elif kind == "link":
        os.symlink(data.draw(st.sampled_from(["/dev/zero", "/etc/hostname", ".", "nothing"])), space.clear(path))
    elif kind == "folder":
        os.mkdir(space.clear(path))
    elif path.endswith(".safetensors"):
        space.put(path, data.draw(damaged_safetensors(space.files[path])))
    else:
        space.put(path, data.draw(damaged_bytes(space.files[path])))


def one_line(error):
    text = str(error)
    assert text and "\n" not in text and len(text) < 2000, text


@settings(QUICK, max_examples=BUNDLES)
@given(st.data())
def test_a_damaged_bundle_is_refused_unless_nothing_changed(bundle, data):
    bundle.mend()
    damage_a_file(data, bundle)
    try:
        read_bundle(bundle.folder)
    except BundleError as error:
        one_line(error)
        assert not bundle.same(), f"the undamaged bundle was refused: {error}"
    else:
        assert bundle.same(), "a damaged bundle was accepted"


def seal_again(space, profile):
    """A profile whose hashes and checksum are right again: what only a reader of every field can refuse."""
    if isinstance(profile.get("files"), dict):
        for path, entry in profile["files"].items():
            if isinstance(entry, dict) and path in space.files:
                content = Path(f"{space.folder}/{path}").read_bytes()
                entry.update(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    profile.pop("checksum", None)
    try:
        text = profile_text(profile)
    except (ValueError, AssertionError):
        return
    space.put("profile.json", text.encode())


@settings(QUICK, max_examples=SEALED)
@given(st.data())
def test_a_consistently_wrong_bundle_is_refused_or_is_of_finite_networks_that_fit(bundle, data):
    bundle.mend()
    profile = json.loads(bundle.files["profile.json"])
    if data.draw(st.booleans()):
        profile = data.draw(damaged_json(profile))
    else:
        path = data.draw(st.sampled_from([path for path in bundle.files if path.endswith(".safetensors")]))
        bundle.put(path, data.draw(damaged_safetensors(bundle.files[path])))
    seal_again(bundle, profile)
    try:
        found = read_bundle(bundle.folder)
    except BundleError as error:
        one_line(error)
        return
    for agent in found.agents:
        weights = found.weights(agent)
        assert weights["align.weight"].shape == (agent.width, agent.inputs) == (agent.width, len(agent.features))
        assert weights["head.bias"].shape == (found.task.n_actions,)
        assert all(np.isfinite(value).all() for value in weights.values())


@settings(QUICK, max_examples=CHECKED)
@given(st.data())
def test_the_full_check_refuses_models_and_profiles_that_only_the_hashes_vouch_for(whole_bundle, data):
    whole_bundle.mend()
    profile = json.loads(whole_bundle.files["profile.json"])
    if data.draw(st.booleans()):
        profile["agents"] = data.draw(damaged_json(profile["agents"]))
    else:
        path = data.draw(st.sampled_from([path for path in whole_bundle.files if path.endswith(".onnx")]))
        whole_bundle.put(path, data.draw(damaged_bytes(whole_bundle.files[path])))
    seal_again(whole_bundle, profile)
    try:
        check_bundle(whole_bundle.folder)
    except BundleError as error:
        one_line(error)


@settings(QUICK, max_examples=BUFFERS)
@given(st.data())
def test_a_damaged_expert_buffer_is_refused_or_holds_the_same_episodes(buffer, data):
    buffer.mend()
    damage_a_file(data, buffer)
    fault = check_buffer(buffer.folder)
    try:
        found = ExpertBuffer.open(buffer.folder)
        tensors = found.gather(range(found.episodes))
    except UserError as error:
        one_line(error)
        assert fault is not None
        return
    if fault is not None:
        one_line(fault)
        return
    # What neither a hash nor a size vouches for (the command, say) may differ; the episodes may not.
    assert found.episodes == 10
    originals = tagged_episodes.episodes(0, 10)
    for key, value in tensors.items():
        np.testing.assert_array_equal(value.numpy(), originals[key].to(value.dtype).numpy())
