"""Stage 2: critic-free distillation of the frozen teacher into the students of ``hetero_mac`` (Algorithm 1).

Each call of ``train`` makes ``updates_per_train`` gradient steps on minibatches of whole episodes. These are the
teacher's, from the expert buffer; the student's own, labelled by the teacher during training; or both (decision 10).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kd_controllers.hetero_mac import HeteroMAC
from kd_controllers.messages import check_same_radio
from kd_core import checkpoints, files, progress, stages
from kd_core.artifacts.expert_buffer import ExpertBuffer
from kd_core.errors import UserError
from kd_envs.hetero_mask.mask import before
from kd_learners import batches, expert_data, lost_statistics, objective, roles
from kd_learners.ancestor import read_ancestor
from kd_learners.comparators import ComparatorTerms
from kd_learners.frozen_teacher import FrozenTeacher
from kd_learners.int8_weights import Int8Weights
from kd_learners.labelled import LabelledSteps, Labeller, RecentEpisodes
from kd_learners.losses import action_log_prob, masked_log_softmax
from kd_learners.panel import Panel, PanelData, TaskPanel, fit_line, read_weights
from kd_learners.settings import read_settings
from kd_learners.stage import Compared, RunContext, Stage
from kd_learners.student_settings import StudentSettings, check_keys
from kd_learners.value_teacher import ValueTeacher, frozen_teacher

# Logged name -> key of summary.json.
REPORTED = {
    "retention": "retention",
    "retention_normalised": "retention_normalised",
    "final_agreement": "agreement",
    "params": "params_student",
    "flops_per_decision": "flops_per_decision_student",
    "flops_per_episode": "flops_per_episode_student",
    "decision_us": "decision_us_student",
}
# The expert episodes that int8 is calibrated by, as an export draws them.
CALIBRATING_EPISODES = 100
# Embeddings that the role centroids are fitted to: enough for a few centroids, and fast.
ROLE_EMBEDDINGS = 20_000


class StudentLearner(Stage):
    """EPyMARL learner ``kd_mappo_student``: trains the students by distillation."""

    needs_teacher = True
    several_tasks = True
    evaluates = True

    def __init__(self, mac: HeteroMAC, scheme: dict[str, Any], logger: Any, args: Any, context: RunContext) -> None:
        assert context.teacher is not None, "`prepare` located it"
        self.mac, self.logger, self.args, self.context = mac, logger, args, context
        self.settings = read_settings(StudentSettings, args)
        self.objective = self.weights = read_settings(objective.ObjectiveSettings, args)
        self.teacher = frozen_teacher(context.teacher, args)
        self.rng = np.random.default_rng(args.seed)
        self.n_roles = self.settings.n_roles or roles.default_n_roles(args.n_agents)
        self.more_teachers = [frozen_teacher(artifact, args) for artifact in context.more_teachers]
        # Each teacher has roles of its own.
        all_roles = self.n_roles * (1 + len(self.more_teachers))
        self.student_roles = nn.Parameter(torch.randn(all_roles, mac.agent.max_width) / mac.agent.max_width**0.5)
        self.comparators = ComparatorTerms(self.objective, mac.agent, self.teacher.sizes.hidden_dim, args.state_shape)
        self.learnt = [*mac.parameters(), self.student_roles, *self.comparators.parameters()]
        self.ancestor: dict[str, str] | None = None
        # Who goes on with a checkpoint has its ancestor's weights in it.
        if args.adapt_from and not args.checkpoint_path:
            self._adapt_from(args.adapt_from)
        self.recent = RecentEpisodes(self.settings.student_episodes)
        self.labeller: Labeller | Panel | TaskPanel
        self.expert: expert_data.ExpertData | PanelData
        if context.buffer_folder is not None:
            buffers = [self._buffer(folder) for folder in (context.buffer_folder, *context.more_buffers)]
            if context.more_buffers:
                self.labeller, self.expert = self._panel(buffers)
            else:
                self.labeller, self.expert = self._expert(self.teacher, buffers[0])
        # Fused: of parameters this small, calls of single operations are most of what a step costs.
        self.optimiser = torch.optim.Adam(self.learnt, lr=self.settings.lr, fused=True)
        self.quantised: Int8Weights | None = None
        if self.settings.quantise and context.buffer_folder is not None:
            # Its own generator, so that a resumed run finds the same powers.
            largest = self.expert.largest_features(CALIBRATING_EPISODES, np.random.default_rng(args.seed))
            self.quantised = Int8Weights(mac.agent, largest)
        self.updates = 0
        self.t_env = 0
        self.finished = False
        self.bar = progress.bar("student", self.settings.t_max, "step")
        self.last_log = -args.learner_log_interval - 1

    @classmethod
    def check_keys(cls, args: Any, context: RunContext) -> None:
        """Refuse a run that stage 2 cannot do, before anything is built for it: building may take minutes.

        Raises:
            UserError: the first key with an impossible value.
        """
        check_keys(args, context)

    @classmethod
    def prepare(cls, args: Any, context: RunContext) -> RunContext:
        """Locate the teacher and its buffer, or have them made.

        Raises:
            UserError: neither is found nor made, or the teacher's critic values rewards of another unit.
        """
        runs = stages.of_each_task(args, context.task) if len(context.task.parts) > 1 else [(args, context.task)]
        if stages.several(args) and len(runs) == 1:
            teachers = stages.locate_teachers(args, context.task)
            runs *= len(teachers)
        else:
            teachers = [stages.locate_teacher(run, task) for run, task in runs]
        for teacher in teachers:
            if args.advantage == "credit" and (kind := teacher.facts["critic_type"]) not in ("qmix", "vdn"):
                raise UserError(
                    f"advantage=credit needs a mixer, and the teacher in {teacher.folder} has none ({kind}): set "
                    "advantage=shared, or give a qmix or vdn teacher"
                )
            if args.ppo_coef and (other := stages.reward_difference(teacher.facts, vars(args))):
                raise UserError(
                    f"the critic of the teacher in {teacher.folder} values rewards with {other}, and PPO's "
                    "advantages are taken from it: use the same rewards, another teacher, or ppo_coef=0"
                )
        pairs = list(zip((run for run, _ in runs), teachers, strict=True))
        folders = [] if args.evaluate else [stages.locate_buffer(*pair) for pair in pairs]
        told = folders or [stages.buffer_folder(*pair) for pair in pairs]
        teachers = [stages.at_its_temperature(*pair) for pair in zip(teachers, told, strict=True)]
        return replace(
            context,
            teacher=teachers[0],
            buffer_folder=next(iter(folders), None),
            more_teachers=tuple(teachers[1:]),
            more_buffers=tuple(folders[1:]),
        )

    def _adapt_from(self, path: str) -> None:
        ancestor = read_ancestor(path, self.args, self.mac)
        ancestor.hand_over(self.mac)
        self.ancestor = ancestor.facts
        if ancestor.roles.shape == self.student_roles.shape:
            with torch.no_grad():
                self.student_roles.copy_(ancestor.roles)

    def _buffer(self, folder: Path) -> ExpertBuffer:
        buffer = ExpertBuffer.open(folder)
        # Another run may have exported more into the same buffer; this one must not depend on that.
        return buffer if self.args.expert_buffer else buffer.first(self.args.buffer_episodes)

    def _panel(self, buffers: Sequence[ExpertBuffer]) -> tuple[Panel | TaskPanel, PanelData]:
        """Build what several teachers label with, each from its own buffer."""
        args, teachers = self.args, [self.teacher, *self.more_teachers]
        pairs = list(zip(teachers, buffers, strict=True))
        labellers, data = zip(*(self._expert(teacher, buffer) for teacher, buffer in pairs), strict=True)
        weights = read_weights(len(teachers), args.teacher_weights)
        if len(self.context.task.parts) > 1:
            return TaskPanel(labellers), PanelData(data, weights)
        lines = [fit_line(teacher, buffer, self.teacher.gamma) for teacher, buffer in pairs]
        return Panel(labellers, lines, args.teacher_rule, weights), PanelData(data, weights)

    def _expert(self, teacher: FrozenTeacher, buffer: ExpertBuffer) -> tuple[Labeller, expert_data.ExpertData]:
        """Build the fixed role projection U_T, and the buffer with all that is computed from it once."""
        settings, seed = self.settings, self.args.seed
        if teacher.needs_statistics:
            lost_statistics.estimate(teacher, buffer)
        # Its own generator, so that a resumed run finds the same U_T.
        embeddings = expert_data.sample_embeddings(buffer, ROLE_EMBEDDINGS, np.random.default_rng(seed))
        projection = roles.teacher_roles(embeddings, self.n_roles, settings.role_init, seed)
        gamma = teacher.gamma if settings.gamma is None else settings.gamma
        if isinstance(teacher, ValueTeacher):
            teacher.by_credit = settings.advantage == "credit"
        labeller = Labeller(
            teacher, projection, gamma, settings.gae_lambda, self.objective.temperature, self.comparators.wanted
        )
        return labeller, expert_data.ExpertData(buffer, labeller, self.mac.mask, self.mac.messages)

    def train(self, batch: Any, t_env: int, episode_num: int) -> None:
        """Label the episodes just played if they are used, then take the gradient steps."""
        settings = self.settings
        self.bar.update(t_env - self.bar.n)
        self.t_env = t_env
        if settings.distill_on != "expert":
            self._add_recent(batches.from_host(batch))
        share = settings.share_left(settings.distillation_final_share, t_env)
        self.weights = objective.with_distillation(self.objective, share)
        for group in self.optimiser.param_groups:
            group["lr"] = settings.lr * settings.share_left(settings.lr_final_share, t_env)
        log_now = t_env - self.last_log >= self.args.learner_log_interval
        for update in range(settings.updates_per_train):
            last = update == settings.updates_per_train - 1
            stats = self._update(self._minibatch(), with_diagnostics=log_now and last)
        if log_now:
            self.last_log = t_env
            for name, value in stats.items():
                self.logger.log_stat(name, float(value.detach()), t_env)
            self.logger.log_stat("updates", self.updates, t_env)

    @torch.no_grad()
    def _add_recent(self, episodes: batches.Episodes) -> None:
        seen = self.mac.mask.apply(episodes.obs[:, :-1], before(episodes.actions), self.mac.visible)
        radio = self.mac.radio(episodes.avail_actions[:, :-1])
        logits, _ = self.mac.agent.unroll(seen, radio)
        log_probs = masked_log_softmax(logits, episodes.avail_actions[:, :-1])
        log_prob = action_log_prob(log_probs, episodes.actions)
        self.recent.add(self.labeller(episodes, log_prob, seen, radio))

    def _minibatch(self) -> LabelledSteps:
        from_student = self.settings.student_episodes_of_a_minibatch
        parts = []
        if from_student < self.settings.minibatch_episodes:
            parts.append(self.expert.sample(self.settings.minibatch_episodes - from_student, self.rng))
        if from_student:
            parts.append(self.recent.sample(from_student))
        return LabelledSteps.join(parts)

    def _update(self, batch: LabelledSteps, with_diagnostics: bool) -> dict[str, Tensor]:
        """Take one gradient step, and return what is logged."""
        self.optimiser.zero_grad()
        with self._weights():
            logits, embedding = self.mac.agent.unroll_packed(batch.obs, batch.length, batch.radio)
            parts = objective.terms(batch, logits, embedding, self.student_roles, self.weights)
            parts |= self.comparators(batch, embedding, self.mac.agent, self.weights.temperature)
            loss = objective.total(parts, self.weights)
            loss.backward()
        norm = nn.utils.clip_grad_norm_(self.learnt, self.settings.grad_norm_clip)
        self.optimiser.step()
        self.updates += 1
        if not with_diagnostics:
            return {}
        extra = objective.diagnostics(batch, logits.detach(), self.objective.eps_clip)
        return {**parts, **extra, "loss": loss.detach(), "agent_grad_norm": norm}

    def _weights(self) -> AbstractContextManager[None]:
        """Return the block in which the students have the weights that they are trained with now."""
        begins = (1.0 - self.settings.quantise_share) * self.settings.t_max
        return nullcontext() if self.quantised is None or self.t_env < begins else self.quantised.in_place()

    def finish(self) -> None:
        """Mark the training as finished; a student that was trained for int8 keeps the rounded weights."""
        if self.quantised is not None:
            self.quantised.settle()
        self.finished = True
        self.bar.close()

    def compared(self) -> Compared:
        """Name the student, to be compared with its teacher, that of each task, and random play."""
        more = self.more_teachers if len(self.context.task.parts) > 1 else ()
        return Compared(self.mac, self.t_env, self.teacher, more_teachers=more)

    def take_result(self, summary: dict[str, Any], folder: Path | None) -> None:
        """Log the result's numbers. The result belongs to the run, so the checkpoint stores nothing of it."""
        for name, key in REPORTED.items():
            if summary[key] is not None:
                self.logger.log_stat(name, summary[key], self.t_env)

    def cuda(self) -> None:
        """Move the students, the teachers and all that is learnt to the GPU."""
        device = self.args.device
        self.mac.agent.to(device)
        self.comparators.to(device)
        self.student_roles.data = self.student_roles.data.to(device)
        for teacher in (self.teacher, *self.more_teachers):
            teacher.move(device)

    def save_models(self, path: str) -> None:
        """Write the student and all that resumes its training into the folder ``path``; ``checkpoint.json`` last."""
        files.save_torch(os.path.join(path, "agent.th"), self.mac.agent.state_dict())
        state = {
            "optimiser": self.optimiser.state_dict(),
            "student_roles": self.student_roles.detach(),
            "comparators": self.comparators.state_dict(),
            "torch_rng": torch.get_rng_state(),
        }
        files.save_torch(os.path.join(path, "training.th"), state)
        checkpoints.write_checkpoint(
            path,
            self.args,
            self.t_env,
            self.finished,
            updates=self.updates,
            numpy_rng=self.rng.bit_generator.state,
            teacher=self.teacher.facts(),
            mask=self.mac.mask.to_dict(),
            widths=list(self.mac.agent.widths),
            messages=None if self.mac.messages is None else self.mac.messages.to_dict(),
            budget=None if self.mac.budgets is None else [budget.to_dict() for budget in self.mac.budgets],
            **({"more_teachers": self._more_facts()} if self.more_teachers else {}),
            **({} if self.ancestor is None else {"ancestor": self.ancestor}),
        )

    def _more_facts(self) -> list[dict[str, Any]]:
        """Return what another artifact names the further teachers by."""
        return [teacher.facts() for teacher in self.more_teachers]

    def load_models(self, path: str) -> None:
        """Continue from :meth:`save_models`; an evaluation reads only the policy.

        Raises:
            UserError: the checkpoint holds no student, or its student sees other features than this run's, or has
                another radio.
        """
        facts = checkpoints.read_checkpoint(path)
        if "mask" not in facts:
            raise UserError(f"the checkpoint in {path} is no student's: give the folder of a run of kd_student")
        # A file in masks= may have changed since, and the weights would still fit.
        if facts["mask"] != json.loads(json.dumps(self.mac.mask.to_dict())):
            raise UserError(
                f"the student in {path} was trained to see other features than limits, masks_preset and masks give it "
                "now: restore them, or train anew with resume=False"
            )
        check_same_radio(path, facts, self.mac.messages)
        if [known["sha256"] for known in facts.get("more_teachers", [])] != [t["sha256"] for t in self._more_facts()]:
            raise UserError(
                f"the student in {path} learnt from other teachers than {stages.several(self.args)} are now: restore "
                "them, or train anew with resume=False"
            )
        self.mac.load_models(path)
        self.updates, self.t_env, self.ancestor = facts["updates"], facts["t_env"], facts.get("ancestor")
        if self.args.evaluate:
            return
        state = torch.load(os.path.join(path, "training.th"), map_location="cpu", weights_only=True)
        self.optimiser.load_state_dict(state["optimiser"])
        with torch.no_grad():
            self.student_roles.copy_(state["student_roles"])
        self.comparators.load_state_dict(state["comparators"])
        torch.set_rng_state(state["torch_rng"])
        self.rng.bit_generator.state = facts["numpy_rng"]
