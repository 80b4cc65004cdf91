"""Episodes that several policies play alike: the same seeds, the same blocks, the host's own runner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from kd_controllers.policy_mac import PolicyMAC
from kd_core import progress
from kd_core.errors import UserError
from kd_core.host import Host
from kd_envs.hetero_mask.mask import ObservationMask
from kd_learners import batches
from kd_learners.settings import check_episodes
from kd_marl.evaluation import actions as counted
from kd_runners import environments

# Far from the seeds of training, so that no episode of it begins where one of an evaluation does, and from each other:
# environment i of a block has the seed + i, and runs with seeds 1 and 2 must not be evaluated in the same episodes.
SEED_OFFSET, SEED_STRIDE, SEED_RANGE = 1_000_003, 10_007, 2**31


@dataclass
class Played:
    """What one policy did: ``(episodes,)`` arrays, the win rate where the environment knows one, and its decisions.

    ``actions`` are counts ``(time, agents, actions)``, see `actions.count_actions`.
    """

    returns: np.ndarray
    lengths: np.ndarray
    win_rate: float | None
    actions: np.ndarray

    def score(self) -> dict[str, float | None]:
        """Return ``return_mean``, ``return_std`` (over episodes), ``length_mean`` (steps), ``win_rate``."""
        return {
            "return_mean": float(self.returns.mean()),
            "return_std": float(self.returns.std()),
            "length_mean": float(self.lengths.mean()),
            "win_rate": self.win_rate,
        }


class _BlockLogger:
    """Stands in for the host's Logger: has the last value of each name that the runner logs."""

    def __init__(self) -> None:
        self.latest: dict[str, float] = {}

    def log_stat(self, key: str, value: Any, t: int, to_sacred: bool = True) -> None:
        self.latest[key] = float(value)


def evaluation_seed(seed: int) -> int:
    """Derive the seed of the environments that a run with this seed is evaluated in."""
    return (SEED_OFFSET + SEED_STRIDE * seed) % SEED_RANGE


class PairedEpisodes:
    """Plays policies through the host's own runner, each in the same episodes.

    Args:
        host: whose runner and environments are used.
        args: the run's namespace.
        mask: what limits the observations of a policy that plays masked; None: nothing does.
        episodes: how many episodes each policy plays.

    Raises:
        UserError: ``episodes`` is not positive.
    """

    def __init__(self, host: Host, args: Any, mask: ObservationMask | None, episodes: int) -> None:
        check_episodes(episodes)
        if args.batch_size_run < 1:
            raise UserError(f"batch_size_run is {args.batch_size_run}: expected at least 1 environment")
        self.host, self.args, self.mask, self.episodes = host, args, mask, episodes
        # The runner plays whole blocks; a divisor makes the blocks add up to exactly what was asked for.
        block = max(size for size in range(1, args.batch_size_run + 1) if episodes % size == 0)
        self.block = 1 if args.runner == "episode" else block

    def blocks(
        self, make_mac: Callable[[dict[str, Any], Any], PolicyMAC], masked: bool, label: str
    ) -> Iterator[tuple[Any, PolicyMAC, dict[str, float]]]:
        """Play, and yield each block's ``EpisodeBatch``, the controller and what the runner logged of it."""
        host = self.host
        args = SimpleNamespace(**vars(self.args))
        args.env_args = {**self.args.env_args, "seed": evaluation_seed(self.args.seed)}
        args.batch_size_run = args.test_nepisode = self.block
        args.mask_at = "environment" if masked else "controller"
        logger = _BlockLogger()
        plain = host.envs[args.env]
        host.envs[args.env] = environments.Factory(host, args, self.mask if masked else None)
        try:
            runner = host.runners[args.runner](args=args, logger=logger)
        finally:
            host.envs[args.env] = plain
        try:
            scheme, groups, preprocess = _scheme(host, runner.get_env_info(), args)
            mac = make_mac(scheme, args)
            # The same draws for every policy, so that a score does not depend on which policies played before.
            torch.manual_seed(args.env_args["seed"])
            runner.setup(scheme=scheme, groups=groups, preprocess=preprocess, mac=mac)
            with progress.bar(label, self.episodes, "episode", leave=False) as bar:
                for _ in range(self.episodes // self.block):
                    yield runner.run(test_mode=True), mac, logger.latest
                    bar.update(self.block)
        finally:
            runner.close_env()

    def play(self, make_mac: Callable[[dict[str, Any], Any], PolicyMAC], masked: bool, label: str) -> Played:
        """Play all episodes with one policy, and count what it did."""
        returns, lengths, wins, actions = [], [], [], []
        for batch, _, logged in self.blocks(make_mac, masked, label):
            episodes = batches.from_host(batch)
            returns.append((episodes.reward * episodes.filled).sum(dim=(1, 2)).cpu().numpy())
            lengths.append(episodes.length.cpu().numpy())
            wins.append(logged.get("test_battle_won_mean"))
            actions.append(counted.count_actions(episodes))
        known = [win for win in wins if win is not None]
        win_rate = float(np.mean(known)) if known else None
        counts = counted.total_counts(actions)
        return Played(np.concatenate(returns), np.concatenate(lengths), win_rate, counts)


def _scheme(host: Host, info: dict[str, Any], args: Any) -> tuple[dict[str, Any], dict[str, int], dict[str, Any]]:
    """Build the scheme, groups and preprocessing that the host's loop would make for this environment."""
    agents = {"group": "agents"}
    scheme = {
        "state": {"vshape": info["state_shape"]},
        "obs": {"vshape": info["obs_shape"], **agents},
        "actions": {"vshape": (1,), **agents, "dtype": torch.long},
        "avail_actions": {"vshape": (info["n_actions"],), **agents, "dtype": torch.int},
        "terminated": {"vshape": (1,), "dtype": torch.uint8},
        "reward": {"vshape": (1,) if args.common_reward else (info["n_agents"],)},
    }
    preprocess = {"actions": ("actions_onehot", [host.OneHot(out_dim=info["n_actions"])])}
    return scheme, {"agents": info["n_agents"]}, preprocess
