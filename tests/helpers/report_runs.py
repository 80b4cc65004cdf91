"""Made-up runs on disk for the tests of the report."""

from __future__ import annotations

import json

import numpy as np
import safetensors.numpy

from kd_marl.report import groups
from kd_marl.runs import search

SHA, OTHER_SHA = "ab" * 32, "cd" * 32
SPREAD = "pz-mpe-simple-spread-v3"
AGENTS, ACTIONS = 3, 8
NAMES = ["north", "east", "south", "west", "stop", "target_0", "target_1", "target_2"]
CURVE = {"test_battle_won_mean": [0.1, 0.5, 0.8], "test_return_mean": [-50.0, -40.0, -30.0]}


def sees(draw=None):
    """Each agent sees all of E, half of A and nothing of O."""
    blocks = {"A": [2, 4], "E": [6, 6], "O": [0, 2]}
    return [{"agent": f"agent_{i}", "blocks": blocks, "observed": 12, "draw": draw} for i in range(AGENTS)]


def counts(time, favourite, share=0.75):
    """Decisions of which ``share`` go to one action, the rest to all; int32 ``(time, agents, actions)``."""
    array = np.full((time, AGENTS, ACTIONS), int(100 * (1 - share) / ACTIONS), np.int32)
    array[..., favourite] += int(100 * share)
    return array


def put(results, number, method="kd_student", task="3m", env="smax", limits="lh", seed=1, **given):
    """Write a run's folder and return it.

    Args:
        results: the results folder.
        number: the run's number.
        method: its name.
        task: its task.
        env: its environment.
        limits: fo, lh or lha.
        seed: its seed.
        given: ``score`` and ``teacher`` (win rates, or returns of particles), ``sha``, ``settings`` (for the
            configuration), ``summary`` (more of it), ``old`` (nothing that older runs lack), ``preset``, ``start``.
    """
    folder = results / "sacred" / method / task / str(number)
    folder.mkdir(parents=True)
    wins = env == "smax"
    score, teacher = given.get("score", 0.8 if wins else -50.0), given.get("teacher", 0.9 if wins else -40.0)
    preset = None if limits == "fo" else given.get("preset", "paper")
    config = {
        **{"name": method, "env": env, "env_args": {"map_name": task, "seed": seed}, "limits": limits, "lr": 0.01},
        **{"masks": "", "masks_preset": preset or "paper", "seed": seed, "evaluate": False, "command": f"run {number}"},
        **given.get("settings", {}),
    }
    record = {
        "status": "COMPLETED",
        "start_time": given.get("start", f"2026-01-01T00:00:{number:02d}"),
        "host": {"cpu": "A processor", "python_version": "3.11.7"},
        "experiment": {"repositories": [{"commit": "0123456789", "dirty": False}], "dependencies": ["torch==2.13.0"]},
    }
    summary = {
        **{"task": task, "limits": limits, "masks_preset": preset, "seed": seed, "episodes": 200},
        **{"command": f"python src/main.py --config={method} seed={seed}"},
    }
    if method in ("mappo", "qmix", "vdn"):
        summary |= {"algorithm": method, "steps": 1000, "policy": _scored(score, wins)}
        policies = ("policy",)
    else:
        summary |= _student(score, teacher, wins, given.get("sha", SHA))
        policies = ("teacher", "student", "random")
    if not given.get("old"):
        summary |= {"sees": sees(), "actions": [NAMES] * AGENTS}
        if policies == ("policy",):
            summary |= {"params": 5000.0, "flops_per_decision": 2e4, "flops_per_episode": 1e6, "decision_us": 50.0}
        else:
            summary["agreement_per_agent"] = [0.9, 0.8, None]
        arrays = {name: counts(6 + place, place + 5) for place, name in enumerate(policies)}
        safetensors.numpy.save_file(arrays, folder / "actions.safetensors")
    summary |= given.get("summary", {})
    metrics = {name: {"steps": [0, 500, 1000], "values": values} for name, values in CURVE.items()}
    for name, content in (("config", config), ("run", record), ("summary", summary), ("metrics", metrics)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def fill(results, old=False):
    """Something of everything: two seeds of teacher, students, baselines, comparators and removed terms."""
    number = 0
    cells = [("3m", method, "lh") for method in ("kd_student", "mappo", "kd_no_kl", "own_method")]
    cells += [("3m", "kd_student", "fo"), ("3s5z", "kd_student", "lha"), ("3s5z", "ctds", "lha"), ("3m", "ctds", "lha")]
    for seed in (1, 2):
        for task, method, limits in cells:
            number += 1
            put(results, number, method, task, limits=limits, seed=seed, old=old, score=0.7 + 0.01 * seed)
        for preset in ("paper", "random"):
            number += 1
            put(results, number, task=SPREAD, env="gymma", seed=seed, preset=preset, old=old)


def _scored(score, wins):
    one = {"return_mean": 10 * score if wins else score, "return_std": 1.0, "win_rate": score if wins else None}
    return {**one, "length_mean": 20.0, "sampled": one}


def _student(score, teacher, wins, sha):
    kept = score / teacher if wins else 1 - abs(score - teacher) / abs(teacher)
    chance = 0.0 if wins else -90.0
    costs = {"params": (400_000, 7000.0), "flops_per_decision": (8e5, 1.6e4)}
    costs |= {"flops_per_episode": (6e7, 1.2e6), "decision_us": (100.0, 90.0)}
    return {
        **{"teacher": _scored(teacher, wins), "student": _scored(score, wins)},
        "random": _scored(chance, wins),
        **{f"{name}_{who}": pair[i] for name, pair in costs.items() for i, who in enumerate(("teacher", "student"))},
        **{"flops_ratio": 50.0, "retention": kept, "agreement": 0.85},
        "retention_normalised": (score - chance) / (teacher - chance),
        **{"widths": [32] * AGENTS, "inputs": [8] * AGENTS},
        "teacher_artifact": {"path": "src/zoo/made-up", "sha256": {"agent.th": sha}},
    }


def grouped(*results):
    """The runs below these folders, in groups that are averaged."""
    return groups.build(search.find(results).runs)
