"""Students that are told which of their sensors deliver, in a bundle: what every back end is told, and what it does."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from kd_marl.cli import main
from kd_marl.deploy import replay
from kd_marl.runs.student_run import load_student
from kd_onboard import read_bundle
from kd_onboard.agent import OnboardAgent
from kd_onboard.errors import BundleError
from kd_onboard.profile import parse_profile
from stage_fixtures import TASK, words

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def told(mains, tiny_teacher, tiny_buffer, tmp_path_factory):
    """A student under random masks that is told its sensors' status, and its bundle."""
    results = tmp_path_factory.mktemp("told")
    given = [f"teacher={tiny_teacher}", f"expert_buffer={tiny_buffer}", "seed=1", "widths=[8, 12]", "limits=lh"]
    mains.run(*words("kd_student", results, *given, "masks_preset=random", "sensor_status=True")).check()
    run = load_student(next(results.glob("models/kd_student_*")))
    assert main(["export", str(run.folder), "--to", str(results / "bundle"), "--no-latency"]) == 0
    assert main(["bundle", "check", str(results / "bundle")]) == 0
    return run, results / "bundle"


@pytest.mark.parametrize("backend", ["numpy", "onnx", *(["c"] if shutil.which("cc") else [])])
def test_every_back_end_does_what_the_student_does(told, tmp_path, monkeypatch, backend):
    monkeypatch.setenv("KD_ONBOARD_CACHE", str(tmp_path))
    run, bundle = told
    episodes = replay.from_buffer(run.find_buffer(), run.mask, 10**6, seed=0)
    with torch.no_grad():
        logits = run.network.unroll(torch.from_numpy(episodes.obs))[0].numpy()
    best = np.where(episodes.available, logits, -np.inf).argmax(-1)
    for profile in read_bundle(bundle).agents:
        agent = OnboardAgent.load(bundle, profile.index, backend=backend, trust=True)
        features = episodes.features(run.mask, profile.index)
        status = [place for place, feature in enumerate(profile.features) if feature.status_of is not None]
        assert len(status) == len(run.mask.layout.real(profile.index))
        assert set(np.unique(features[..., status]).tolist()) == {0.0, 1.0}
        for e in range(len(features)):
            agent.reset()
            can = episodes.available[e, :, profile.index]
            assert [agent.act(row, may) for row, may in zip(features[e], can, strict=True)] == best[
                e, :, profile.index
            ].tolist()


def test_the_bundle_plays_as_its_student_was_measured(told, tmp_path):
    run, bundle = told
    options = ["--episodes", str(run.summary["episodes"]), "--json", str(tmp_path / "run.json")]
    task = ["--env-config=mpe", "with", f"env_args.key={TASK}", "runner=parallel", "batch_size_run=4"]
    assert main(["run", str(bundle), *options, *task]) == 0
    found = json.loads((tmp_path / "run.json").read_text())["bundle"]
    assert found["return_mean"] == pytest.approx(run.summary["student"]["return_mean"], abs=1e-4)


def test_a_status_of_a_feature_that_is_not_there_is_refused(told):
    raw = json.loads((told[1] / "profile.json").read_text())
    feature = next(feature for feature in raw["agents"][0]["features"] if "status_of" in feature)
    feature["status_of"] = 1000
    with pytest.raises(BundleError, match="status_of"):
        parse_profile(raw, "profile.json")
