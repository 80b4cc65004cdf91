"""The end of a run: its result in files, and as a table in the terminal."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from kd_core import files
from kd_marl.evaluation import actions, table


def report(folder: Path, summary: dict[str, Any], counts: dict[str, np.ndarray]) -> None:
    """Write ``actions.safetensors`` and ``summary.json`` and print what was scored.

    Args:
        folder: the run's.
        summary: the content of ``summary.json``.
        counts: of each policy, int32 ``(time, agents, actions)``.
    """
    os.makedirs(folder, exist_ok=True)
    actions.write_actions(folder, counts)
    files.write_json(folder / "summary.json", summary)
    run = shlex.quote(os.path.relpath(folder))
    if "student" in summary:
        print(table.result_text(summary))  # type: ignore[arg-type]
        # A film has one task.
        if "tasks" not in summary:
            print(f"to see it: kd-marl watch {run} --open")
        if not summary.get("message_bits"):
            print(f"for a robot: kd-marl export {run} --to bundle")
    else:
        score = summary["policy"]
        ways = {"greedy": score, "sampled": score.get("sampled")}
        returns = [f"{way['return_mean']:.2f} ± {way['return_std']:.2f} {name}" for name, way in ways.items() if way]
        print(
            f"{summary['algorithm']} on {summary['task']}, limits {summary['limits']}, {summary['episodes']} episodes: "
            f"return {', '.join(returns)}"
        )
    print(f"written to {folder / 'summary.json'}", flush=True)
