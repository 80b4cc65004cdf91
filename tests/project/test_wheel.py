"""The wheel alone: in an environment without a clone of ours, from folders that have nothing to do with it."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from stage_fixtures import TASK, TINY

pytestmark = pytest.mark.slow

# What a project in PyMARL's manner has where it is run, and what it would do to whoever imports it.
THEIRS = ("config.py", "envs/__init__.py", "main.py", "utils.py", "zoo.py")
SUITE = f"""
tasks: {{listener: {{env: mpe, key: {TASK}}}}}
methods: {{iql: {{with: {{t_max: 50, batch_size: 2, buffer_size: 2, test_nepisode: 2}}}}}}
limits: [fo]
seeds: [1]
with: {{eval_episodes: 2}}
"""


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    """A wheel, made of an sdist, made of the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    shutil.copytree(
        root / "src", tree / "src", symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, tree / name)
    _run([sys.executable, "setup.py", "-q", "sdist", "--dist-dir", str(folder)], tree)
    (sdist,) = folder.glob("*.tar.gz")
    shutil.rmtree(tree)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    _run([*pip, str(sdist)], folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, root, tmp_path_factory):
    """The programs' folder of an environment that has this wheel and, from here, what it needs."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    _run([sys.executable, "-m", "pip", "--python", str(folder), "install", "-q", "--no-deps", str(wheel)], folder)
    (site,) = folder.glob("lib/python3*/site-packages")
    needed = [path for path in sys.path if Path(path).is_dir() and not Path(path).is_relative_to(root / "src")]
    # As lines of a .pth they are plain folders: the .pth files in them, ours of this clone too, are not read.
    (site / "needed.pth").write_text("\n".join(path for path in needed if "site-packages" in path))
    return folder / "bin"


def _run(command, where, **settings):
    keep = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "EPYMARL_HOME")}
    done = subprocess.run(
        command, cwd=where, env={**keep, **settings}, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(params=[(), THEIRS], ids=["empty", "with_packages_of_those_names"])
def theirs(request, tmp_path):
    """A working folder, empty or with packages of the names that EPyMARL's have."""
    for name in request.param:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"raise RuntimeError('{name} is not for kd-marl')")
    return tmp_path


def test_it_carries_every_package_and_data_file_and_only_names_of_ours(root, wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    source = root / "src"
    data = [source / name for name in ("config", "zoo")]
    expected = {f"kd_core/data/{path.relative_to(source)}" for folder in data for path in folder.rglob("*.*")}
    for pattern in ("kd_*/**/*.py", "epymarl_lite/**/*.*", "**/py.typed", "**/page/*.*", "**/preset_files/*.*"):
        expected |= {path.relative_to(source).as_posix() for path in source.glob(pattern)}
    expected = {name.replace("envs/", "kd_envs/", 1) if name.startswith("envs/") else name for name in expected}
    assert {name for name in expected if "__pycache__" not in name} - packed == set()
    tops = {name.partition("/")[0] for name in packed}
    assert {name for name in tops if not name.startswith("kd_")} == {"epymarl_lite"}


def test_nothing_of_ours_is_imported_by_a_common_name(installed, tmp_path):
    names = ("config", "zoo", "envs", "main", "utils", "data")
    find = f"import importlib.util as u, kd_marl; print([n for n in {names} if u.find_spec(n)])"
    assert _run([installed / "python", "-c", find], tmp_path) == "[]\n"


def test_it_takes_a_teacher_to_a_bundle_that_plays(installed, theirs):
    """Packages of the folder must not be imported; everything that it makes is in there."""
    kd_marl, mpe = str(installed / "kd-marl"), ["--env-config=mpe", "with", f"env_args.key={TASK}"]
    said = _run([kd_marl, "train", "--config=kd_teacher", *mpe, "seed=1", *TINY["kd_teacher"]], theirs)
    assert "kd_teacher on" in said
    _run([kd_marl, "train", "--config=kd_student", *mpe, "seed=1", "limits=lh", *TINY["kd_student"]], theirs)
    (student,) = theirs.glob("results/models/kd_student*")
    assert list(theirs.glob("results/sacred/kd_export/*/1/config.json")), "the stage before it ran first"
    _run([kd_marl, "export", str(student), "--to", "bundle", "--no-latency", "--no-int8"], theirs)
    assert "return" in _run([kd_marl, "run", "bundle", *mpe, "--episodes", "2"], theirs)
    assert "no problems found" in _run([kd_marl, "doctor"], theirs)
    again = _run([kd_marl, "teachers", "train", "pz-mpe-simple-adversary-v3", "with", *TINY["kd_teacher"]], theirs)
    assert "training 1 of 1: kd-marl train --config=kd_teacher" in again
    (theirs / "suite.yaml").write_text(SUITE)
    assert "1 finished" in _run([kd_marl, "suite", "run", "suite.yaml", "--to", "results/suite"], theirs)
    made = {path.name for path in theirs.iterdir()} - {name.partition("/")[0] for name in THEIRS}
    assert made == {"results", "bundle", "suite.yaml"}
    assert not list(installed.parent.glob("lib/**/results"))


def test_uvx_runs_its_command(wheel, tmp_path):
    uvx = Path(sys.executable).with_name("uvx")
    with zipfile.ZipFile(wheel) as packed:
        (metadata,) = [packed.read(name).decode() for name in packed.namelist() if name.endswith("/METADATA")]
    needed = [
        Requirement(line.partition(": ")[2]) for line in metadata.splitlines() if line.startswith("Requires-Dist")
    ]
    # Help needs none of what it needs: nothing is downloaded.
    (tmp_path / "none.txt").write_text("\n".join(f"{each.name}; python_version < '3'" for each in needed))
    command = [
        str(uvx),
        "--offline",
        "--python",
        sys.executable,
        "--overrides",
        "none.txt",
        "--from",
        str(wheel),
        "kd-marl",
    ]
    assert "kd-marl teachers" in _run([*command, "teachers", "--help"], tmp_path, UV_CACHE_DIR=str(tmp_path / "cache"))
