"""The vector runner: the parallel runner's episodes on either host, its masks, and the same scores on each back end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from epymarl_lite.envs.env_group import EnvGroup, env_factories
from epymarl_lite.runners.rollout import RolloutRunner
from kd_envs.hetero_mask import MaskedEnv, mask_for, plain_layout
from kd_envs.hetero_mask.wrapper import MaskedBatch
from kd_envs.jax_support import available
from kd_envs.mpe.batch import TASKS, batched_mpe
from runtime_env import CountingEnv, layout, run_args
from stage_fixtures import TINY, words

needs_jaxmarl = pytest.mark.skipif(not available(), reason="JaxMARL needs Python 3.11: pip install -e '.[smax]'")


# Episodes at once; the sizes that other tests compile too.
BLOCK = 4


# --- the parallel runner's episodes -----------------------------------------------------------------------------


@pytest.fixture(params=["bundled", "checkout"])
def host(request) -> dict[str, str]:
    """What names a host: nothing, or EPYMARL_HOME."""
    return {} if request.param == "bundled" else request.getfixturevalue("checkout")


def compare(task: str, host: dict[str, str]) -> dict:
    environment = {key: value for key, value in os.environ.items() if key != "EPYMARL_HOME"}
    command = [sys.executable, str(Path(__file__).parents[1] / "helpers" / "runner_comparison.py"), task]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**environment, **host}, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@needs_jaxmarl
def test_battles_stepped_in_one_call_are_the_parallel_runners(host):
    found = compare("smax", host)
    assert found["host"] == ("epymarl" if host else "epymarl_lite")
    assert {"battle_won_mean", "test_battle_won_mean", "return_mean", "ep_length_mean"} <= set(found["logged"])
    assert len(set(found["lengths"])) > 1, "some battles should end while others go on"
    cut = [length for length, ended in zip(found["lengths"], found["terminated"], strict=True) if not ended]
    assert cut and set(cut) == {26}, "some battles should be cut at the limit, and stored as such"


def test_where_no_back_end_fits_the_episodes_are_the_parallel_runners(host):
    found = compare("pool", host)
    assert found["lengths"] == [5] * 12
    assert found["terminated"] == [0] * 12


# --- whole runs ---------------------------------------------------------------------------------------------------


@needs_jaxmarl
def test_a_teacher_learns_battles_and_reports_its_win_rate(mains, tmp_path, host):
    line = ["--config=kd_teacher", "--env-config=smax", "with", "env_args.map_name=3m", *TINY["kd_teacher"]]
    shaped = ["shaping=2.0", "gae_lambda=0.7", "obs_individual_obs=True"]
    run = mains.run(*line, *shaped, f"local_results_path={tmp_path}", env=host).check()
    summary = run.summary
    assert summary["task"] == "3m"
    facts = json.loads(next(tmp_path.glob("models/*/*/teacher.json")).read_text())
    assert (facts["shaping"], facts["gae_lambda"], facts["obs_individual_obs"]) == (2.0, 0.7, True)
    assert "submoduled" not in run.out + run.err and "DEBUG jax" not in run.err
    win_rates = [value["win_rate"] for value in summary.values() if isinstance(value, dict) and "win_rate" in value]
    assert win_rates and all(0.0 <= rate <= 1.0 for rate in win_rates)


@needs_jaxmarl
def test_a_student_is_distilled_on_mpe_stepped_in_one_call(mains, tmp_path, tiny_teacher, tiny_buffer):
    options = [f"teacher={tiny_teacher}", f"expert_buffer={tiny_buffer}", "limits=lh", "masks_preset=random"]
    run = mains.run(*words("kd_student", tmp_path, *options, "runner=vector")).check()
    assert run.summary["student"]["return_mean"] < 0.0


# --- the same scores on both back ends ----------------------------------------------------------------------------


def play_zoo_teacher(key: str, args: SimpleNamespace, envs, root: Path) -> np.ndarray:
    """Returns of 200 greedy episodes of the bundled teacher."""
    from kd_core.artifacts.teacher import load_teacher
    from kd_learners.frozen_teacher import FrozenTeacher

    class Silent:
        def log_stat(self, *stat):
            pass

    runner = RolloutRunner(args, Silent(), envs)
    info = runner.get_env_info()
    args.n_agents, args.state_shape = info["n_agents"], info["state_shape"]
    teacher = FrozenTeacher(load_teacher(root / "src" / "zoo" / key), args)
    runner.setup(*layout(info), teacher.mac)
    try:
        batches = [runner.run(test_mode=True) for _ in range(200 // envs.size)]
        return np.concatenate([batch["reward"].sum((1, 2)).numpy() for batch in batches])
    finally:
        runner.close_env()


@needs_jaxmarl
@pytest.mark.parametrize("key", TASKS)
def test_a_teacher_scores_the_same_on_jaxmarl_and_on_pettingzoo(key, root):
    env_args = {"key": key, "time_limit": 25, "max_cycles": 26, "pretrained_wrapper": None, "seed": 0}
    args = run_args(env="gymma", env_args=env_args, batch_size_run=BLOCK, test_greedy=True)
    args.map_name = key
    scores = [
        play_zoo_teacher(key, args, batched_mpe(BLOCK, **env_args), root),
        play_zoo_teacher(key, args, EnvGroup(env_factories(args)), root),
    ]
    ours, theirs = (score.mean() for score in scores)
    widths = [1.96 * score.std() / np.sqrt(len(score)) for score in scores]
    assert [len(score) for score in scores] == [200, 200]
    assert abs(ours - theirs) < sum(widths), f"{ours:.2f} ± {widths[0]:.2f} and {theirs:.2f} ± {widths[1]:.2f}"
    # The intervals say something: they are narrow beside what is scored.
    assert max(widths) < 0.15 * abs(theirs)


# --- masks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["paper", "random"])
def test_a_masked_batch_is_a_masked_environment_per_row(preset):
    mask = mask_for(plain_layout("counting", 2, 3), "lh", preset, "0: [0, 2], 1: [1]" if preset == "paper" else "")
    makers = [partial(CountingEnv, seed=20 + row, lengths=((4,),) * 20 + ((3, 2), (5, 4), (2, 6))) for row in range(3)]
    batch = MaskedBatch(EnvGroup(makers), mask, seed=20)
    alone = [MaskedEnv(make(), mask, seed=20 + row) for row, make in enumerate(makers)]
    assert batch.call("get_env_info") == [env.get_env_info() for env in alone]
    masks = set()
    for _ in range(2):
        views = batch.reset()
        for row, env in enumerate(alone):
            env.reset()
            np.testing.assert_array_equal(views.obs[row], env.get_obs())
            np.testing.assert_array_equal(views.state[row][:1], env.get_state()[:1])
            masks.add(env.visible.tobytes())
        rows = [0, 1, 2]
        while rows:
            outcome = batch.step(rows, np.zeros((len(rows), 2), int))
            for place, row in enumerate(rows):
                obs, reward, terminated, truncated, _ = alone[row].step([0, 0])
                np.testing.assert_array_equal(outcome.views.obs[place], obs)
                assert (reward, terminated, truncated) == (
                    outcome.reward[place, 0],
                    outcome.terminated[place],
                    outcome.truncated[place],
                )
            rows = [row for row, ended in zip(rows, outcome.terminated, strict=True) if not ended]
    # Six draws of half of the features, or one mask for all.
    assert (len(masks) > 1) == (preset == "random")
