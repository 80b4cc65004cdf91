"""Run teacher, buffer and student on the toy task and print fingerprints: ``python short_run.py FOLDER``."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from tiny_stages import run_stage, stage_args

torch.set_num_threads(1)
# Environments in processes of their own are quickest on the core of the process that waits for them.
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> dict[str, list[float]]:
    """Each tensor's norm, and its product with a wave, which tells an order from another; in float64."""
    found = {}
    for name, tensor in sorted(tensors.items()):
        values = tensor.double().flatten()
        wave = torch.cos(torch.arange(values.numel(), dtype=torch.float64))
        found[name] = [round(values.norm().item(), 6), round(values.dot(wave).item(), 6)]
    return found


def run(folder: Path) -> dict[str, dict[str, list[float]]]:
    """Train a teacher, export its buffer, distil a student; the fingerprints of weights and shards."""
    common = {"save_model": True, "test_interval": 100, "seed": 7}
    run_stage(stage_args("kd_teacher", folder, t_max=600, epochs=2, patience=0.3, **common))
    teacher = max((folder / "models").glob("kd_teacher*/*"), key=lambda step: int(step.name))
    run_stage(stage_args("kd_export", folder, teacher=str(teacher), expert_buffer=str(folder / "buffer"), seed=7))
    students = {"teacher": str(teacher), "expert_buffer": str(folder / "buffer"), "distill_on": "mixed"}
    limits = {"limits": "fo", "masks": "0: [0, 1, 2], 1: [0, 1, 2, 4]", "own_action": True, "widths": [8, 12]}
    sizes = {"t_max": 400, "minibatch_episodes": 8, "updates_per_train": 2}
    run_stage(stage_args("kd_student", folder, **students, **limits, **sizes, **common))
    student = max((folder / "models").glob("kd_student*/*"), key=lambda step: int(step.name))
    found = {f"shard {file.name}": fingerprint(load_file(file)) for file in sorted((folder / "buffer").glob("shard-*"))}
    for name, path in {
        "teacher": teacher / "agent.th",
        "critic": teacher / "critic.th",
        "student": student / "agent.th",
    }.items():
        found[name] = fingerprint(torch.load(path, weights_only=True))
    return found


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        fingerprints = run(Path(sys.argv[1]))
    print(json.dumps(fingerprints, indent=2))
