"""One run from a complete configuration: build everything, then train or evaluate."""

from __future__ import annotations

import datetime
import logging
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch as th

from epymarl_lite.components.episode_buffer import Preprocess, ReplayBuffer
from epymarl_lite.components.transforms import OneHot
from epymarl_lite.controllers import REGISTRY as MACS
from epymarl_lite.learners import REGISTRY as LEARNERS
from epymarl_lite.runners import REGISTRY as RUNNERS
from epymarl_lite.utils.errors import ConfigError, MissingFolderError, registered
from epymarl_lite.utils.general_reward_support import test_alg_config_supports_reward
from epymarl_lite.utils.logging import Logger
from epymarl_lite.utils.timehelper import time_left, time_str

_TB_LOGS = Path(__file__).resolve().parents[2] / "results" / "tb_logs"

# Steps from which on t_max is no end, but means that the learner has one of its own.
_UNBOUNDED = 1_000_000_000


def run(_run: Any, _config: dict[str, Any], _log: logging.Logger) -> None:
    """Check the configuration, set up logging, and train or evaluate.

    Raises:
        ConfigError: the configuration cannot be run.
    """
    config = args_sanity_check(_config, _log)
    args = SimpleNamespace(**config)
    args.device = "cuda" if args.use_cuda else "cpu"
    if not test_alg_config_supports_reward(args):
        raise ConfigError(
            f"learner '{args.learner}' (mixer {getattr(args, 'mixer', None)}) learns from a common reward only: "
            "set common_reward=True, or use mappo, ippo or iql"
        )
    map_name = args.env_args.get("map_name") or args.env_args.get("key")
    args.unique_token = f"{args.name}_seed{args.seed}_{map_name}_{datetime.datetime.now()}"

    logger = Logger(_log)
    if args.use_tensorboard:
        logger.setup_tb(str(_TB_LOGS / args.unique_token))
    if args.use_wandb:
        logger.setup_wandb(config, args.wandb_team, args.wandb_project, args.wandb_mode, args.hypergroup)
    logger.setup_sacred(_run)
    try:
        run_sequential(args=args, logger=logger)
    finally:
        logger.finish()


def run_sequential(args: SimpleNamespace, logger: Logger) -> None:
    """Collect, learn, test and save until ``t_max``; or evaluate a checkpoint.

    The final weights are saved at the end, and when the run is interrupted, if ``save_model`` is on.

    Raises:
        ConfigError: a key has an impossible value.
        MissingFolderError: there is no checkpoint to load.
    """
    if (args.evaluate or args.save_replay) and not args.checkpoint_path:
        raise ConfigError("evaluate=True and save_replay=True need checkpoint_path=<the folder with the saved steps>")
    checkpoint = find_checkpoint(args.checkpoint_path, args.load_step) if args.checkpoint_path else None
    runner = registered(RUNNERS, "runner", args.runner)(args=args, logger=logger)
    try:
        buffer, learner = _build(args, logger, runner)
        if checkpoint is not None:
            logger.console_logger.info(f"Loading model from {checkpoint}")
            learner.load_models(str(checkpoint))
            runner.t_env = int(checkpoint.name)
        if args.evaluate or args.save_replay:
            runner.log_train_stats_t = runner.t_env
            evaluate_sequential(args, runner)
            logger.log_stat("episode", runner.t_env, runner.t_env)
            logger.print_recent_stats()
        else:
            _train(args, logger, runner, buffer, learner)
    finally:
        runner.close_env()


def evaluate_sequential(args: SimpleNamespace, runner: Any) -> None:
    """Play ``test_nepisode`` test episodes, rounded down to whole runs, and save their replays if asked for."""
    for _ in range(_test_runs(args, runner)):
        runner.run(test_mode=True)
    if args.save_replay:
        runner.save_replay()


def args_sanity_check(config: dict[str, Any], _log: logging.Logger) -> dict[str, Any]:
    """Change a configuration, in place, to one that this machine can run, and return it.

    Raises:
        ConfigError: ``batch_size_run`` is below 1.
    """
    if config["use_cuda"] and not th.cuda.is_available():
        config["use_cuda"] = False
        _log.warning("CUDA flag use_cuda was switched OFF automatically because no CUDA devices are available!")
    if config["batch_size_run"] < 1:
        raise ConfigError(f"batch_size_run is {config['batch_size_run']}: expected at least 1 environment")
    runs = max(1, config["test_nepisode"] // config["batch_size_run"])
    config["test_nepisode"] = runs * config["batch_size_run"]
    return config


def find_checkpoint(folder: str, load_step: int) -> Path:
    """Find the saved step nearest to ``load_step`` in a checkpoint folder; 0 means the last one.

    Raises:
        MissingFolderError: there is no such folder, or no step in it.
    """
    if not Path(folder).is_dir():
        raise MissingFolderError(f"checkpoint_path '{folder}' is not a folder")
    steps = {int(entry.name): entry for entry in Path(folder).iterdir() if entry.is_dir() and entry.name.isdigit()}
    if not steps:
        raise MissingFolderError(f"checkpoint_path '{folder}' has no saved step: expected sub-folders such as 50000")
    return steps[max(steps) if load_step == 0 else min(steps, key=lambda step: abs(step - load_step))]


def _build(args: SimpleNamespace, logger: Logger, runner: Any) -> tuple[ReplayBuffer, Any]:
    """Build buffer, controller and learner in the sizes of the runner's environments."""
    env_info = runner.get_env_info()
    args.n_agents = env_info["n_agents"]
    args.n_actions = env_info["n_actions"]
    args.state_shape = env_info["state_shape"]
    scheme = {
        "state": {"vshape": env_info["state_shape"]},
        "obs": {"vshape": env_info["obs_shape"], "group": "agents"},
        "actions": {"vshape": (1,), "group": "agents", "dtype": th.long},
        "avail_actions": {"vshape": (env_info["n_actions"],), "group": "agents", "dtype": th.int},
        "reward": {"vshape": (1,) if args.common_reward else (args.n_agents,)},
        "terminated": {"vshape": (1,), "dtype": th.uint8},
    }
    groups = {"agents": args.n_agents}
    preprocess: Preprocess = {"actions": ("actions_onehot", [OneHot(out_dim=args.n_actions)])}
    buffer = ReplayBuffer(
        scheme,
        groups,
        args.buffer_size,
        env_info["episode_limit"] + 1,
        preprocess=preprocess,
        device="cpu" if args.buffer_cpu_only else args.device,
    )
    mac = registered(MACS, "mac", args.mac)(buffer.scheme, groups, args)
    runner.setup(scheme=scheme, groups=groups, preprocess=preprocess, mac=mac)
    learner = registered(LEARNERS, "learner", args.learner)(mac, buffer.scheme, logger, args)
    if args.use_cuda:
        learner.cuda()
    return buffer, learner


def _train(args: SimpleNamespace, logger: Logger, runner: Any, buffer: ReplayBuffer, learner: Any) -> None:
    """Train, test, save and log in a loop until ``t_max``."""
    log = logger.console_logger
    episode = 0
    last_test_t = -args.test_interval - 1
    last_log_t = saved_t = 0
    start_t, start_time = runner.t_env, time.time()

    def save_last() -> None:
        if args.save_model and saved_t not in (0, runner.t_env):  # 0: interrupted before anything was learnt
            _save(args, logger, learner, runner.t_env)

    bounded = args.t_max < _UNBOUNDED
    log.info(
        f"Beginning training for {args.t_max} timesteps" if bounded else "Beginning; the learner says when it is done"
    )
    try:
        while runner.t_env <= args.t_max:
            buffer.insert_episode_batch(runner.run(test_mode=False))
            if buffer.can_sample(args.batch_size):
                sample = buffer.sample(args.batch_size)
                sample = sample[:, : sample.max_t_filled()]
                if sample.device != args.device:
                    sample.to(args.device)
                learner.train(sample, runner.t_env, episode)

            if runner.t_env - last_test_t >= args.test_interval:
                if bounded:
                    left = time_left(start_time, start_t, runner.t_env, args.t_max)
                    log.info(f"t_env: {runner.t_env} / {args.t_max}, time left: {left}")
                log.info(f"Time passed: {time_str(time.time() - start_time)}")
                last_test_t = runner.t_env
                for _ in range(_test_runs(args, runner)):
                    runner.run(test_mode=True)

            if args.save_model and (runner.t_env - saved_t >= args.save_model_interval or saved_t == 0):
                saved_t = runner.t_env
                _save(args, logger, learner, runner.t_env)

            episode += args.batch_size_run
            if runner.t_env - last_log_t >= args.log_interval:
                logger.log_stat("episode", episode, runner.t_env)
                logger.print_recent_stats()
                last_log_t = runner.t_env
    except KeyboardInterrupt:
        save_last()
        raise
    save_last()


def _save(args: SimpleNamespace, logger: Logger, learner: Any, t_env: int) -> None:
    path = os.path.join(args.local_results_path, "models", args.unique_token, str(t_env))
    os.makedirs(path, exist_ok=True)
    logger.console_logger.info(f"Saving models to {path}")
    learner.save_models(path)
    if args.use_wandb and args.wandb_save_model:
        logger.upload_models(path)


def _test_runs(args: SimpleNamespace, runner: Any) -> int:
    return max(1, args.test_nepisode // runner.batch_size)
