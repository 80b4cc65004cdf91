"""The result of a student: what teacher, student and random score in the same episodes, and what a decision costs.

Every policy plays exactly ``eval_episodes`` episodes that begin in the same states (environments are seeded alike for
each). The student plays behind ``MaskedEnv``, as it would when deployed. Its agreement with the teacher is measured
where the teacher can see too: in the unmasked environment, with the controller hiding what the mask hides.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from envs.hetero_mask.mask import before
from kd_controllers.hetero_mac import HeteroMAC
from kd_controllers.host_policy import HostPolicyMAC
from kd_controllers.policy_mac import PolicyMAC
from kd_controllers.random_mac import RandomMAC
from kd_core import files, progress
from kd_core.errors import UserError
from kd_core.host import Host, get_host
from kd_core.metrics import retention
from kd_learners import batches, objective
from kd_learners.frozen_teacher import FrozenTeacher
from kd_learners.losses import acting_mask
from kd_marl.evaluation import costs as evaluation_costs
from kd_marl.evaluation import played as evaluation_record
from kd_marl.evaluation import table
from kd_runners import environments

# Far from the seeds of training, so that no episode of it begins where one of an evaluation does, and from each other:
# environment i of a block has the seed + i, and runs with seeds 1 and 2 must not be evaluated in the same episodes.
SEED_OFFSET, SEED_STRIDE, SEED_RANGE = 1_000_003, 10_007, 2**31


@dataclass
class Played:
    """What one policy did: ``(episodes,)`` arrays, the win rate where the environment knows one, and its decisions.

    ``actions`` are counts ``(time, agents, actions)``, see `evaluation_record.count_actions`.
    """

    returns: np.ndarray
    lengths: np.ndarray
    win_rate: float | None
    actions: np.ndarray

    def score(self) -> dict[str, float | None]:
        """``return_mean``, ``return_std`` (over episodes), ``length_mean`` (steps), ``win_rate``."""
        return {
            "return_mean": float(self.returns.mean()),
            "return_std": float(self.returns.std()),
            "length_mean": float(self.lengths.mean()),
            "win_rate": self.win_rate,
        }


class _Recorder:
    """Stands in for the host's Logger: keeps what the runner logs of one block of episodes."""

    def __init__(self) -> None:
        self.latest: dict[str, float] = {}

    def log_stat(self, key: str, value: Any, t: int, to_sacred: bool = True) -> None:
        self.latest[key] = float(value)


def check_episodes(episodes: Any) -> None:
    """Refuse ``eval_episodes`` that cannot be played.

    Raises:
        UserError: it is not a positive whole number.
    """
    if type(episodes) is not int or episodes < 1:
        raise UserError(f"eval_episodes is {episodes!r}: expected a number of episodes of at least 1")


def evaluation_seed(seed: int) -> int:
    """The seed of the environments that a run with this seed is evaluated in."""
    return (SEED_OFFSET + SEED_STRIDE * seed) % SEED_RANGE


class Arena:
    """Plays policies through the host's own runner."""

    def __init__(self, host: Host, args: Any, episodes: int) -> None:
        """Prepare.

        Args:
            host: whose runner and environments are used.
            args: the run's namespace.
            episodes: how many episodes each policy plays.

        Raises:
            UserError: ``episodes`` is not positive.
        """
        check_episodes(episodes)
        if args.batch_size_run < 1:
            raise UserError(f"batch_size_run is {args.batch_size_run}: expected at least 1 environment")
        self.host, self.args, self.episodes = host, args, episodes
        # The runner plays whole blocks; a divisor makes the blocks add up to exactly what was asked for.
        block = max(size for size in range(1, args.batch_size_run + 1) if episodes % size == 0)
        self.block = 1 if args.runner == "episode" else block

    def blocks(
        self, make_mac: Callable[[dict[str, Any], Any], PolicyMAC], masked: bool, label: str
    ) -> Iterator[tuple[Any, PolicyMAC, dict[str, float]]]:
        """Play, yielding each block's ``EpisodeBatch``, the controller and what the runner logged of it."""
        host = self.host
        args = SimpleNamespace(**vars(self.args))
        args.env_args = {**self.args.env_args, "seed": evaluation_seed(self.args.seed)}
        args.batch_size_run = args.test_nepisode = self.block
        args.mask_at = "environment" if masked else "controller"
        recorder = _Recorder()
        plain = host.envs[args.env]
        host.envs[args.env] = environments.Factory(host, args, masked and environments.is_limited(args))
        try:
            runner = host.runners[args.runner](args=args, logger=recorder)
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
                    yield runner.run(test_mode=True), mac, recorder.latest
                    bar.update(self.block)
        finally:
            runner.close_env()

    def play(self, make_mac: Callable[[dict[str, Any], Any], PolicyMAC], masked: bool, label: str) -> Played:
        """What a policy scores."""
        returns, lengths, wins, actions = [], [], [], []
        for batch, _, logged in self.blocks(make_mac, masked, label):
            episodes = batches.from_host(batch)
            returns.append((episodes.reward * episodes.filled).sum(dim=(1, 2)).cpu().numpy())
            lengths.append(episodes.length.cpu().numpy())
            wins.append(logged.get("test_battle_won_mean"))
            actions.append(evaluation_record.count_actions(episodes))
        known = [win for win in wins if win is not None]
        win_rate = float(np.mean(known)) if known else None
        counts = evaluation_record.total_counts(actions)
        return Played(np.concatenate(returns), np.concatenate(lengths), win_rate, counts)


def evaluate(args: Any, teacher: FrozenTeacher, student: HeteroMAC) -> dict[str, Any]:
    """The content of ``summary.json``, and under ``counts`` that of ``actions.safetensors``.

    Args:
        args: the run's namespace.
        teacher: the frozen teacher.
        student: the trained controller (``mask_at: controller``).
    """
    arena = Arena(get_host(), args, args.eval_episodes)

    def teacher_mac(greedy: bool) -> Callable[[dict[str, Any], Any], PolicyMAC]:
        def make(scheme: dict[str, Any], options: Any) -> PolicyMAC:
            teacher.mac.greedy = greedy
            return teacher.mac

        return make

    def student_mac(greedy: bool) -> Callable[[dict[str, Any], Any], PolicyMAC]:
        def make(scheme: dict[str, Any], options: Any) -> PolicyMAC:
            mac = HeteroMAC(scheme, None, options)
            mac.load_state(student)
            mac.greedy = greedy
            return mac

        return make

    played = {
        "teacher": arena.play(teacher_mac(greedy=True), masked=False, label="teacher, greedy"),
        "student": arena.play(student_mac(greedy=True), masked=True, label="student, greedy"),
        "random": arena.play(lambda scheme, options: RandomMAC(options), masked=False, label="random"),
    }
    sampled = {
        "teacher": arena.play(teacher_mac(greedy=False), masked=False, label="teacher, sampled"),
        "student": arena.play(student_mac(greedy=False), masked=True, label="student, sampled"),
    }
    agreement, per_agent = _agreement(arena, teacher, student_mac(greedy=True))
    scores = {name: {**result.score(), **_sampled(sampled.get(name))} for name, result in played.items()}
    return {
        **_identity(args),
        **scores,
        **_retained(played),
        **evaluation_costs.pair_costs(
            teacher, student, *(float(played[name].lengths.mean()) for name in ("teacher", "student"))
        ),
        "agreement": agreement,
        "agreement_per_agent": per_agent,
        "widths": list(student.agent.widths),
        "inputs": [len(student.mask.indices(i)) for i in range(student.n_agents)],
        "sees": evaluation_record.sight(student.mask),
        "actions": evaluation_record.names_of_actions(args, student.mask, args.n_actions),
        "teacher_artifact": teacher.facts(),
        "counts": {name: result.actions for name, result in played.items()},
    }


def _identity(args: Any) -> dict[str, Any]:
    return {
        "task": args.map_name,
        "limits": args.limits,
        "masks_preset": args.masks_preset if environments.is_limited(args) else None,
        "seed": args.seed,
        "episodes": args.eval_episodes,
        "command": args.command,
    }


def evaluate_alone(args: Any, mac: Any, t_env: int, masked: bool) -> dict[str, Any]:
    """What one policy scores, greedy and sampled, in the same episodes; the content of its files as for `evaluate`.

    Args:
        args: the run's namespace.
        mac: its controller, the host's or ours.
        t_env: environment steps it was trained for.
        masked: whether it plays under the run's limits.
    """
    arena = Arena(get_host(), args, args.eval_episodes)

    def policy(greedy: bool) -> Callable[[dict[str, Any], Any], PolicyMAC]:
        def make(scheme: dict[str, Any], options: Any) -> PolicyMAC:
            adapter = HostPolicyMAC(mac, options)
            adapter.greedy = greedy
            return adapter

        return make

    greedy = arena.play(policy(greedy=True), masked, label=f"{args.name}, greedy")
    scores: dict[str, Any] = greedy.score()
    # Who learns values has no distribution to draw actions from.
    if args.agent_output_type != "q":
        sampled = arena.play(policy(greedy=False), masked, label=f"{args.name}, sampled")
        scores["sampled"] = sampled.score()
    return {
        **_identity(args),
        "algorithm": args.name,
        "steps": t_env,
        "policy": scores,
        **evaluation_costs.policy_costs(mac, args.n_agents, float(greedy.lengths.mean())),
        **({"sees": evaluation_record.sight(args.observation_mask)} if masked else {}),
        **({"widths": list(mac.agent.widths)} if isinstance(mac, HeteroMAC) else {}),
        "actions": evaluation_record.names_of_actions(args, args.observation_mask, args.n_actions),
        "counts": {"policy": greedy.actions},
    }


def report(args: Any, summary: dict[str, Any]) -> None:
    """Write ``actions.safetensors`` and ``summary.json`` into the run's folder and print what was scored."""
    folder = Path(args.run_folder or args.local_results_path)
    os.makedirs(folder, exist_ok=True)
    summary = dict(summary)
    evaluation_record.write_actions(folder, summary.pop("counts"))
    files.write_json(folder / "summary.json", summary)
    if "student" in summary:
        print(table.result_text(summary), flush=True)  # type: ignore[arg-type]
    else:
        score = summary["policy"]
        ways = {"greedy": score, "sampled": score.get("sampled")}
        returns = [f"{way['return_mean']:.2f} ± {way['return_std']:.2f} {name}" for name, way in ways.items() if way]
        print(
            f"{summary['algorithm']} on {summary['task']}, limits {summary['limits']}, {summary['episodes']} episodes: "
            f"return {', '.join(returns)}"
        )
    print(f"written to {folder / 'summary.json'}", flush=True)


def _sampled(result: Played | None) -> dict[str, Any]:
    return {} if result is None else {"sampled": result.score()}


def _retained(played: dict[str, Played]) -> dict[str, float | None]:
    """Retention in the paper's way and over random, of win rates where there are any, else of returns."""
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
    arena: Arena, teacher: FrozenTeacher, make_student: Callable[..., PolicyMAC]
) -> tuple[float, list[float | None]]:
    """Share of the student's decisions at which the teacher, in its place, would have chosen the same action.

    Returns:
        The share over all agents, and each agent's own; None for an agent that never had a choice.
    """
    same, decisions = [], []
    for batch, mac, _ in arena.blocks(make_student, masked=False, label="agreement"):
        assert isinstance(mac, HeteroMAC), "the student's controller"
        episodes = batches.from_host(batch)
        steps = {"obs": episodes.obs[:, :-1], "state": episodes.state[:, :-1], "actions": episodes.actions}
        expert, _ = teacher.label(steps, episodes.length)
        logits, _ = mac.unroll(episodes.obs[:, :-1], mac.visible, before(episodes.actions))
        avail = episodes.avail_actions[:, :-1]
        acting = acting_mask(episodes.filled.squeeze(-1), avail)
        shares = [
            float(objective.agreement(logits[:, :, i], expert[:, :, i], avail[:, :, i], acting[:, :, i]))
            for i in range(acting.shape[-1])
        ]
        decisions.append(acting.sum(dim=(0, 1)).numpy())
        same.append(np.array(shares) * decisions[-1])
    agreed, taken = np.sum(same, axis=0), np.sum(decisions, axis=0)
    per_agent = [float(a / n) if n else None for a, n in zip(agreed, taken, strict=True)]
    return float(agreed.sum() / taken.sum()), per_agent


def _scheme(host: Host, info: dict[str, Any], args: Any) -> tuple[dict[str, Any], dict[str, int], dict[str, Any]]:
    """The scheme, groups and preprocessing that the host's loop would make for this environment."""
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
