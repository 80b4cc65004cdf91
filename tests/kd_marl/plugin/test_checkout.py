"""Stock algorithms on a checkout of EPyMARL run as without the plug-in; skipped where EPYMARL_HOME names none."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kd_core.artifacts.teacher import load_teacher
from kd_core.artifacts.teacher_weights import MOMENTS_FILE
from stage_fixtures import TASK, words

ROOT = Path(__file__).resolve().parents[3]
NATIVE = ROOT / "tests" / "helpers" / "native_epymarl.py"
ALGORITHMS = ("coma", "ia2c", "ippo", "iql", "maa2c", "maddpg", "mappo", "qmix", "vdn")
ON_POLICY = ("coma", "ia2c", "ippo", "maa2c", "mappo", "pac", "pac_dcg")
# What EPyMARL's pac_requirements.txt names, for these two.
PAC, NEEDS = ("pac_ns", "pac_dcg_ns"), ("einops", "torch_scatter")
STOCK = (*ALGORITHMS, *(f"{name}_ns" for name in ALGORITHMS), *PAC)
# Learnt from twice, on a buffer that has filled.
SIZES = ["hidden_dim=8", "t_max=70", "buffer_size=2", "batch_size=2", "test_nepisode=1", "test_interval=100000"]


def tiny(algorithm: str, *updates: str) -> list[str]:
    """The words of a tiny run on EPyMARL's own gymma, whose episodes PettingZoo ends."""
    block = 2 if algorithm.removesuffix("_ns") in ON_POLICY else 1
    own = [f"env_args.key={TASK}", "env_args.time_limit=25", "seed=3", f"batch_size_run={block}", "use_cuda=False"]
    return [f"--config={algorithm}", "--env-config=gymma", "with", *own, *SIZES, *updates]


def saved(results: Path) -> dict[str, Path]:
    """Each saved step's folder."""
    return {folder.name: folder for folder in results.glob("models/*/*") if folder.name.isdigit()}


def equal(one, other) -> bool:
    """Whether two contents of a file of weights are the same, bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return torch.equal(one, other) if torch.is_tensor(one) else one == other


def train_natively(checkout, folder: Path, algorithm: str, *updates: str) -> None:
    """Train with EPyMARL alone."""
    line = [sys.executable, str(NATIVE), checkout["EPYMARL_HOME"], str(folder), *tiny(algorithm, *updates)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_every_algorithm_of_the_checkout_is_compared(checkout):
    assert {path.stem for path in Path(checkout["EPYMARL_HOME"], "src/config/algs").glob("*.yaml")} == set(STOCK)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", STOCK)
def test_a_stock_algorithm_learns_what_it_learns_without_the_plugin_bit_for_bit(mains, checkout, tmp_path, algorithm):
    for package in NEEDS if algorithm in PAC else ():
        pytest.importorskip(package)
    saving = ["save_model=True", "save_model_interval=1"]
    train_natively(checkout, tmp_path / "native", algorithm, *saving, "local_results_path=results")
    options = [*saving, f"local_results_path={tmp_path}", "treat_truncation_as_terminal=True"]
    mains.run(*tiny(algorithm, *options), env=checkout).check()
    native, ours = saved(tmp_path / "native" / "results"), saved(tmp_path)
    assert native.keys() <= ours.keys()
    assert len(native) >= 2
    for step, folder in native.items():
        names = {file.name for file in folder.iterdir()}
        # Ours adds the statistics that EPyMARL loses.
        assert names == {file.name for file in ours[step].iterdir()} - {MOMENTS_FILE}
        for name in names:
            one, other = (torch.load(place / name, weights_only=True) for place in (folder, ours[step]))
            assert equal(one, other), f"{name} after {step} steps"


@pytest.mark.parametrize("algorithm", PAC)
def test_an_algorithm_that_does_not_start_without_the_plugin_says_in_one_line_what_it_needs(
    mains, checkout, tmp_path, algorithm
):
    missing = next((package for package in NEEDS if importlib.util.find_spec(package) is None), None)
    if missing is None:
        pytest.skip("all that it needs is installed")
    with pytest.raises(AssertionError, match=f"ModuleNotFoundError: No module named '{missing}'"):
        train_natively(checkout, tmp_path / "native", algorithm, "local_results_path=results")
    run = mains.run(*tiny(algorithm, f"local_results_path={tmp_path}"), env=checkout)
    assert run.error.endswith(f"needs the package '{missing}', which is not installed: pip install {missing}")


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["maddpg", "maddpg_ns"])
def test_maddpg_trains_under_limits_and_is_evaluated(mains, checkout, tmp_path, algorithm):
    updates = ["limits=lh", "final_evaluation=True", "eval_episodes=2", f"local_results_path={tmp_path}"]
    run = mains.run(*tiny(algorithm, *updates), env=checkout).check()
    policy = run.summary["policy"]
    assert policy["length_mean"] == 25.0
    assert policy["return_mean"] != policy["sampled"]["return_mean"]


def test_a_controller_that_plays_one_episode_at_a_time_refuses_other_runners(mains, checkout, tmp_path):
    run = mains.run(*tiny("maddpg", "runner=parallel", f"local_results_path={tmp_path}"), env=checkout)
    assert run.error == "mac 'maddpg_mac' plays one episode at a time: set runner=episode and batch_size_run=1"


# Prints what a runner stores of the last step of an episode.
LAST_STEP = """
import sys; sys.path.insert(0, "src")
from kd_core.host import get_host
host = get_host()
stored = host.EpisodeBatch.update
def update(self, data, *positional, **named):
    if "terminated" in data and named.get("ts") == 24:
        print("stored", [bool(row[0]) for row in data["terminated"]])
    return stored(self, data, *positional, **named)
host.EpisodeBatch.update = update
"""


@pytest.mark.parametrize(("terminal", "stored"), [(False, "[False]"), (True, "[True]")])
def test_pettingzoos_limit_is_stored_as_a_truncation_unless_asked_otherwise(
    mains, checkout, tmp_path, terminal, stored
):
    updates = ["t_max=1", f"treat_truncation_as_terminal={terminal}", f"local_results_path={tmp_path}"]
    run = mains.run(*tiny("iql", *updates), env=checkout, before=LAST_STEP).check()
    assert f"stored {stored}" in run.out


def test_a_run_on_a_checkout_is_quiet(mains, checkout, tmp_path):
    run = mains.run(*tiny("iql", "t_max=1", f"local_results_path={tmp_path}"), env=checkout).check()
    said = run.out + run.err
    assert "Warning" not in said
    assert "git" not in said.lower().replace(str(tmp_path), "").replace(checkout["EPYMARL_HOME"], "")


def test_two_seeds_of_one_run_are_one_group_to_epymarls_plots(mains, checkout, tmp_path):
    """Its plot_results.py groups runs whose config.json differs in nothing but the key seed."""
    for seed in (1, 2):
        mains.run(*tiny("iql", "t_max=1", f"seed={seed}", f"local_results_path={tmp_path}"), env=checkout).check()
    configs = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("sacred/iql/*/[0-9]*/config.json"))]
    assert [config.pop("seed") for config in configs] == [1, 2]
    assert configs[0] == configs[1]


@pytest.mark.slow
@pytest.mark.parametrize("recurrent", [True, False], ids=["recurrent", "feed-forward"])
@pytest.mark.parametrize(
    "algorithm", [f"{name}{own}" for name in ("mappo", "ippo", "maa2c", "ia2c", "qmix", "iql") for own in ("", "_ns")]
)
def test_what_epymarl_alone_has_trained_is_a_teacher_wherever_it_is_moved(checkout, tmp_path, algorithm, recurrent):
    saving = ["save_model=True", "save_model_interval=1", f"use_rnn={recurrent}", "local_results_path=results"]
    train_natively(checkout, tmp_path / "native", algorithm, *saving, "t_max=1")
    (folder,) = saved(tmp_path / "native" / "results").values()
    config = next((tmp_path / "native" / "results").glob("sacred/*/*/1/config.json"))
    found = load_teacher(folder, n_agents=2)
    moved = load_teacher(shutil.copytree(folder, tmp_path / "elsewhere" / "7"), config=config, n_agents=2)
    assert {**moved.facts, "steps": 0} == {**found.facts, "steps": 0}
    assert (found.task, found.facts["obs_size"], found.facts["n_actions"]) == (TASK, 11, 5)
    assert found.facts["use_rnn"] is recurrent
    assert found.facts["state_size"] == (22 if algorithm.startswith(("mappo", "maa2c", "qmix")) else None)


@pytest.mark.slow
@pytest.mark.parametrize("host", ["bundled", "checkout"])
def test_a_qmix_of_epymarl_alone_is_exported_and_distilled_by_credit(mains, checkout, tmp_path, host):
    native = tmp_path / "native"
    saving = ["save_model=True", "save_model_interval=1", "local_results_path=results"]
    train_natively(checkout, native, "qmix", *saving)
    (token,) = (native / "results").glob("models/*")
    given = [f"teacher={token}", f"teacher_config={next(native.glob('results/sacred/*/*/1/config.json'))}"]
    run = mains.run(
        *words("kd_student", tmp_path, "advantage=credit", *given), env=checkout if host == "checkout" else {}
    ).check()
    assert "no reward statistics: they will be estimated from the expert buffer" in run.out + run.err
    (facts,) = [json.loads(file.read_text()) for file in tmp_path.glob("buffers/*/*/buffer.json")]
    assert facts["teacher_entropy"] == 0.1 and facts["teacher_temperature"] > 0
    assert run.summary["teacher_artifact"]["temperature"] == facts["teacher_temperature"]


@pytest.mark.slow
@pytest.mark.parametrize("host", ["bundled", "checkout"])
@pytest.mark.parametrize("algorithm", ["mappo_ns", "ippo_ns", "maa2c"])
def test_a_teacher_of_epymarl_alone_with_standardised_returns_is_exported_and_distilled(
    mains, checkout, tmp_path, algorithm, host
):
    native = tmp_path / "native"
    saving = ["save_model=True", "save_model_interval=1", "standardise_returns=True", "local_results_path=results"]
    train_natively(checkout, native, algorithm, *saving)
    (token,) = (native / "results").glob("models/*")
    given = [f"teacher={token}", f"teacher_config={next(native.glob('results/sacred/*/*/1/config.json'))}"]
    run = mains.run(*words("kd_student", tmp_path, *given), env=checkout if host == "checkout" else {}).check()
    said = run.out + run.err
    assert "no reward and value statistics: they will be estimated from the expert buffer" in said
    assert re.search(r"estimated from 24 episodes: rewards mean .* returns mean", said)
    assert run.summary["teacher"]["return_mean"] < 0.0
