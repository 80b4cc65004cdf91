"""The numbers of a seeded run stay what they are, bit for bit: a change that moves them has to say so here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

STORED = Path(__file__).with_name("short_run_digests.json")
# One thread, and no instructions that only some processors have: rounding must not depend on the machine.
PINNED = {
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
}


def test_a_short_run_of_teacher_buffer_and_student_has_the_stored_digests(root, source_root, tmp_path):
    stored = json.loads(STORED.read_text())
    if version("torch").split("+")[0] != stored["torch"]:
        pytest.skip(f"the digests are those of torch {stored['torch']}; another version rounds otherwise")
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
    assert json.loads(done.stdout) == stored["digests"]
