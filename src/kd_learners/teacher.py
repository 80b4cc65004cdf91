"""Stage 1: the teacher, recurrent MAPPO on full observations (Yu et al., arXiv 2103.01955; the paper's Section III.B).

Each call of ``train`` uses one block of new episodes. It computes GAE on the central critic's values (time limits
bootstrap), and normalises returns by running statistics that the artifact stores. Several epochs follow, over
minibatches of short sequences of single agents for the policy and of single steps for the critic.
"""

from __future__ import annotations

import copy
import logging
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kd_controllers.teacher_mac import TeacherMAC, unroll_ragged
from kd_core import checkpoints, files, progress, threads
from kd_core.artifacts import teacher as artifact
from kd_core.errors import UserError
from kd_core.host import get_host
from kd_learners import batches, central_critic
from kd_learners.advantages import gae, standardise, td_residual
from kd_learners.best_weights import BestWeights
from kd_learners.follower import Follower
from kd_learners.losses import (
    acting_mask,
    action_log_prob,
    clip_fraction,
    entropy,
    imitation_gap,
    masked_log_softmax,
    masked_mean,
    ppo_clip,
)
from kd_learners.rollout import Rollout, Sequences, States, cut, ends, pieces, starts
from kd_learners.running_moments import RunningMoments
from kd_learners.settings import check_acting, check_blocks, read_settings
from kd_learners.shaping import training_reward
from kd_learners.stage import Compared, RunContext, Stage
from kd_learners.teacher_settings import TeacherSettings
from kd_learners.warm_start import read_first_teacher

_log = logging.getLogger(__name__)


class TeacherLearner(Stage):
    """EPyMARL learner ``kd_mappo_teacher``: trains the teacher by MAPPO."""

    evaluates = True

    def __init__(self, mac: TeacherMAC, scheme: dict[str, Any], logger: Any, args: Any, context: RunContext) -> None:
        self.mac, self.logger, self.args, self.context = mac, logger, args, context
        self.settings = read_settings(TeacherSettings, args)
        sizes = mac.sizes
        self.critic_sizes = central_critic.CriticSizes(
            critic_type="cv_critic",
            n_agents=sizes.n_agents,
            n_actions=sizes.n_actions,
            obs_size=sizes.obs_size,
            state_size=sizes.state_size,
            hidden_dim=sizes.hidden_dim,
            obs_individual_obs=args.obs_individual_obs,
            obs_last_action=args.obs_last_action,
        )
        self.critic: Any = self.critic_sizes.build()
        self.reward = training_reward(args.env, sizes.n_agents, sizes.state_size, self.settings.shaping, args.map_name)
        groups = [
            {"params": list(mac.parameters()), "lr": self.settings.lr},
            {"params": list(self.critic.parameters()), "lr": self.settings.critic_lr},
        ]
        self.optimiser = torch.optim.Adam(groups, eps=self.settings.optim_eps)
        self.initial_lr = [group["lr"] for group in self.optimiser.param_groups]
        self.follower = self._make_follower()
        self.crew = threads.Crew(self.settings.torch_threads)
        torch.set_num_threads(self.crew.size)
        mac.half_precision = self.settings.half_precision
        self.returns = RunningMoments()
        self.steps = self.first_step = 0
        self.best = BestWeights()
        # Facts of the teacher that training began with, and of the run that this one continues.
        self.begun_with: dict[str, Any] | None = None
        self.steps_before = 0
        self.past_tests: list[list[float]] = []
        self.past_seconds = 0.0
        self.finished = False
        self.bar = progress.bar("teacher", self.settings.t_max, "step")
        self.last_log = -args.learner_log_interval - 1
        self.started = time.monotonic()
        if args.begin_with:
            self._begin_with(args.begin_with)

    @classmethod
    def check_keys(cls, args: Any, context: RunContext) -> None:
        """Refuse a run that stage 1 cannot do, before anything is built for it.

        Raises:
            UserError: the first key with an impossible value.
        """
        check_blocks(args)
        check_acting(args)
        settings = read_settings(TeacherSettings, args)
        if context.limited and args.mask_at != "environment" and settings.imitation_gap_coef == 0.0:
            _log.warning(
                "limits and masks say what students see; this teacher sees everything. To train one under them, which "
                "no student will take: mask_at=environment"
            )

    def _make_follower(self) -> Follower | None:
        """Build the follower if the teacher pays for the imitation gap.

        Raises:
            UserError: the run's students would see all that the teacher sees.
        """
        settings, args = self.settings, self.args
        if settings.imitation_gap_coef == 0.0:
            return None
        if not self.context.limited or args.mask_at != "controller":
            raise UserError(
                "imitation_gap_coef is for a teacher that sees more than its students: set limits=lh and "
                "mask_at=controller, or imitation_gap_coef=0"
            )
        mask = self.context.mask
        return Follower(mask, args.n_actions, settings.follower_width, settings.follower_lr, args.seed)

    def _begin_with(self, path: str) -> None:
        """Copy another teacher's networks, and count its steps, time and tests as this one's."""
        first = read_first_teacher(path, self.facts())
        self.mac.agent.load_state_dict(first.agent_state)
        self.critic.load_state_dict(first.critic_state)
        facts = first.facts
        moments: Any = first.normalisers["value"]
        self.returns.mean, self.returns.variance = moments["mean"][0], moments["std"][0] ** 2
        # The count of values so far, so that the unit of the critic's outputs continues to change slowly.
        self.returns.count = float(facts["steps"] * facts["n_agents"])
        self.begun_with = {
            "sha256": first.sha256,
            "command": facts["command"],
            "begun_with": facts["begun_with"],
        }
        self.steps_before = facts["steps"]
        self.past_tests, self.past_seconds = facts["tests"], facts["train_seconds"] or 0.0

    def train(self, batch: Any, t_env: int, episode_num: int) -> None:
        """Update the networks on the episodes just played."""
        self._watch_tests(t_env)
        self.bar.update(t_env - self.bar.n)
        settings = self.settings
        left = max(0.0, 1.0 - t_env / settings.t_max)
        lr_share = settings.lr_final_share + (1.0 - settings.lr_final_share) * left
        for group, lr in zip(self.optimiser.param_groups, self.initial_lr, strict=True):
            group["lr"] = lr * lr_share
        rollout = self._prepare(batches.from_host(batch), lr_share)
        stats: list[dict[str, Tensor]] = []
        for _ in range(settings.epochs):
            for part in rollout.minibatches(settings.minibatches):
                with self.crew.at_work():
                    stats.append(self._step(*part))
                torch.set_num_threads(self.crew.size)
        self.steps = t_env
        if stats and t_env - self.last_log >= self.args.learner_log_interval:
            self.last_log = t_env
            for name in stats[0]:
                self.logger.log_stat(name, torch.stack([s[name] for s in stats]).mean().item(), t_env)
            self.logger.log_stat("value_mean", self.returns.mean, t_env)
            seconds = time.monotonic() - self.started
            self.logger.log_stat("steps_per_second", (t_env - self.first_step) / seconds, t_env)

    @torch.no_grad()
    def _prepare(self, episodes: batches.Episodes, lr_share: float = 1.0) -> Rollout:
        """Compute everything that is fixed during the epochs: old log-probabilities, advantages, value targets.

        Also fit the follower to these episodes, with ``lr_share`` of its learning rate.
        """
        settings, every = self.settings, vars(episodes)
        policy_inputs = self.mac.episode_inputs(every)[:, :-1]
        critic_inputs = self.critic_sizes.inputs(every)
        avail = episodes.avail_actions[:, :-1]
        length = settings.chunk_length
        with self._precision():
            logits, at_ends = unroll_ragged(self.mac.agent, policy_inputs, episodes.length, ends(length))
            value = central_critic.evaluate_where(self.critic, critic_inputs, episodes.observed)
        value = value.float() * self.returns.std + self.returns.mean
        residual = td_residual(self.reward(episodes), value, episodes.terminated, episodes.filled, settings.gamma)
        advantage = gae(residual, settings.gamma, settings.gae_lambda)
        returns = advantage + value[:, :-1]
        filled = episodes.filled.expand_as(returns)
        self.returns.update(returns[filled > 0])
        acting = acting_mask(episodes.filled.squeeze(-1), avail)
        kept = cut(acting, length).any(dim=1)
        log_probs = masked_log_softmax(logits.float(), avail)
        decisions = {
            "inputs": policy_inputs,
            "avail": avail,
            "actions": episodes.actions,
            "log_prob": action_log_prob(log_probs, episodes.actions),
            "advantage": standardise(advantage, acting),
            "acting": acting,
        }
        if self.follower is not None:
            decisions["follower_log_probs"] = self.follower.fit(episodes, log_probs, acting, lr_share)
        sequences = {name: cut(value, length, kept) for name, value in decisions.items()}
        taken = episodes.filled.squeeze(-1) > 0
        target = (returns - self.returns.mean) / self.returns.std
        return Rollout(
            Sequences(**sequences, hidden=starts(at_ends, pieces(acting.shape[1], length))[kept].float()),
            States(inputs=critic_inputs[:, :-1][taken], target=target[taken]),
        )

    def _precision(self) -> torch.autocast:
        """Return a context that sets the precision of the update's matrix products."""
        return torch.autocast(self.args.device, dtype=torch.bfloat16, enabled=self.settings.half_precision)

    def _step(self, part: Sequences, states: States) -> dict[str, Tensor]:
        """Take one gradient step on a minibatch, and return what is logged."""
        settings = self.settings
        with self._precision():
            logits, _ = self.mac.unroll_inputs(part.inputs.unsqueeze(2), part.hidden.unsqueeze(1))
            value = central_critic.evaluate(self.critic, states.inputs)
        value = value.float()
        log_probs = masked_log_softmax(logits.squeeze(2).float(), part.avail)
        log_prob = action_log_prob(log_probs, part.actions)
        surrogate = masked_mean(ppo_clip(log_prob, part.log_prob, part.advantage, settings.eps_clip), part.acting)
        bonus = masked_mean(entropy(log_probs), part.acting)
        critic_loss = (value - states.target).square().mean()
        loss = critic_loss - surrogate - settings.entropy_coef * bonus
        followed: dict[str, Tensor] = {}
        if part.follower_log_probs is not None:
            gap = masked_mean(imitation_gap(log_probs, part.follower_log_probs), part.acting)
            loss = loss + settings.imitation_gap_coef * gap
            agrees = (log_probs.argmax(-1) == part.follower_log_probs.argmax(-1)).float()
            followed = {"imitation_gap": gap.detach(), "follower_agreement": masked_mean(agrees, part.acting)}
        self.optimiser.zero_grad()
        loss.backward()
        agent_norm = nn.utils.clip_grad_norm_(list(self.mac.parameters()), settings.grad_norm_clip)
        critic_norm = nn.utils.clip_grad_norm_(self.critic.parameters(), settings.grad_norm_clip)
        self.optimiser.step()
        return {
            "pg_loss": -surrogate.detach(),
            "critic_loss": critic_loss.detach(),
            "entropy": bonus.detach(),
            "agent_grad_norm": agent_norm,
            "critic_grad_norm": critic_norm,
            "clip_fraction": clip_fraction(log_prob.detach(), part.log_prob, settings.eps_clip, part.acting),
            **followed,
        }

    def _watch_tests(self, t_env: int) -> None:
        """Store the weights of the best test; end the run after ``patience * t_max`` steps without a better one.

        With a follower the run takes all its steps: the teacher still approaches it while test returns stay the same.
        """
        if not self._offer_test() or self.follower is not None:
            return
        if t_env - self.best.step > self.settings.patience * self.settings.t_max:
            self.done = True

    def _offer_test(self) -> bool:
        """Store the weights if the latest test is the best: by its win rate where there is one, then by its return.

        With a follower the latest test counts as the best, since no test measures how well students can imitate the
        teacher.
        """
        tests = self._test_returns()
        wins = self.logger.stats.get("test_battle_won_mean", [])
        if tests:
            step, value = tests[-1]
            won = wins[-1][1] if wins else 0.0
            rank = (float(won), float(value)) if self.follower is None else (float(step),)
            self.best.offer(step, rank, self._weights)
        return bool(tests)

    def _weights(self) -> dict[str, Any]:
        return copy.deepcopy(
            {"agent": self.mac.agent.state_dict(), "critic": self.critic.state_dict(), "returns": vars(self.returns)}
        )

    def finish(self) -> None:
        """Load the weights of the best test, which the artifact of a finished run holds."""
        self.finished = True
        self.bar.close()
        self._offer_test()
        if self.best.weights is not None:
            self.mac.agent.load_state_dict(self.best.weights["agent"])
            self.critic.load_state_dict(self.best.weights["critic"])
            vars(self.returns).update(self.best.weights["returns"])

    def compared(self) -> Compared:
        """Name the teacher's policy, in the precision in which it labels."""
        # Students learn from its float32 outputs.
        self.mac.half_precision = False
        return Compared(self.mac, self.steps, masked=self.args.mask_at == "environment")

    def take_result(self, summary: dict[str, Any], folder: Path | None) -> None:
        """Write the teacher's scores, greedy and sampled, into ``teacher.json``."""
        if folder is not None:
            facts = {**artifact.read_facts(folder), "test": artifact.test_of(summary)}
            files.write_json(folder / artifact.FACTS_FILE, facts)

    def cuda(self) -> None:
        """Move the networks to the GPU.

        Raises:
            UserError: with a follower, whose networks are too small to repay moving their data.
        """
        if self.follower is not None:
            raise UserError("imitation_gap_coef is for the CPU: set use_cuda=False")
        self.mac.cuda()
        self.critic.to(self.args.device)

    def facts(self) -> dict[str, Any]:
        """Return the facts of this teacher for ``teacher.json``, without its hashes."""
        host, sizes, args = get_host(), self.mac.sizes, self.args
        return {
            "task": args.map_name,
            "env": args.env,
            "layout": args.map_name,
            **vars(sizes),
            "obs_individual_obs": self.critic_sizes.obs_individual_obs,
            "agent": "rnn",
            "critic_type": self.critic_sizes.critic_type,
            "gamma": self.settings.gamma,
            "gae_lambda": self.settings.gae_lambda,
            "shaping": self.settings.shaping,
            "imitation_gap_coef": self.settings.imitation_gap_coef,
            "masked": self.context.limited and args.mask_at == "environment",
            "common_reward": args.common_reward,
            "reward_scalarisation": args.reward_scalarisation,
            "normalisers": {
                "reward": {"mean": [0.0], "std": [1.0]},
                "value": {"mean": [self.returns.mean], "std": [self.returns.std]},
            },
            "host": host.name,
            "host_commit": host.commit,
            "seed": args.seed,
            "steps": self.steps_before + self.steps,
            "begun_with": self.begun_with,
            "finished": self.finished,
            "best_test_step": self.steps_before + self.best.step,
            "train_seconds": self.past_seconds + time.monotonic() - self.started,
            "tests": self._tests(),
            "command": args.command,
            "test": {},
        }

    def _tests(self) -> list[list[float]]:
        """Collect the learning curve: environment steps, return and any win rate of every test, each test once.

        Tests before a stop come from the artifact and, if the run's log was read again, from the log too.
        """
        wins = dict(self.logger.stats.get("test_battle_won_mean", []))
        found = {int(test[0]): test for test in self.past_tests}
        for step, value in self._test_returns():
            at = self.steps_before + int(step)
            found[at] = [at, float(value), *([float(wins[step])] if step in wins else [])]
        return [found[at] for at in sorted(found)]

    def _test_returns(self) -> list[tuple[int, float]]:
        """Return step and return of every test of this run, for common and for individual rewards."""
        stats = self.logger.stats
        return stats.get("test_return_mean") or stats.get("test_total_return_mean", [])

    def save_models(self, path: str) -> None:
        """Write the teacher artifact and all that resumes its training into ``path``; ``checkpoint.json`` last."""
        # The host's loop tests, saves and only then trains: the test just made is of these weights.
        self._offer_test()
        artifact.save_teacher(path, self.mac.agent.state_dict(), self.critic.state_dict(), self.facts())
        state = {
            "optimiser": self.optimiser.state_dict(),
            "returns": vars(self.returns),
            "best": vars(self.best),
            "torch_rng": torch.get_rng_state(),
        }
        if self.follower is not None:
            state["follower"] = self.follower.state_dict()
        files.save_torch(os.path.join(path, "training.th"), state)
        checkpoints.write_checkpoint(path, self.args, self.steps, self.finished)

    def load_models(self, path: str) -> None:
        """Continue from :meth:`save_models`."""
        loaded = artifact.load_teacher(path)
        self.mac.agent.load_state_dict(loaded.agent_state)
        self.critic.load_state_dict(loaded.critic_state)
        state = torch.load(os.path.join(path, "training.th"), map_location="cpu", weights_only=True)
        self.optimiser.load_state_dict(state["optimiser"])
        vars(self.returns).update(state["returns"])
        vars(self.best).update(state["best"])
        if self.follower is not None:
            self.follower.load_state_dict(state["follower"])
        torch.set_rng_state(state["torch_rng"])
        self.past_tests = loaded.facts["tests"]
        self.past_seconds = loaded.facts["train_seconds"]
        self.steps = self.first_step = loaded.facts["steps"] - self.steps_before
