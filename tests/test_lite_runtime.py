"""The bundled runtime: what runners store and log, how workers end, what a run saves and loads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch as th

from epymarl_lite import run as run_module
from epymarl_lite.envs import REGISTRY as ENVS
from epymarl_lite.learners import REGISTRY as LEARNERS
from epymarl_lite.learners.common import step_mask
from epymarl_lite.runners import REGISTRY as RUNNERS
from epymarl_lite.runners import EpisodeRunner, ParallelRunner
from epymarl_lite.runners.env_group import env_factories
from epymarl_lite.runners.worker_pool import WorkerError, WorkerPool
from epymarl_lite.utils.logging import Logger, get_logger
from runtime_env import CountingEnv, UniformMac, layout, run_args


@pytest.fixture(autouse=True)
def counting_env(monkeypatch):
    monkeypatch.setitem(ENVS, "counting", CountingEnv)


def make_runner(kind: str, **changes):
    args = run_args(runner=kind, **changes)
    runner = RUNNERS[kind](args=args, logger=Logger(get_logger()))
    runner.setup(*layout(runner.get_env_info(), args.common_reward), UniformMac())
    return runner


# --- the layout of an episode ---------------------------------------------------------------------------------


def check_episode(batch, row: int, first: float, length: int, last_terminated: int) -> None:
    """Hold one row to the contract: filled and actions at 0..l, reward and terminated at 0..l-1."""
    steps = batch.max_seq_length
    written = (np.arange(steps) <= length).astype(int)
    assert batch["filled"][row, :, 0].tolist() == written.tolist()
    numbers = np.where(written, first + np.arange(steps), 0)
    assert batch["obs"][row, :, 0, 0].tolist() == numbers.tolist()
    assert batch["obs"][row, :, 1, 0].tolist() == (numbers + 0.25 * written).tolist()
    assert batch["state"][row, :, 0].tolist() == numbers.tolist()
    assert batch["avail_actions"][row, :, 0].tolist() == [[w, w, 0] for w in written]
    assert batch["actions_onehot"][row].sum((1, 2)).tolist() == (2 * written).tolist()
    played = np.arange(1, steps + 1) * (np.arange(steps) < length)
    assert batch["reward"][row, :, 0].tolist() == played.tolist()
    terminated = np.zeros(steps, int)
    terminated[length - 1] = last_terminated
    assert batch["terminated"][row, :, 0].tolist() == terminated.tolist()


def test_episode_runner_stores_the_contracts_layout():
    runner = make_runner("episode", batch_size_run=1, env_args={"seed": 7, "lengths": ((4, 2),)})
    check_episode(runner.run(), 0, 7000, 4, 1)
    check_episode(runner.run(), 0, 7100, 2, 1)
    assert (runner.t, runner.t_env) == (2, 6)
    runner.run(test_mode=True)
    assert runner.t_env == 6


@pytest.mark.parametrize("processes", [1, 2, 3, 0])
def test_parallel_runner_stores_ragged_episodes_in_order(processes):
    lengths = ((3,), (6, 1), (2, 5))
    runner = make_runner(
        "parallel", batch_size_run=3, env_args={"seed": 0, "lengths": lengths}, runner_processes=processes
    )
    try:
        batch = runner.run()
        for row, length in enumerate((3, 6, 2)):
            check_episode(batch, row, 1000 * row, length, 1)
        # Everyone acts at the step after the last too, and nobody after that.
        asked = dict(runner.mac.asked)
        assert asked[2] == slice(None) and asked[3] == [0, 1] and asked[4] == [1] and asked[6] == [1]
        assert runner.t_env == 11
        batch = runner.run()
        for row, length in enumerate((3, 1, 5)):
            check_episode(batch, row, 1000 * row + 100, length, 1)
    finally:
        runner.close_env()


@pytest.mark.parametrize("kind", ["episode", "parallel"])
@pytest.mark.parametrize(
    ("ending", "as_terminal", "stored"),
    [("terminated", False, 1), ("truncated", False, 0), ("truncated", True, 1), ("flag", False, 0), ("flag", True, 0)],
)
def test_time_limits_are_terminations_only_on_demand(kind, ending, as_terminal, stored):
    runner = make_runner(
        kind, batch_size_run=1, env_args={"seed": 0, "ending": ending}, treat_truncation_as_terminal=as_terminal
    )
    try:
        check_episode(runner.run(), 0, 0, 3, stored)
    finally:
        runner.close_env()


def test_truncation_inside_a_batch_adds_no_step_to_what_is_learnt_from():
    runner = make_runner("parallel", env_args={"seed": 0, "lengths": ((3,), (6,)), "ending": "truncated"})
    try:
        batch = runner.run()
    finally:
        runner.close_env()
    mask = step_mask(batch)[:, :, 0]
    assert mask.sum(1).tolist() == [3, 6]


def test_individual_rewards_are_stored_per_agent():
    runner = make_runner("episode", batch_size_run=1, common_reward=False)
    batch = runner.run()
    assert batch["reward"][0, :4].tolist() == [[1, -1], [2, -1], [3, -1], [0, 0]]
    assert {k for k in runner.logger.stats if "return" in k} == {
        f"{who}_return_{what}" for who in ("agent_0", "agent_1", "total") for what in ("mean", "std")
    }
    assert runner.logger.stats["total_return_mean"] == [(3, 3.0)]


# --- what is logged -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["episode", "parallel"])
def test_logged_keys_and_values(kind):
    size = 1 if kind == "episode" else 2
    runner = make_runner(
        kind, batch_size_run=size, test_nepisode=2, env_args={"seed": 0, "lengths": ((3, 3, 2), (2, 2, 2))}
    )
    try:
        runner.run()
        names = ["return_mean", "return_std", "ep_length_mean", "won_mean", "score_mean"]
        assert sorted(runner.logger.stats) == sorted(names)
        while not any(key.startswith("test_") for key in runner.logger.stats):
            runner.run(test_mode=True)
    finally:
        runner.close_env()
    stats = {key: entries[-1][1] for key, entries in runner.logger.stats.items()}
    assert sorted(stats) == sorted(names + [f"test_{name}" for name in names])
    # Test episodes of the one environment: 3 and 2 steps; of the two: 3 and 2.
    assert stats["test_return_mean"] == pytest.approx((6 + 3) / 2)
    assert stats["test_return_std"] == pytest.approx(1.5)
    assert stats["test_ep_length_mean"] == pytest.approx(2.5)
    assert (stats["test_won_mean"], stats["test_score_mean"]) == (1.0, 2.0)
    assert all(type(value) is float for value in stats.values())


def test_epsilon_is_logged_in_training_where_the_selector_has_one():
    runner = make_runner("episode", batch_size_run=1)
    runner.mac.action_selector.epsilon = 0.5
    runner.run()
    assert runner.logger.stats["epsilon"] == [(3, 0.5)]


def test_training_statistics_wait_for_their_interval():
    runner = make_runner("episode", batch_size_run=1, runner_log_interval=7)
    for _ in range(5):
        runner.run()
    assert [t for t, _ in runner.logger.stats["return_mean"]] == [3, 12]


# --- seeds ----------------------------------------------------------------------------------------------------


def play(kind: str, seed: int, size: int, processes: int = 0) -> th.Tensor:
    """States of two runs with MPE's random starts, and no-op actions."""
    env_args = {"key": "pz-mpe-simple-spread-v3", "time_limit": 3, "seed": seed}
    args = run_args(env="gymma", env_args=env_args, runner=kind, batch_size_run=size, runner_processes=processes)
    runner = RUNNERS[kind](args=args, logger=Logger(get_logger()))
    mac = UniformMac()
    mac.select_actions = lambda batch, t_ep, t_env, bs=slice(None), test_mode=False: th.zeros_like(
        batch["actions"][bs, t_ep, :, 0]
    )
    runner.setup(*layout(runner.get_env_info()), mac)
    try:
        return th.stack([runner.run()["state"], runner.run()["state"]])
    finally:
        runner.close_env()


def test_the_same_seed_gives_the_same_episodes_however_many_processes():
    one = play("parallel", 5, 3, processes=1)
    assert th.equal(one, play("parallel", 5, 3, processes=3))
    assert not th.equal(one[0], one[1])  # a new episode at each reset
    assert not th.equal(one[:, 0], one[:, 1])  # another one in each environment
    assert th.equal(one[:, 1:2], play("episode", 6, 1))  # environment i is seeded with seed + i
    assert not th.equal(one, play("parallel", 6, 3))


# --- workers that die, parents that die -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "init",
            "worker of environment 1 failed: ImportError: this environment needs a package",
        ),
        ("step", "worker of environment 1 failed: ZeroDivisionError: the physics broke"),
        ("die", "worker of environment 1 ended by signal 9"),
    ],
)
def test_a_failing_worker_ends_the_run_with_its_error(fault, message):
    env_args = {"seed": 0, "fault": fault, "fault_seed": 1}
    args = run_args(env_args=env_args, batch_size_run=3, runner_processes=3)
    processes = []

    def collect():
        pool = WorkerPool(env_factories(args), 3)
        processes.extend(pool.processes)
        try:
            pool.reset()
            pool.step([0, 1, 2], np.ones((3, 2), int))
        finally:
            pool.close()

    with pytest.raises(WorkerError, match=message) as caught:
        collect()
    assert "\n" not in str(caught.value)
    assert not any(process.is_alive() for process in processes)


def test_a_worker_killed_between_steps_is_noticed():
    pool = WorkerPool(env_factories(run_args(batch_size_run=2)), 2)
    try:
        pool.reset()
        os.kill(pool.processes[0].pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="worker of environment 0 ended by signal 9"):
            pool.reset()
    finally:
        pool.close()
        pool.close()  # a second time does nothing


PARENT = """
import sys, time
sys.path[:0] = {paths!r}
from runtime_env import CountingEnv, run_args
from epymarl_lite.envs import REGISTRY
from epymarl_lite.runners.env_group import env_factories
from epymarl_lite.runners.worker_pool import WorkerPool
if __name__ == "__main__":
    args = run_args(env="gymma", env_args=dict(key="pz-mpe-simple-spread-v3", time_limit=25), batch_size_run=3)
    pool, other = WorkerPool(env_factories(args), 3), WorkerPool(env_factories(args), 2)
    print(*[process.pid for process in pool.processes + other.processes], flush=True)
    {then}
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
@pytest.mark.parametrize("end", ["kill", "interrupt", "error"])
def test_workers_never_outlive_their_parent(end, source_root, tmp_path):
    then = "raise SystemExit('an error')" if end == "error" else "time.sleep(60)"
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(paths=[str(source_root), str(Path(__file__).parent)], then=then))
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 5
    if end != "error":
        assert all(alive(pid) for pid in pids)
        parent.send_signal(signal.SIGKILL if end == "kill" else signal.SIGINT)
    parent.communicate(timeout=20)
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in pids if alive(pid)]


def test_wrong_numbers_of_environments_or_processes_are_refused():
    with pytest.raises(ValueError, match=r"plays one environment: set batch_size_run=1, not 2"):
        EpisodeRunner(run_args(batch_size_run=2), Logger(get_logger()))
    with pytest.raises(ValueError, match=r"runner_processes is 0 \(one per core\) or a number of processes, not -1"):
        ParallelRunner(run_args(runner_processes=-1), Logger(get_logger()))
    with pytest.raises(ValueError, match="unknown environment env='gyma': did you mean 'gymma'"):
        env_factories(run_args(env="gyma"))


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
    for key, valid in (("runner", "episode, parallel"), ("mac", "basic_mac"), ("learner", "ppo_learner")):
        with pytest.raises(ValueError, match=f"unknown {key} 'wrong': valid are .*{valid}"):
            run_module.run_sequential(run_args(**{key: "wrong"}), Logger(get_logger()))


@pytest.mark.parametrize("algorithm", ["mappo", "ippo", "iql", "vdn", "qmix"])
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
        ("torch.utils.tensorboard", lambda log: log.setup_tb("x"), "pip install tensorboard"),
        ("wandb", lambda log: log.setup_wandb({}, "team", "project", "offline"), "pip install wandb"),
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
