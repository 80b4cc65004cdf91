"""`kd-onboard` installs alone, and acts where there is nothing but numpy."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from kd_marl.deploy import signing
from kd_onboard import OnboardAgent, read_bundle
from onboard_bundles import ACTIONS, SEEN, write_bundle

ACT = """
import importlib.util, json, sys
import numpy as np
from kd_onboard import OnboardAgent
for package in ("torch", "kd_marl", "onnxruntime", "safetensors", "yaml"):
    assert importlib.util.find_spec(package) is None, package
given = json.loads(sys.stdin.read())
agent = OnboardAgent.load(sys.argv[1], 1, sys.argv[2], trust=True)
print([agent.act(np.array(row, np.float32), given["available"]) for row in given["features"]])
"""

MISSING = """
import sys
from kd_onboard import BackendError, OnboardAgent
try:
    OnboardAgent.load(sys.argv[1], 0, "onnx")
except BackendError as error:
    print(error)
"""


UNVERIFIED = """
import sys
from kd_onboard import OnboardAgent, TrustError
for options in ({}, {"key": sys.argv[2]}):
    try:
        OnboardAgent.load(sys.argv[1], 0, "c", **options)
    except TrustError as error:
        print(error)
"""


def python(*words, **options):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def robot(root, tmp_path_factory):
    """The interpreter of an environment with numpy, and kd-onboard as pip installs it."""
    folder = tmp_path_factory.mktemp("robot")
    # Setuptools builds beside the sources.
    shutil.copytree(root / "src" / "kd_onboard", folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    python(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    interpreter = folder / "venv" / "bin" / "python"
    site = Path(python(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    for part in Path(sysconfig.get_path("purelib")).glob("numpy*"):
        (site / part.name).symlink_to(part)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", interpreter]
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    python(*wheel, "--wheel-dir", folder / "wheels", folder / "source")
    # With its dependencies, which numpy alone must satisfy.
    python(*pip, "install", "--quiet", "--no-index", *(folder / "wheels").glob("*.whl"))
    return interpreter


@pytest.mark.parametrize("backend", ["numpy", "c"])
def test_an_agent_acts_in_an_environment_with_numpy_alone(robot, tmp_path, monkeypatch, backend):
    bundle = write_bundle(tmp_path / "bundle")
    features = np.random.default_rng(0).standard_normal((20, len(SEEN[1]))).astype(np.float32)
    given = json.dumps({"features": features.tolist(), "available": [1] * ACTIONS})
    monkeypatch.setenv("KD_ONBOARD_CACHE", str(tmp_path / "compiled"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    found = python(robot, "-I", "-c", ACT, bundle, backend, input=given)
    agent = OnboardAgent.load(bundle, 1)
    assert json.loads(found) == [agent.act(row, [1] * ACTIONS) for row in features]


def test_what_is_missing_there_is_named(robot, tmp_path):
    bundle = write_bundle(tmp_path / "bundle")
    assert python(robot, "-I", "-c", MISSING, bundle).strip() == (
        "this backend needs ONNX Runtime: pip install 'kd-onboard[onnx]'"
    )


def test_a_robot_without_cryptography_is_told_what_verifying_needs(robot, tmp_path):
    bundle = write_bundle(tmp_path / "bundle")
    signing.generate(tmp_path / "robots")
    signing.sign(read_bundle(bundle), tmp_path / "robots.key")
    unsaid, missing = python(robot, "-I", "-c", UNVERIFIED, bundle, tmp_path / "robots.pub").splitlines()
    assert "its C is code" in unsaid
    assert missing == "to verify a signature needs cryptography: pip install 'kd-onboard[verify]'"


def test_it_has_the_version_of_the_whole(root):
    stated = re.search(r'^version = "(.+)"$', (root / "src/kd_onboard/pyproject.toml").read_text(), re.MULTILINE)
    assert f'VERSION = "{stated[1]}"' in (root / "setup.py").read_text()
