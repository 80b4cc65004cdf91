"""The result of a run: what its policies score in the same episodes, and what a decision of theirs costs.

Every policy plays exactly ``eval_episodes`` episodes that begin in the same states (environments are seeded alike for
each). The student plays behind ``MaskedEnv``, as it would when deployed. Its agreement with the teacher is measured
where the teacher can see too: in the unmasked environment, with the controller hiding what the mask hides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from kd_controllers.hetero_mac import HeteroMAC
from kd_controllers.host_policy import HostPolicyMAC
from kd_controllers.policy_mac import PolicyMAC
from kd_controllers.random_mac import RandomMAC
from kd_core.host import Host
from kd_core.metrics import retention
from kd_core.task import of_task
from kd_envs.hetero_mask.mask import ObservationMask, before
from kd_envs.hetero_mask.naming import action_names, sight, steps_per_second
from kd_learners import batches, objective
from kd_learners.frozen_teacher import FrozenTeacher
from kd_learners.losses import acting_mask
from kd_learners.stage import Compared, RunContext
from kd_marl.evaluation import costs
from kd_marl.evaluation.actions import total_counts
from kd_marl.evaluation.episodes import PairedEpisodes, Played
from kd_marl.runs import reachable

Summary = dict[str, Any]
Counts = dict[str, np.ndarray]
Maker = Callable[[dict[str, Any], Any], PolicyMAC]

# What the summary of a run on several tasks has of each.
OF_A_TASK = (
    *("teacher", "student", "random", "retention", "retention_normalised"),
    *("agreement", "agreement_per_agent", "flops_per_episode_teacher", "flops_per_episode_student", "teacher_artifact"),
)


def evaluate(host: Host, args: Any, context: RunContext, compared: Compared) -> tuple[Summary, Counts]:
    """Play what a finished stage wants compared.

    Args:
        host: whose runner and environments are used.
        args: the run's namespace.
        context: what the run knows of its task and limits.
        compared: the policies.

    Returns:
        The content of ``summary.json``, and each policy's counts of actions, int32 ``(time, agents, actions)``.
    """
    if compared.teacher is None:
        return _evaluate_alone(host, args, context, compared)
    if compared.more_teachers:
        return _evaluate_tasks(host, args, context, [compared.teacher, *compared.more_teachers], compared.mac)
    return _evaluate_pair(host, args, context, compared.teacher, compared.mac)


def _evaluate_tasks(
    host: Host, args: Any, context: RunContext, teachers: Sequence[FrozenTeacher], student: HeteroMAC
) -> tuple[Summary, Counts]:
    """Play each task with its own teacher; the summary has each one's result, and the means of their numbers."""
    found = {}
    for task, teacher in zip(context.task.parts, teachers, strict=True):
        one = of_task(args, task.name)
        found[task.name] = _evaluate_pair(host, one, replace(context, task=task), teacher, student)
    summaries = {name: summary for name, (summary, _) in found.items()}
    first = next(iter(summaries.values()))
    counts = [counts for _, counts in found.values()]
    summary = {
        **_mean(list(summaries.values())),
        **_identity(args, context),
        # What is known as reachable is so under a task's own limits, and these are none's.
        **dict.fromkeys(("reachable", "share_of_reachable")),
        "teacher_artifact": first["teacher_artifact"],
        "tasks": {name: {key: summary[key] for key in OF_A_TASK} for name, summary in summaries.items()},
    }
    return summary, {name: total_counts([of_one[name] for of_one in counts]) for name in counts[0]}


def _mean(values: Sequence[Any]) -> Any:
    """Average numbers, also within lists and dicts; what is equal stays, what is unknown or no number becomes None."""
    first = values[0]
    if all(value == first for value in values):
        return first
    if all(isinstance(value, dict) for value in values):
        return {key: _mean([value.get(key) for value in values]) for key in first}
    if all(isinstance(value, list) for value in values):
        return [_mean(entries) for entries in zip(*values, strict=True)]
    numbers = all(isinstance(value, int | float) for value in values)
    return float(np.mean(values)) if numbers else None


def _evaluate_pair(
    host: Host, args: Any, context: RunContext, teacher: FrozenTeacher, student: HeteroMAC
) -> tuple[Summary, Counts]:
    """Play teacher, student and random, greedy and sampled, in the same episodes."""
    episodes = PairedEpisodes(host, args, context.environment_mask, args.eval_episodes)

    def teacher_mac(greedy: bool) -> Maker:
        def make(scheme: dict[str, Any], options: Any) -> PolicyMAC:
            teacher.mac.greedy = greedy
            return teacher.mac

        return make

    def student_mac(greedy: bool) -> Maker:
        def make(scheme: dict[str, Any], options: Any) -> PolicyMAC:
            mac = HeteroMAC(scheme, None, options, student.mask)
            mac.load_state(student)
            mac.agent.to(teacher.device)
            mac.greedy = greedy
            return mac

        return make

    played = {
        "teacher": episodes.play(teacher_mac(greedy=True), masked=False, label="teacher, greedy"),
        "student": episodes.play(student_mac(greedy=True), masked=True, label="student, greedy"),
        "random": episodes.play(lambda scheme, options: RandomMAC(options), masked=False, label="random"),
    }
    sampled = {
        "teacher": episodes.play(teacher_mac(greedy=False), masked=False, label="teacher, sampled"),
        "student": episodes.play(student_mac(greedy=False), masked=True, label="student, sampled"),
    }
    agreement, per_agent = _agreement(episodes, teacher, student_mac(greedy=True))
    scores = {name: {**result.score(), **_sampled(sampled.get(name))} for name, result in played.items()}
    summary = {
        **_identity(args, context),
        **scores,
        **_retained(played),
        **_reached(args, scores["student"], student),
        **costs.pair_costs(teacher, student, *(float(played[name].lengths.mean()) for name in ("teacher", "student"))),
        "agreement": agreement,
        "agreement_per_agent": per_agent,
        **_bandwidth(args, student),
        "widths": list(student.agent.widths),
        "inputs": [len(student.mask.indices(i)) for i in range(student.n_agents)],
        "sees": sight(student.mask),
        "actions": _names_of_actions(args, student.mask),
        "teacher_artifact": teacher.facts(),
    }
    return summary, {name: result.actions for name, result in played.items()}


def _identity(args: Any, context: RunContext) -> Summary:
    return {
        "task": context.task.name,
        "limits": args.limits,
        "masks_preset": args.masks_preset if context.limited else None,
        "seed": args.seed,
        "episodes": args.eval_episodes,
        "command": args.command,
    }


def _bandwidth(args: Any, student: HeteroMAC) -> Summary:
    """Return the bits of a message, and what an agent sends a step and a second; None where the task has no rate."""
    bits = 0 if student.messages is None else student.messages.bits
    number_bits = 1 if student.messages is None else student.messages.number_bits
    per_step = 0.0 if student.messages is None else student.messages.bits_per_step()
    rate = steps_per_second(args.env, student.mask.layout)
    return {
        "message_bits": bits,
        **({} if number_bits == 1 else {"message_number_bits": number_bits}),
        "bits_per_step": per_step,
        "bits_per_second": None if rate is None else per_step * rate,
    }


def _reached(args: Any, score: Mapping[str, Any], mac: Any) -> Summary:
    """Return what can be reached under the run's limits, and the policy's share of it; None where it is unknown."""
    messages = mac.messages if isinstance(mac, HeteroMAC) else None
    sight = "own" if args.masks else args.masks_preset
    entry = reachable.find(reachable.read(), vars(args), args.limits, sight, 0 if messages is None else messages.bits)
    return {
        "reachable": None if entry is None else entry.value,
        "share_of_reachable": reachable.share_of(entry, score),
    }


def _names_of_actions(args: Any, mask: ObservationMask) -> list[list[str | None]]:
    """Name each agent's actions; None for one that an agent never has."""
    return [action_names(args.env, mask.layout.task, name, args.n_actions) for name in mask.layout.agent_names]


def _evaluate_alone(host: Host, args: Any, context: RunContext, compared: Compared) -> tuple[Summary, Counts]:
    """Play one policy, greedy and, where it has a distribution, sampled, in the same episodes."""
    mac, masked = compared.mac, compared.masked
    episodes = PairedEpisodes(host, args, context.environment_mask, args.eval_episodes)

    def policy(greedy: bool) -> Maker:
        def make(scheme: dict[str, Any], options: Any) -> PolicyMAC:
            adapter = HostPolicyMAC(mac, options)
            adapter.greedy = greedy
            return adapter

        return make

    greedy = episodes.play(policy(greedy=True), masked, label=f"{args.name}, greedy")
    scores: dict[str, Any] = greedy.score()
    # Who learns values has no distribution to draw actions from.
    if args.agent_output_type != "q":
        sampled = episodes.play(policy(greedy=False), masked, label=f"{args.name}, sampled")
        scores["sampled"] = sampled.score()
    summary = {
        **_identity(args, context),
        "algorithm": args.name,
        "steps": compared.steps,
        "policy": scores,
        **(_reached(args, scores, mac) if masked else {}),
        **costs.policy_costs(mac, args.n_agents, float(greedy.lengths.mean())),
        **({"sees": sight(context.mask)} if masked else {}),
        **({"widths": list(mac.agent.widths)} if isinstance(mac, HeteroMAC) else {}),
        "actions": _names_of_actions(args, context.mask),
    }
    return summary, {"policy": greedy.actions}


def _sampled(result: Played | None) -> dict[str, Any]:
    return {} if result is None else {"sampled": result.score()}


def _retained(played: dict[str, Played]) -> dict[str, float | None]:
    """Compute retention in the paper's way and over random, of win rates where there are any, else of returns."""
    has_wins = all(result.win_rate is not None for result in played.values())

    def number(name: str) -> float:
        result = played[name]
        return result.win_rate if has_wins and result.win_rate is not None else float(result.returns.mean())

    student, teacher, random = number("student"), number("teacher"), number("random")
    return {
        "retention": retention.retention(student, teacher, win_rate=has_wins),
        "retention_normalised": retention.retention_normalised(student, teacher, random),
    }


@torch.no_grad()
def _agreement(
    episodes: PairedEpisodes, teacher: FrozenTeacher, make_student: Maker
) -> tuple[float, list[float | None]]:
    """Measure at which share of the student's decisions the teacher, in its place, would have chosen the same action.

    Returns:
        The share over all agents, and each agent's own; None for an agent that never had a choice.
    """
    same, decisions = [], []
    for batch, mac, _ in episodes.blocks(make_student, masked=False, label="agreement"):
        assert isinstance(mac, HeteroMAC), "the student's controller"
        played = batches.from_host(batch)
        steps = {"obs": played.obs[:, :-1], "state": played.state[:, :-1], "actions": played.actions}
        expert, _ = teacher.label(steps, played.length)
        avail = played.avail_actions[:, :-1]
        logits, _ = mac.unroll(played.obs[:, :-1], mac.visible, before(played.actions), mac.radio(avail))
        acting = acting_mask(played.filled.squeeze(-1), avail)
        shares = [
            float(objective.agreement(logits[:, :, i], expert[:, :, i], avail[:, :, i], acting[:, :, i]))
            for i in range(acting.shape[-1])
        ]
        decisions.append(acting.sum(dim=(0, 1)).cpu().numpy())
        same.append(np.array(shares) * decisions[-1])
    agreed, taken = np.sum(same, axis=0), np.sum(decisions, axis=0)
    per_agent = [float(a / n) if n else None for a, n in zip(agreed, taken, strict=True)]
    return float(agreed.sum() / taken.sum()), per_agent
