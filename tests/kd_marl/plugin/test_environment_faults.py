"""A run on an environment that does something wrong ends in one line that names it, whatever the algorithm."""

from __future__ import annotations

import re

import pytest

TINY = {"mappo": "runner=parallel", "kd_teacher": "runner=parallel", "iql": "runner=episode"}


@pytest.mark.parametrize(
    ("algorithm", "task", "message"),
    [
        (
            "mappo",
            "Raises",
            r", in step 2 of an episode: step\(\) failed with KeyError: 'wheel' \(faulty_gym\.py",
        ),
        ("iql", "Blind", r", in step 2 of an episode: the \w+, number 0 is nan: expected a finite number"),
        ("kd_teacher", "Unseeded", r", at the start of an episode: reset\(\) failed with TypeError: .*'seed'"),
        ("kd_teacher", "OneAction", r" has one action, so there is nothing to decide: kd_mappo_teacher needs two"),
    ],
)
def test_what_an_environment_does_wrong_is_the_runs_one_line(mains, tmp_path, algorithm, task, message):
    block = 1 if algorithm == "iql" else 2
    sizes = [f"{key}={block}" for key in ("batch_size_run", "batch_size", "buffer_size")]
    key = f"faulty_gym:{task}-v0"
    options = [f"env_args.key={key}", "env_args.time_limit=4", "t_max=20", "use_cuda=False", "hidden_dim=8"]
    run = mains.run(
        *(f"--config={algorithm}", "--env-config=gymma", "with", *options, *sizes, TINY[algorithm]),
        *("test_nepisode=2", f"local_results_path={tmp_path}"),
    )
    assert re.match(rf"(environment )?{key}{message}", run.error)


def test_an_environment_of_one_action_is_played_by_a_stock_algorithm(mains, tmp_path):
    options = ["env_args.key=faulty_gym:OneAction-v0", "env_args.time_limit=4", "t_max=8", "use_cuda=False"]
    sizes = ["batch_size=1", "buffer_size=1", "test_nepisode=1", f"local_results_path={tmp_path}"]
    run = mains.run("--config=iql", "--env-config=gymma", "with", *options, *sizes).check()
    # It states no limit of its own, either.
    assert run.err.count("OneAction-v0 states no time limit of its own") == 1
