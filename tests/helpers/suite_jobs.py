"""Jobs of a suite without a run behind them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kd_marl.suite.job import Job


@dataclass(frozen=True)
class Made:
    """A run that is made when a file is there."""

    file: Path

    def found(self):
        return self.file if self.file.is_file() else None


def job_of(folder, label, **changes):
    values = {"kind": label, "key": label, "words": (label,), "proof": Made(folder / f"{label}.made")}
    return Job(label=label, results=folder, **{**values, **changes})
