"""The numbers of a seeded run stay what they are, to rounding: a change that moves them has to say so here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

STORED = Path(__file__).with_name("short_run_fingerprints.json")
# One thread and the plainest instructions: processors still round otherwise, in their libraries' own choices.
PINNED = {
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
}


def test_a_short_run_of_teacher_buffer_and_student_has_the_stored_numbers(root, source_root, tmp_path):
    stored = json.loads(STORED.read_text())
    if version("torch").split("+")[0] != stored["torch"]:
        pytest.skip(f"the numbers are those of torch {stored['torch']}; another version draws and rounds otherwise")
    environment = {key: value for key, value in os.environ.items() if key != "EPYMARL_HOME"}
    paths = {"PYTHONPATH": os.pathsep.join([str(source_root), str(root / "tests" / "helpers")])}
    done = subprocess.run(
        [sys.executable, str(root / "tests" / "helpers" / "short_run.py"), str(tmp_path)],
        env={**environment, **PINNED, **paths},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == stored["fingerprints"].keys()
    for name, tensors in stored["fingerprints"].items():
        # Embeddings are stored in half precision; one unit of its last place moves them by 1e-4.
        assert found[name] == {key: pytest.approx(two, rel=5e-4, abs=5e-4) for key, two in tensors.items()}, name
