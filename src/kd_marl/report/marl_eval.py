"""Runs as the JSON of InstaDeep's marl-eval, which BenchMARL and Mava write too.

Environment -> task -> algorithm -> ``seed_<n>`` -> ``step_<k>`` with ``step_count`` and a list for each metric, and
``absolute_metrics`` with those of the final evaluation. A task is named with its limits, since methods are compared
under the same ones: ``3m_lh``. Metrics are ``return`` and, where battles are won, ``win_rate`` in [0, 1]; policies act
greedily. A list has one value, the mean over the test's episodes. Aggregates over tasks need the same methods, seeds
and steps on each: marl-eval says where they differ.
"""

from __future__ import annotations

import json
from typing import Any

from kd_marl.report.groups import Groups
from kd_marl.report.methods import setting_name, short_task
from kd_marl.runs.finished import Run

FILE = "marl_eval.json"
_LOGGED = {"return": "test_return_mean", "win_rate": "test_battle_won_mean"}


def document(groups: Groups) -> str:
    """Write the runs that the tables show."""
    found: dict[str, Any] = {}
    for cell, group in sorted(groups.main.items()):
        setting = setting_name(cell.task, cell.limits, cell.sight).replace(" ", "_")
        task = found.setdefault(cell.task[0], {}).setdefault(f"{short_task(cell.task[1])}_{setting}", {})
        task[cell.method] = {f"seed_{run.seed}": _run(run) for run in group.runs}
    return json.dumps(found, indent=1) + "\n"


def _run(run: Run) -> dict[str, Any]:
    final = {"return": [run.policy["return_mean"]]}
    if run.policy["win_rate"] is not None:
        final["win_rate"] = [run.policy["win_rate"]]
    curves = {name: run.metrics[_LOGGED[name]] for name in final if _LOGGED[name] in run.metrics}
    tests: dict[float, dict[str, Any]] = {}
    for name, (steps, values) in curves.items():
        for step, value in zip(steps.tolist(), values.tolist(), strict=True):
            # One that was gone on with may have made a test twice: the later one stands.
            tests.setdefault(step, {})[name] = [value]
    whole = [(step, test) for step, test in sorted(tests.items()) if len(test) == len(final)]
    # Nobody tested it on the way: its final evaluation is the one point that there is.
    whole = whole or [(run.steps or 0, final)]
    curve = {f"step_{number}": {"step_count": int(step), **test} for number, (step, test) in enumerate(whole)}
    return {**curve, "absolute_metrics": final}
