"""The project's own files: what gets installed, what the locks promise, and what a machine without Python is told."""

import re
import shutil
import subprocess
import sys

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement

SUPPORTED = ("3.10", "3.11", "3.12", "3.13", "3.14")


@pytest.fixture(scope="module")
def metadata(root, tmp_path_factory):
    """What setup.py declares, as setuptools itself reads it."""
    folder = tmp_path_factory.mktemp("metadata")
    command = [sys.executable, "setup.py", "-q", "dist_info", "--output-dir", str(folder)]
    subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=120)
    (found,) = folder.glob("*.dist-info")
    text = (found / "METADATA").read_text(encoding="utf-8").split("\n\n")[0]
    fields = [line.split(": ", 1) for line in text.splitlines() if re.match(r"[A-Z][\w-]+: ", line)]
    return {key: [value for name, value in fields if name == key] for key in dict(fields)}


def pins(root, name, python):
    """{package: version} that this lock file installs on this Python."""
    environment = {**default_environment(), "python_version": python}
    found = {}
    for line in (root / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            found |= pins(root, line[3:], python)
        elif line and not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                (version,) = requirement.specifier
                assert version.operator == "==", f"{line}: not pinned"
                assert canonical(requirement.name) not in found, f"{line}: pinned twice for Python {python}"
                found[canonical(requirement.name)] = version.version
    return found


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_package_names_its_extras_and_its_pythons(metadata):
    assert metadata["Name"] == ["kd-marl"]
    assert {"smax", "grids", "onboard", "suite", "track", "dev"} <= set(metadata["Provides-Extra"])
    assert set(metadata["Requires-Python"][0].split(",")) == {">=3.10", "<3.15"}


@pytest.mark.parametrize("python", SUPPORTED)
def test_the_locks_satisfy_what_setup_requires(root, metadata, python):
    locked = pins(root, "requirements-dev.lock", python)
    extras = {"", *metadata["Provides-Extra"]} - {"traffic"}
    for text in metadata["Requires-Dist"]:
        requirement = Requirement(text)
        asked = [{"python_version": python, "extra": extra} for extra in extras]
        if requirement.marker is None or any(map(requirement.marker.evaluate, asked)):
            version = locked[canonical(requirement.name)]
            assert requirement.specifier.contains(version), f"{text} is locked at {version} on Python {python}"


def test_the_version_is_stated_once(root, metadata):
    (version,) = metadata["Version"]
    stated = [
        path.name
        for path in (root / "setup.py", root / "CITATION.cff", root / "pyproject.toml", *root.glob("src/kd_marl/*.py"))
        if f'"{version}"' in path.read_text(encoding="utf-8")
    ]
    assert stated == ["setup.py"]


def test_without_a_usable_python_setup_says_so_in_one_line(root, tmp_path):
    for name in ("Makefile", "requirements.lock", "requirements-extras.lock", "requirements-dev.lock", "setup.py"):
        shutil.copy(root / name, tmp_path / name)
    command = ["make", "setup", f"PYTHON={tmp_path / 'none'}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "needs Python 3.10 to 3.14" in line
    assert "make setup PYTHON=" in line
    assert not (tmp_path / ".venv").exists()


def test_the_citation_names_the_paper(root):
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["license"] == "Apache-2.0"
    paper = citation["preferred-citation"]
    assert paper["title"].startswith("KD-MARL: Resource-Aware Knowledge Distillation")
    assert len(paper["authors"]) == 6
