"""The loop of every runner: play one episode in each environment and log the results."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch as th

from epymarl_lite.components.episode_buffer import EpisodeBatch
from epymarl_lite.envs.env_group import Outcome, VectorEnv, Views
from epymarl_lite.runners.stats import ReturnStats
from epymarl_lite.utils.logging import Logger


class RolloutRunner:
    """Runner that plays whole episodes with a controller.

    Attributes:
        batch_size: number of environments, and so of episodes per run.
        episode_limit: the longest episode in steps.
        t: steps of the current run.
        t_env: environment steps of all training runs.
        batch: the episodes of the current or latest run.
        log_train_stats_t: ``t_env`` when training statistics were last logged.
    """

    batch_class: type[EpisodeBatch] = EpisodeBatch

    def __init__(self, args: SimpleNamespace, logger: Logger, envs: VectorEnv) -> None:
        self.args = args
        self.logger = logger
        self.envs = envs
        self.batch_size = envs.size
        self.env_info: dict[str, Any] = envs.call("get_env_info")[0]
        self.episode_limit: int = self.env_info["episode_limit"]
        self.t = 0
        self.t_env = 0
        self.log_train_stats_t = -1_000_000
        self.mac: Any = None
        self.batch: EpisodeBatch
        self._new_batch: partial[EpisodeBatch]
        self._stats = {False: ReturnStats(args.common_reward), True: ReturnStats(args.common_reward)}

    def get_env_info(self) -> dict[str, Any]:
        """Return sizes and limits, as the environments report them."""
        return self.env_info

    def setup(self, scheme: dict[str, Any], groups: dict[str, int], preprocess: dict[str, Any], mac: Any) -> None:
        """Set the layout of the batches and the controller that plays."""
        self._new_batch = partial(
            self.batch_class,
            scheme,
            groups,
            self.batch_size,
            self.episode_limit + 1,
            preprocess=preprocess,
            device=self.args.device,
        )
        self.mac = mac

    @th.no_grad()
    def run(self, test_mode: bool = False) -> EpisodeBatch:
        """Play one episode in each environment.

        For an episode of l steps the batch has state, obs, avail_actions, actions and ``filled`` at 0..l, and reward
        and terminated at 0..l-1. A time limit is stored as ``terminated`` 0 unless ``treat_truncation_as_terminal``.
        """
        self.batch = batch = self._new_batch()
        self.mac.init_hidden(batch_size=self.batch_size)
        returns = np.zeros((self.batch_size, 1 if self.args.common_reward else self.env_info["n_agents"]))
        lengths = np.zeros(self.batch_size, int)
        infos: list[dict[str, Any]] = [{}] * self.batch_size

        self.t = 0
        self._store_views(self.envs.reset(), list(range(self.batch_size)))
        observed = alive = list(range(self.batch_size))  # rows with an observation at t; of these, rows still playing
        while True:
            # Rows that ended with the last step get an action too: learners may read the action in the final state.
            bs = self._index(observed)
            actions = self.mac.select_actions(batch, t_ep=self.t, t_env=self.t_env, bs=bs, test_mode=test_mode)
            batch.update({"actions": actions.unsqueeze(-1)}, bs=bs, ts=self.t, mark_filled=False)
            if not alive:
                break
            chosen = actions.cpu().numpy()
            if len(alive) < len(observed):
                chosen = chosen[np.isin(observed, alive)]
            outcome = self.envs.step(alive, chosen)
            if test_mode and self.args.render:
                self.envs.call("render")
            self._store_outcome(outcome, alive)
            returns[alive] += outcome.reward
            lengths[alive] += 1
            self.t += 1
            self._store_views(outcome.views, alive)
            ended = outcome.terminated | outcome.truncated
            for row, info, end in zip(alive, outcome.infos, ended, strict=True):
                if end:
                    infos[row] = info
            observed, alive = alive, [row for row, end in zip(alive, ended, strict=True) if not end]

        if not test_mode:
            self.t_env += int(lengths.sum())
        self._log(test_mode, returns, lengths, infos)
        return batch

    def save_replay(self) -> None:
        """Save a replay in every environment."""
        self.envs.call("save_replay")

    def close_env(self) -> None:
        """Close the environments and end their processes."""
        self.envs.close()

    def _index(self, rows: list[int]) -> slice | list[int]:
        return slice(None) if len(rows) == self.batch_size else rows  # a slice writes without gathering

    def _store_views(self, views: Views, rows: list[int]) -> None:
        values = {key: th.from_numpy(value) for key, value in views._asdict().items()}
        self.batch.update(values, bs=self._index(rows), ts=self.t)

    def _store_outcome(self, outcome: Outcome, rows: list[int]) -> None:
        terminal = outcome.terminated | (outcome.truncated & self.args.treat_truncation_as_terminal)
        # SMAC's flag for an episode that the step limit ended.
        terminal &= np.array([not info.get("episode_limit", False) for info in outcome.infos])
        # In the types of the batch, because EPyMARL's own batch does not convert them.
        reward = th.from_numpy(outcome.reward).float().unsqueeze(1)
        values = {"reward": reward, "terminated": th.from_numpy(terminal).to(th.uint8).view(-1, 1, 1)}
        self.batch.update(values, bs=self._index(rows), ts=self.t, mark_filled=False)

    def _log(self, test_mode: bool, returns: np.ndarray, lengths: np.ndarray, infos: list[dict[str, Any]]) -> None:
        stats = self._stats[test_mode]
        stats.add(returns, lengths, infos)
        if test_mode:
            if stats.episodes >= max(1, self.args.test_nepisode // self.batch_size) * self.batch_size:
                stats.log(self.logger, self.t_env, "test_")
        elif self.t_env - self.log_train_stats_t >= self.args.runner_log_interval:
            stats.log(self.logger, self.t_env)
            if hasattr(self.mac.action_selector, "epsilon"):
                self.logger.log_stat("epsilon", self.mac.action_selector.epsilon, self.t_env)
            self.log_train_stats_t = self.t_env
