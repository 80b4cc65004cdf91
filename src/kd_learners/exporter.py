"""Stage 1b: the frozen teacher plays, and its episodes are stored in the expert buffer.

The format is docs/reference/formats/buffer.md.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import torch

from kd_controllers.teacher_mac import TeacherMAC
from kd_core import checkpoints, progress, stages
from kd_core.artifacts.buffer_writer import wait_for_turn
from kd_core.artifacts.expert_buffer import ExpertBufferWriter
from kd_core.artifacts.shard import EMBEDDING_DTYPES
from kd_core.errors import UserError
from kd_core.host import get_host
from kd_learners import batches
from kd_learners.frozen_teacher import FrozenTeacher
from kd_learners.losses import acting_mask, action_log_prob, masked_log_softmax
from kd_learners.settings import check_acting, check_blocks, check_entropy, read_settings
from kd_learners.stage import RunContext, Stage
from kd_learners.value_teacher import GREEDY, ValueTeacher, entropy_share, fit_temperature, frozen_teacher

# Seeds reserved for each shard: more than environments play at once, so a continued export may have another number.
SEEDS_OF_A_SHARD = 1000
# Blocks of episodes on which the temperature of a policy made of action values is fitted.
CALIBRATING_BLOCKS = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportSettings:
    """The exporter's keys of ``kd_marl.yaml``, where each is explained."""

    buffer_episodes: int
    shard_episodes: int
    embedding_dtype: str

    def __post_init__(self) -> None:
        if self.embedding_dtype not in EMBEDDING_DTYPES:
            raise UserError(f"embedding_dtype is '{self.embedding_dtype}': choose one of {', '.join(EMBEDDING_DTYPES)}")


class BufferExporter(Stage):
    """EPyMARL learner ``kd_buffer_export``: its ``train`` stores episodes instead of learning.

    The controller samples from the teacher's policy, so that policy is pi_beh, and its log-probabilities are stored.
    The policy of a teacher that learnt action values needs a temperature. It is fitted on blocks of episodes that are
    not stored: the first is played greedily, each next one at the temperature that the one before gave.
    """

    needs_teacher = True

    def __init__(self, mac: TeacherMAC, scheme: dict[str, Any], logger: Any, args: Any, context: RunContext) -> None:
        if not isinstance(mac, TeacherMAC):
            raise UserError("kd_buffer_export plays the teacher: set mac=teacher_mac")
        self.args, self.logger = args, logger
        assert context.teacher is not None and context.buffer_folder is not None, "`prepare` located both"
        self.teacher = frozen_teacher(context.teacher, args)
        # The host made its controller before the teacher was known; give it the teacher's network.
        mac.sizes, mac.agent = self.teacher.sizes, self.teacher.mac.agent
        self.folder = context.buffer_folder
        self.facts = {
            "task": args.map_name,
            "n_agents": context.task.n_agents,
            "n_actions": context.task.n_actions,
            "obs_size": self.teacher.sizes.obs_size,
            "state_size": context.task.state_size,
            "hidden_dim": self.teacher.sizes.hidden_dim,
            "reward_size": scheme["reward"]["vshape"][0],
            "embedding_dtype": args.embedding_dtype,
            "teacher": FrozenTeacher.facts(self.teacher),
            "seed": args.seed,
            "host": get_host().name,
            "command": args.command,
            "episode_limit": context.task.episode_limit,
            "env_args": checkpoints.unseeded(args.env_args),
            "common_reward": args.common_reward,
            "reward_scalarisation": args.reward_scalarisation,
        }
        self.writer = ExpertBufferWriter(
            self.folder, self.facts, resume=args.resume, shard_episodes=args.shard_episodes
        )
        self.uncalibrated = 0
        if isinstance(self.teacher, ValueTeacher):
            self._find_temperature(self.teacher)
        self.bar = progress.bar("expert buffer", args.buffer_episodes, "episode", done=self.writer.episodes)

    def _find_temperature(self, teacher: ValueTeacher) -> None:
        """Take the temperature of the buffer that is continued, or prepare to fit it."""
        known = self.writer.facts.get("teacher_temperature")
        if known is None:
            teacher.set_temperature(GREEDY)
            self.uncalibrated = CALIBRATING_BLOCKS
        else:
            stages.check_same_entropy(self.folder, self.writer.facts, self.args)
            teacher.set_temperature(known)

    @property
    def done(self) -> bool:  # type: ignore[override]
        """Whether the buffer holds ``buffer_episodes``."""
        return self.writer.episodes >= self.args.buffer_episodes

    @classmethod
    def check_keys(cls, args: Any, context: RunContext) -> None:
        """Refuse a run that stage 1b cannot do, before anything is built for it.

        Raises:
            UserError: the first key with an impossible value.
        """
        check_blocks(args)
        check_acting(args)
        read_settings(ExportSettings, args)
        check_entropy(args.teacher_entropy)
        if context.limited and args.mask_at == "environment":
            raise UserError("kd_export stores everything, for students of any limits: set mask_at=controller")
        if context.limited:
            _log.warning("limits say what students see: the buffer stores everything, for students of any limits")

    @classmethod
    def prepare(cls, args: Any, context: RunContext) -> RunContext:
        """Locate the teacher, and give a continued export new seeds.

        The environments of a continued export are seeded past those that played for the existing shards. Otherwise the
        same episodes would be played again. Shards are counted by files, since facts may lack the last shard of an
        interrupted export.

        Raises:
            UserError: no teacher is found.
        """
        teacher = stages.locate_teacher(args, context.task)
        folder = stages.buffer_folder(args, teacher)
        if args.resume:
            # Whoever exports the same buffer now leaves shards behind, which are counted below. Open until the end of
            # the process: to close any of its files would free the lock.
            wait_for_turn(folder)
        shards = len(list(folder.glob("shard-*.safetensors"))) if args.resume else 0
        args.env_args["seed"] += shards * max(SEEDS_OF_A_SHARD, args.batch_size_run)
        torch.manual_seed(args.seed + shards)
        return replace(context, teacher=teacher, buffer_folder=folder)

    def train(self, batch: Any, t_env: int, episode_num: int) -> None:
        """Append the episodes just played, at most as many as the buffer still lacks."""
        if self.uncalibrated:
            self._calibrate(batches.from_host(batch))
            return
        wanted = self.args.buffer_episodes - self.writer.episodes
        block = self._block(batches.from_host(batch))
        self.writer.append({name: value[:wanted].cpu() for name, value in block.items()})
        self.bar.update(min(wanted, len(block["length"])))

    def _calibrate(self, episodes: batches.Episodes) -> None:
        """Fit the temperature on episodes that the teacher has just played; the last fit is a fact of the buffer."""
        assert isinstance(self.teacher, ValueTeacher), "only its policy has a temperature"
        avail = episodes.avail_actions[:, :-1]
        acting = acting_mask(episodes.filled.squeeze(-1), avail) > 0
        if not acting.any():
            raise UserError("the teacher never has a choice in its episodes, so its policy has no temperature")
        q, share = self.teacher.action_values(episodes)[:, :-1][acting], self.args.teacher_entropy
        was = entropy_share(q, avail[acting], self.teacher.temperature)
        temperature = fit_temperature(q, avail[acting], share)
        self.teacher.set_temperature(temperature)
        self.uncalibrated -= 1
        _log.info("Temperature %.4g for an entropy of %g of the greatest; so far %.3f", temperature, share, was)
        if not self.uncalibrated:
            self.writer.state({"teacher_temperature": temperature, "teacher_entropy": share})

    @torch.no_grad()
    def _block(self, episodes: batches.Episodes) -> dict[str, torch.Tensor]:
        """Build the shard's tensors of a block of episodes, padded to the episode limit, zero outside the episodes."""
        steps = {"obs": episodes.obs[:, :-1], "state": episodes.state[:, :-1], "actions": episodes.actions}
        logits, embedding = self.teacher.label(steps, episodes.length)
        filled = episodes.filled.unsqueeze(-1)
        last = torch.nn.functional.pad(episodes.filled, (0, 0, 0, 1))[:, 1:] < episodes.filled
        terminated = episodes.terminated.squeeze(-1)
        log_probs = masked_log_softmax(logits, episodes.avail_actions[:, :-1])
        log_prob = action_log_prob(log_probs, episodes.actions)
        block = {
            "state": episodes.state,
            "obs": episodes.obs,
            "avail_actions": episodes.avail_actions,
            "actions": episodes.actions * episodes.filled.long(),
            "behaviour_log_prob": log_prob * episodes.filled,
            "teacher_logits": logits * filled,
            "embedding": embedding * filled,
            "reward": episodes.reward * episodes.filled,
            "terminated": terminated,
            "truncated": last.squeeze(-1).float() * (1.0 - terminated),
        }
        limit = self.facts["episode_limit"]
        whole = {
            name: _to_length(value, limit + (name in ("state", "obs", "avail_actions")))
            for name, value in block.items()
        }
        return {**whole, "length": episodes.length}

    def finish(self) -> None:
        """Write the last shard and report the buffer's size."""
        self.writer.close()
        self.bar.close()
        facts = self.writer.facts
        mean = facts["return_mean"]
        self.logger.console_logger.info(
            f"Expert buffer {self.folder}: {facts['episodes']} episodes, {facts['steps']} steps, mean return {mean:.2f}"
        )

    def cuda(self) -> None:
        """Move the teacher to the GPU."""
        self.teacher.move(self.args.device)

    def save_models(self, path: str) -> None:
        """Write nothing, since nothing is learnt."""

    def load_models(self, path: str) -> None:
        """Refuse a checkpoint: an export continues with ``resume=True``.

        Raises:
            UserError: always.
        """
        raise UserError("kd_export has no checkpoints: continue a buffer with resume=True")


def _to_length(values: torch.Tensor, time: int) -> torch.Tensor:
    missing = time - values.shape[1]
    return torch.nn.functional.pad(values, (0, 0) * (values.dim() - 2) + (0, missing)) if missing else values
