"""PPO for teams with a state-value critic: MAPPO with a central critic, IPPO with individual ones."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import torch as th
from torch.nn import functional as F

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
from epymarl_lite.modules.critics import REGISTRY as CRITICS
from epymarl_lite.utils.errors import registered

LOG_FLOOR = 1e-10  # keeps log(p) finite


def nstep_targets(
    rewards: th.Tensor, mask: th.Tensor, values: th.Tensor, nsteps: int, gamma: float, add_value_last_step: bool
) -> th.Tensor:
    """Compute N-step returns `(batch, time, agents)`.

    `G_t = sum_{k < N, t + k < T} gamma^k m_{t+k} r_{t+k}`, plus a bootstrapped value. Inside the batch this is `gamma^N
    m_{t+N} V_{t+N}`. Where the N steps reach its end and `add_value_last_step` is set, it is `gamma^(T - t) V_T`,
    without a mask.

    Args:
        rewards: `(batch, time, agents)`.
        mask: `(batch, time, agents)`, 1 at valid steps; it alone tells the end of an episode.
        values: `(batch, time + 1, agents)`.
        nsteps: N.
        gamma: discount per step.
        add_value_last_step: whether returns bootstrap from the value after the last step.
    """
    steps = rewards.shape[1]

    def ahead(x: th.Tensor, k: int) -> th.Tensor:
        """Shift `x` forward by k steps in time, with zeros from beyond the end."""
        return F.pad(x[:, k:], (0, 0, 0, min(k, steps)))

    masked = rewards * mask
    returns = sum(gamma**k * ahead(masked, k) for k in range(min(nsteps, steps)))
    returns = returns + gamma**nsteps * ahead(mask * values[:, :-1], nsteps)
    if add_value_last_step:
        last = range(max(0, steps - nsteps), steps)
        discount = values.new_tensor([gamma ** (steps - t) for t in last])
        returns[:, last.start :] += discount[:, None] * values[:, -1:]
    return returns


class PPOLearner:
    """Clipped policy steps and value regression on n-step returns, `epochs` times over each batch of episodes.

    The old policy is the controller's when `train` is called. So no second copy of it exists, which could be outdated
    after weights are loaded.
    """

    def __init__(self, mac: BasicMAC, scheme: Scheme, logger: StatLogger, args: SimpleNamespace) -> None:
        """Build the critic that `args.critic_type` names and both optimisers."""
        self.args = args
        self.logger = logger
        self.n_agents: int = args.n_agents
        self.mac = mac
        self.agent_params = list(mac.parameters())
        self.agent_optimiser = th.optim.Adam(self.agent_params, lr=args.lr)
        self.critic = registered(CRITICS, "critic_type", args.critic_type)(scheme, args)
        self.target_critic = copy.deepcopy(self.critic)
        self.critic_params = list(self.critic.parameters())
        self.critic_optimiser = th.optim.Adam(self.critic_params, lr=args.lr)
        self.update_target = TargetUpdate(args.target_update_interval_or_tau)
        self.report = StatReporter(logger, args.learner_log_interval)
        if args.standardise_returns:
            self.ret_ms = RunningMeanStd(shape=(self.n_agents,), device=args.device)
        if args.standardise_rewards:
            shape = (1,) if args.common_reward else (self.n_agents,)
            self.rew_ms = RunningMeanStd(shape=shape, device=args.device)

    def train(self, batch: EpisodeBatch, t_env: int, episode_num: int) -> None:
        """Learn from a batch of episodes; its last time index is used only for bootstrapping."""
        rewards = batch["reward"][:, :-1]
        actions = batch["actions"][:, :-1]
        if self.args.standardise_rewards:
            self.rew_ms.update(rewards)
            rewards = self.rew_ms.normalise(rewards)
        rewards = rewards.expand(-1, -1, self.n_agents)
        mask = step_mask(batch).expand(-1, -1, self.n_agents)
        with th.no_grad():
            target_values = self.target_critic(batch).squeeze(-1)

        old_log_pi = None
        for _ in range(self.args.epochs):
            pi = unroll(self.mac, batch, rewards.shape[1])
            log_pi = (pi.gather(-1, actions).squeeze(-1) + LOG_FLOOR).log()
            if old_log_pi is None:
                old_log_pi = log_pi.detach()
            advantage, critic_stats = self._critic_step(batch, rewards, mask, target_values)
            ratio = (log_pi - old_log_pi).exp()
            clipped = ratio.clamp(1 - self.args.eps_clip, 1 + self.args.eps_clip)
            entropy = -(pi * (pi + LOG_FLOOR).log()).sum(dim=-1)
            gain = th.min(ratio * advantage, clipped * advantage) + self.args.entropy_coef * entropy
            loss = -masked_mean(gain, mask)
            grad_norm = optimiser_step(self.agent_optimiser, loss, self.agent_params, self.args.grad_norm_clip)

        self.update_target([(self.target_critic, self.critic)])
        self.report(
            t_env,
            critic_stats
            | {
                "advantage_mean": masked_mean(advantage, mask),
                "pg_loss": loss.detach(),
                "agent_grad_norm": grad_norm,
                "pi_max": masked_mean(pi.detach().amax(dim=-1), mask),
            },
        )

    def _critic_step(
        self, batch: EpisodeBatch, rewards: th.Tensor, mask: th.Tensor, target_values: th.Tensor
    ) -> tuple[th.Tensor, dict[str, th.Tensor]]:
        """Take one step on the squared error to the n-step returns.

        Args:
            batch: the episodes, `time + 1` steps long.
            rewards: `(batch, time, agents)`.
            mask: `(batch, time, agents)`.
            target_values: the target critic's raw output, `(batch, time + 1, agents)`.

        Returns:
            The advantages before the step, `(batch, time, agents)`, without gradient and 0 where masked; and metrics.
        """
        args = self.args
        if args.standardise_returns:
            target_values = self.ret_ms.denormalise(target_values)
        targets = nstep_targets(rewards, mask, target_values, args.q_nstep, args.gamma, args.add_value_last_step)
        if args.standardise_returns:
            self.ret_ms.update(targets)
            targets = self.ret_ms.normalise(targets)
        values = self.critic(batch[:, :-1]).squeeze(-1)
        td_error = (targets - values) * mask
        loss = masked_mean(td_error.square(), mask)
        grad_norm = optimiser_step(self.critic_optimiser, loss, self.critic_params, args.grad_norm_clip)
        advantage = td_error.detach()
        return advantage, {
            "critic_loss": loss.detach(),
            "critic_grad_norm": grad_norm,
            "td_error_abs": masked_mean(advantage.abs(), mask),
            "q_taken_mean": masked_mean(values.detach(), mask),
            "target_mean": masked_mean(targets, mask),
        }

    def cuda(self) -> None:
        """Move all networks to the GPU."""
        self.mac.cuda()
        self.critic.cuda()
        self.target_critic.cuda()

    def save_models(self, path: str | Path) -> None:
        """Write `agent.th`, `critic.th`, `agent_opt.th` and `critic_opt.th` in the folder `path`."""
        folder = Path(path)
        self.mac.save_models(path)
        th.save(self.critic.state_dict(), folder / "critic.th")
        th.save(self.agent_optimiser.state_dict(), folder / "agent_opt.th")
        th.save(self.critic_optimiser.state_dict(), folder / "critic_opt.th")

    def load_models(self, path: str | Path) -> None:
        """Read the files of `save_models`; the target critic starts equal to the critic."""
        folder = Path(path)
        self.mac.load_models(path)
        self.critic.load_state_dict(th.load(folder / "critic.th", map_location="cpu", weights_only=True))
        self.target_critic.load_state_dict(self.critic.state_dict())
        for optimiser, name in ((self.agent_optimiser, "agent_opt.th"), (self.critic_optimiser, "critic_opt.th")):
            optimiser.load_state_dict(th.load(folder / name, map_location="cpu", weights_only=True))
