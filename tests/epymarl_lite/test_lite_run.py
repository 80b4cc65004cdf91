"""The bundled runtime: what a run saves and loads, the logger and the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch as th

from epymarl_lite import run as run_module
from epymarl_lite.learners import REGISTRY as LEARNERS
from epymarl_lite.utils.logging import Logger, get_logger
from runtime_env import run_args

pytestmark = pytest.mark.usefixtures("counting_env")


# --- a whole run ----------------------------------------------------------------------------------------------


class RecordingLearner:
    """Keeps its calls; saves and loads one number."""

    calls: list = []  # noqa: RUF012 - the test's own record

    def __init__(self, mac, scheme, logger, args):
        self.number = 0

    def train(self, batch, t_env, episode_num):
        self.number += 1
        self.calls.append(("train", batch.max_seq_length, t_env, episode_num))
        if t_env >= getattr(self, "interrupt_at", 10**9):
            raise KeyboardInterrupt

    def save_models(self, path):
        Path(path, "number").write_text(str(self.number))

    def load_models(self, path):
        self.calls.append(("load", Path(path).name, int(Path(path, "number").read_text())))


@pytest.fixture
def recording(monkeypatch, tmp_path):
    monkeypatch.setitem(LEARNERS, "recording", type("Recording", (RecordingLearner,), {"calls": []}))
    monkeypatch.chdir(tmp_path)
    return LEARNERS["recording"]


def saved_steps(folder: str = "results/models/token") -> list[int]:
    return sorted(int(path.name) for path in Path(folder).iterdir())


def test_run_trains_tests_and_saves_the_final_weights(recording):
    logger = Logger(get_logger())
    args = run_args(learner="recording", save_model=True, save_model_interval=12)
    run_module.run_sequential(args, logger)
    # Two episodes of 3 steps a run, while t_env <= 20: runs end at 6, 12, 18, 24.
    assert recording.calls == [("train", 4, 6, 0), ("train", 4, 12, 2), ("train", 4, 18, 4), ("train", 4, 24, 6)]
    assert [t for t, _ in logger.stats["test_return_mean"]] == [6, 18]
    assert [t for t, _ in logger.stats["episode"]] == [6, 12, 18, 24]
    assert saved_steps() == [6, 18, 24]
    assert Path("results/models/token/24/number").read_text() == "4"
    assert (args.n_agents, args.n_actions, args.state_shape) == (2, 3, 2)


def test_an_interrupted_run_saves_its_weights_too(recording):
    recording.interrupt_at = 12
    with pytest.raises(KeyboardInterrupt):
        run_module.run_sequential(run_args(learner="recording", save_model=True), Logger(get_logger()))
    assert saved_steps() == [6, 12]


@pytest.mark.parametrize(("load_step", "loaded"), [(0, 300), (120, 100), (260, 300)])
def test_a_checkpoint_is_loaded_and_training_goes_on(recording, load_step, loaded):
    for step in (100, 300):
        Path(f"saved/{step}").mkdir(parents=True)
        Path(f"saved/{step}/number").write_text(str(step))
    Path("saved/notes").mkdir()
    run_module.run_sequential(
        run_args(learner="recording", checkpoint_path="saved", load_step=load_step, t_max=loaded), Logger(get_logger())
    )
    assert recording.calls == [("load", str(loaded), loaded), ("train", 4, loaded + 6, 0)]


def test_evaluation_plays_exactly_the_episodes_asked_for(recording):
    Path("saved/50").mkdir(parents=True)
    Path("saved/50/number").write_text("1")
    logger = Logger(get_logger())
    args = run_args(learner="recording", checkpoint_path="saved", evaluate=True, test_nepisode=6)
    args.env_args = {"seed": 0, "lengths": ((1, 2, 3), (4, 5, 6))}
    run_module.run_sequential(args, logger)
    assert recording.calls == [("load", "50", 1)]
    assert logger.stats["test_ep_length_mean"] == [(50, pytest.approx(21 / 6))]


def test_missing_checkpoints_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"checkpoint_path 'nowhere' is not a folder"):
        run_module.run_sequential(run_args(checkpoint_path="nowhere"), Logger(get_logger()))
    with pytest.raises(FileNotFoundError, match=r"has no saved step: expected sub-folders such as 50000"):
        run_module.run_sequential(run_args(checkpoint_path=str(tmp_path)), Logger(get_logger()))
    with pytest.raises(ValueError, match=r"need checkpoint_path="):
        run_module.run_sequential(run_args(evaluate=True), Logger(get_logger()))


def test_unknown_names_list_the_valid_ones(tmp_path, monkeypatch):
    valid_names = {
        "runner": "episode, parallel",
        "mac": "basic_mac",
        "learner": "ppo_learner",
        "agent": "rnn, rnn_ns",
        "critic_type": "cv_critic, cv_critic_ns",
    }
    for key, valid in valid_names.items():
        with pytest.raises(ValueError, match=f"unknown {key} 'wrong': valid are .*{valid}"):
            run_module.run_sequential(run_args("mappo", **{key: "wrong"}), Logger(get_logger()))


FIVE = ("mappo", "ippo", "iql", "vdn", "qmix")


@pytest.mark.parametrize("algorithm", [*FIVE, *(f"{name}_ns" for name in FIVE)])
def test_every_algorithm_trains_saves_and_resumes(algorithm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_module.run_sequential(run_args(algorithm, runner="parallel", save_model=True), Logger(get_logger()))
    assert saved_steps() == [6, 24]
    logger = Logger(get_logger())
    run_module.run_sequential(
        run_args(algorithm, runner="parallel", checkpoint_path="results/models/token", t_max=24), logger
    )
    assert [t for t, _ in logger.stats["return_mean"]] == [30]


def test_the_same_seed_gives_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for token in ("a", "b"):
        th.manual_seed(3)
        np.random.seed(3)
        run_module.run_sequential(run_args(save_model=True, unique_token=token), Logger(get_logger()))
    first, second = (th.load(f"results/models/{token}/24/agent.th", weights_only=True) for token in "ab")
    assert all(th.equal(first[key], second[key]) for key in first)


# --- run, the logger and the command line ---------------------------------------------------------------------


def test_run_checks_then_calls_run_sequential_through_its_module(monkeypatch):
    seen = []
    monkeypatch.setattr(run_module, "run_sequential", lambda args, logger: seen.append(args))
    config = vars(run_args(test_nepisode=5, batch_size_run=2))
    run_module.run(SimpleNamespace(info={}), config, get_logger())
    assert seen[0].test_nepisode == 4
    assert seen[0].unique_token.startswith("mappo_seed0_None_20")
    with pytest.raises(ValueError, match=r"learner 'q_learner' \(mixer qmix\) learns from a common reward only"):
        run_module.run(SimpleNamespace(info={}), vars(run_args("qmix", common_reward=False)), get_logger())


def test_sanity_check_switches_cuda_off_and_rounds_test_episodes(monkeypatch, caplog):
    monkeypatch.setattr(th.cuda, "is_available", lambda: False)
    for asked, size, kept in ((20, 8, 16), (3, 8, 8), (8, 8, 8)):
        config = {"use_cuda": True, "test_nepisode": asked, "batch_size_run": size}
        assert run_module.args_sanity_check(config, get_logger()) == {
            "use_cuda": False,
            "test_nepisode": kept,
            "batch_size_run": size,
        }


def test_logger_passes_plain_numbers_to_sacred():
    metrics = []
    sacred_run = SimpleNamespace(info={}, log_scalar=lambda key, value, t: metrics.append((key, value, t)))
    logger = Logger(get_logger())
    logger.setup_sacred(sacred_run)
    logger.log_stat("loss", np.float64(0.5), 10)
    logger.log_stat("loss", th.tensor(1.5), 20)
    logger.log_stat("quiet", 1.0, 20, to_sacred=False)
    assert json.dumps(sacred_run.info) == '{"loss": [0.5, 1.5], "loss_T": [10, 20]}'
    assert metrics == [("loss", 0.5, 10), ("loss", 1.5, 20)]
    assert logger.stats["quiet"] == [(20, 1.0)]


def test_recent_stats_are_means_of_the_last_five(caplog):
    lines = []
    logger = Logger(SimpleNamespace(info=lines.append))
    with pytest.raises(ValueError, match="needs a logged 'episode'"):
        logger.print_recent_stats()
    for t in range(10):
        logger.log_stat("loss", t, t)
    logger.log_stat("episode", 3, 9)
    logger.print_recent_stats()
    assert "t_env:          9 | Episode:        3" in lines[0]
    assert "loss:                      7.0000" in lines[0]


@pytest.mark.parametrize(
    ("module", "call", "message"),
    [
        ("torch.utils.tensorboard", lambda log: log.setup_tb("x"), r"pip install -e .*\[track\]"),
        ("wandb", lambda log: log.setup_wandb({}, "team", "project", "offline"), r"pip install -e .*\[track\]"),
    ],
)
def test_missing_trackers_say_what_to_install(module, call, message, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=message):
        call(Logger(get_logger()))


def test_the_command_line_runs_an_experiment(source_root, tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(source_root)!r})\n"
        "import epymarl_lite.main as m\n"
        f"m.results_path = {str(tmp_path / 'results')!r}\n"
        "m.main(sys.argv)\n"
    )
    settings = ["env_args.key=pz-mpe-simple-speaker-listener-v4", "env_args.time_limit=3", "t_max=20", "seed=1"]
    settings += ["batch_size_run=2", "batch_size=2", "buffer_size=2", "test_nepisode=2", "log_interval=5"]
    settings += ["save_model=True", "name=renamed"]
    command = [sys.executable, "-c", code, "--config=ippo", "--env-config=gymma", "with", *settings]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results/sacred/ippo/pz-mpe-simple-speaker-listener-v4/1"
    assert json.loads((folder / "config.json").read_text())["name"] == "renamed"
    info = json.loads((folder / "info.json").read_text())
    assert info["test_return_mean_T"] == [6] and all(type(value) is float for value in info["test_return_mean"])
    (models,) = (tmp_path / "results/models").iterdir()
    assert models.name.startswith("renamed_seed1_pz-mpe-simple-speaker-listener-v4_")
    assert saved_steps(str(models)) == [6, 24]
