"""One-step Q learning on whole episodes: independent (IQL), or mixed into a team value (VDN, QMIX)."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import torch as th
from torch import nn

from epymarl_lite.components.episode_buffer import EpisodeBatch, Scheme
from epymarl_lite.components.standarize_stream import RunningMeanStd
from epymarl_lite.controllers.basic_controller import BasicMAC
from epymarl_lite.controllers.unrolling import unroll
from epymarl_lite.learners.common import (
    StatLogger,
    StatReporter,
    TargetUpdate,
    masked_mean,
    optimiser_step,
    step_mask,
)
from epymarl_lite.modules.mixers import REGISTRY as MIXERS
from epymarl_lite.utils.errors import ConfigError

UNAVAILABLE_VALUE = -9999999.0


class QLearner:
    """Regression of the taken actions' values on `r + gamma (1 - d) max Q'`, with target networks."""

    def __init__(self, mac: BasicMAC, scheme: Scheme, logger: StatLogger, args: SimpleNamespace) -> None:
        """Build the mixer that `args.mixer` names (none for independent learning), targets and optimiser.

        Raises:
            ConfigError: an unknown mixer.
        """
        if args.mixer is not None and args.mixer not in MIXERS:
            raise ConfigError(f"unknown mixer {args.mixer!r}: use one of {sorted(MIXERS)}, or null for none")
        self.args = args
        self.logger = logger
        self.mac = mac
        self.mixer: nn.Module | None = None if args.mixer is None else MIXERS[args.mixer](args)
        self.target_mac = copy.deepcopy(mac)
        self.target_mixer = copy.deepcopy(self.mixer)
        self.params = list(mac.parameters()) + ([] if self.mixer is None else list(self.mixer.parameters()))
        self.optimiser = th.optim.Adam(self.params, lr=args.lr)
        self.update_target = TargetUpdate(args.target_update_interval_or_tau)
        self.report = StatReporter(logger, args.learner_log_interval)
        columns = args.n_agents if self.mixer is None else 1
        if args.standardise_returns:
            self.ret_ms = RunningMeanStd(shape=(columns,), device=args.device)
        if args.standardise_rewards:
            shape = (1,) if args.common_reward else (args.n_agents,)
            self.rew_ms = RunningMeanStd(shape=shape, device=args.device)

    def train(self, batch: EpisodeBatch, t_env: int, episode_num: int) -> None:
        """Learn from a batch of episodes; its last time index is used only for bootstrapping."""
        rewards = batch["reward"][:, :-1]
        if self.args.standardise_rewards:
            self.rew_ms.update(rewards)
            rewards = self.rew_ms.normalise(rewards)
        mask = step_mask(batch)

        q = unroll(self.mac, batch, batch.max_seq_length)
        taken = q[:, :-1].gather(-1, batch["actions"][:, :-1]).squeeze(-1)
        if self.mixer is not None:
            taken = self.mixer(taken, batch["state"][:, :-1])
        mask = mask.expand_as(taken)
        targets = self._targets(batch, q.detach(), rewards.expand_as(taken), mask)

        td_error = (taken - targets) * mask
        loss = td_error.square().sum() / mask.sum()
        grad_norm = optimiser_step(self.optimiser, loss, self.params, self.args.grad_norm_clip)
        self.update_target(self._target_pairs())
        self.report(
            t_env,
            {
                "loss": loss.detach(),
                "grad_norm": grad_norm,
                "td_error_abs": masked_mean(td_error.detach().abs(), mask),
                # EPyMARL divides these two by the number of agents, with a mixer or without.
                "q_taken_mean": masked_mean(taken.detach(), mask) / self.args.n_agents,
                "target_mean": masked_mean(targets, mask) / self.args.n_agents,
            },
        )

    @th.no_grad()
    def _targets(self, batch: EpisodeBatch, q: th.Tensor, rewards: th.Tensor, mask: th.Tensor) -> th.Tensor:
        """Compute one-step targets `(batch, time, agents)`, or `(batch, time, 1)` with a mixer.

        Args:
            batch: the episodes, `time + 1` steps long.
            q: the live networks' values `(batch, time + 1, agents, actions)`.
            rewards: of the targets' shape.
            mask: of the targets' shape.
        """
        args = self.args
        unavailable = batch["avail_actions"][:, 1:].eq(0)
        next_q = unroll(self.target_mac, batch, batch.max_seq_length)[:, 1:]
        next_q = next_q.masked_fill(unavailable, UNAVAILABLE_VALUE)
        if args.double_q:
            best = q[:, 1:].masked_fill(unavailable, UNAVAILABLE_VALUE).argmax(dim=-1, keepdim=True)
            values = next_q.gather(-1, best).squeeze(-1)
        else:
            values = next_q.amax(dim=-1)
        if self.target_mixer is not None:
            values = self.target_mixer(values, batch["state"][:, 1:])
        if args.standardise_returns:
            values = self.ret_ms.denormalise(values)
        targets = rewards + args.gamma * (1 - batch["terminated"][:, :-1].float()) * values
        if args.standardise_returns:
            # Only valid steps: padding holds UNAVAILABLE_VALUE, which would swamp the returns.
            self.ret_ms.update(targets[mask[..., 0] > 0])
            targets = self.ret_ms.normalise(targets)
        return targets

    def _target_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        pairs: list[tuple[nn.Module, nn.Module]] = [(self.target_mac.agent, self.mac.agent)]
        if self.mixer is not None and self.target_mixer is not None:
            pairs.append((self.target_mixer, self.mixer))
        return pairs

    def cuda(self) -> None:
        """Move all networks to the GPU."""
        for network in (self.mac, self.target_mac, self.mixer, self.target_mixer):
            if network is not None:
                network.cuda()

    def save_models(self, path: str | Path) -> None:
        """Write `agent.th`, `mixer.th` (with a mixer) and `opt.th` in the folder `path`."""
        self.mac.save_models(path)
        if self.mixer is not None:
            th.save(self.mixer.state_dict(), Path(path) / "mixer.th")
        th.save(self.optimiser.state_dict(), Path(path) / "opt.th")

    def load_models(self, path: str | Path) -> None:
        """Read the files of `save_models`; both target networks start equal to the live ones."""
        folder = Path(path)
        self.mac.load_models(path)
        if self.mixer is not None:
            self.mixer.load_state_dict(th.load(folder / "mixer.th", map_location="cpu", weights_only=True))
        for target, live in self._target_pairs():
            target.load_state_dict(live.state_dict())
        self.optimiser.load_state_dict(th.load(folder / "opt.th", map_location="cpu", weights_only=True))
