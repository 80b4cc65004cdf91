"""A tiny student that a real run has trained, and its bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from main_server import MainServer
from stage_fixtures import words


@dataclass(frozen=True)
class TinyStudent:
    """Where a run has left its student: do not change anything there."""

    results: Path
    record: Path
    models: Path
    buffer: Path
    teacher: Path

    @property
    def checkpoint(self) -> Path:
        """The last one."""
        return max(self.models.glob("*/checkpoint.json"), key=lambda file: int(file.parent.name)).parent


@pytest.fixture(scope="session")
def tiny_student(mains: MainServer, tiny_results: Path, tiny_teacher: Path, tiny_buffer: Path) -> TinyStudent:
    """A student of the tiny teacher under the paper's limits, one agent 8 and one 12 wide."""
    updates = [f"teacher={tiny_teacher}", "limits=lh", "widths=[8, 12]", "seed=1"]
    run = mains.run(*words("kd_student", tiny_results, *updates)).check()
    return TinyStudent(
        results=tiny_results,
        record=Path(run.out.rsplit("written to ")[-1].strip()).parent,
        # Other tests leave students of other seeds in the same results.
        models=next(tiny_results.glob("models/kd_student_seed1_*")),
        buffer=tiny_buffer,
        teacher=tiny_teacher,
    )


@pytest.fixture(scope="session")
def tiny_bundle(tiny_student: TinyStudent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny student's bundle, latencies left out: do not change it."""
    from kd_marl.cli import main

    folder = tmp_path_factory.mktemp("exported") / "bundle"
    assert main(["export", str(tiny_student.models), "--to", str(folder), "--no-latency"]) == 0
    return folder
