"""The result: what is played, counted and reported of the students."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kd_controllers.hetero_mac import HeteroMAC
from kd_learners import evaluation
from kd_marl.metrics.flops import closed_formula
from tiny_stages import ACTIONS, AGENTS, HOST, OBS, TASK, SignalEnv
from tiny_students import make_learner


def copy_of_the_teacher(learner):
    """Students as wide as the teacher, seeing everything, with its weights: the agent's identity becomes a bias."""
    source = learner.teacher.mac.agent
    (group,) = learner.mac.agent.groups
    with torch.no_grad():
        for i in range(AGENTS):
            group.aligner_weight[i] = source.fc1.weight[:, :OBS].T
            group.aligner_bias[i, 0] = source.fc1.bias + source.fc1.weight[:, OBS + i]
            for name in ("weight_ih", "weight_hh"):
                getattr(group, name)[i] = getattr(source.rnn, name).T
            for name in ("bias_ih", "bias_hh"):
                getattr(group, name)[i, 0] = getattr(source.rnn, name)
            group.head_weight[i] = source.fc2.weight.T
            group.head_bias[i, 0] = source.fc2.bias


@pytest.mark.parametrize("episodes", [7, 8])
def test_a_copy_of_the_teacher_scores_as_the_teacher_in_the_same_episodes(results, tmp_path, episodes):
    learner = make_learner(results, tmp_path, masks="", widths=16, eval_episodes=episodes)
    copy_of_the_teacher(learner)
    summary = evaluation.evaluate(learner.args, learner.teacher, learner.mac)
    assert summary["agreement"] == 1.0
    for name in ("return_mean", "return_std"):
        assert summary["student"][name] == summary["teacher"][name]
    assert summary["student"]["sampled"]["return_mean"] == summary["teacher"]["sampled"]["return_mean"]
    assert (summary["retention"], summary["retention_normalised"]) == (1.0, 1.0)
    assert summary["random"]["return_mean"] != summary["teacher"]["return_mean"]


def test_the_summary_adds_up(results, tmp_path, monkeypatch):
    learner = make_learner(results, tmp_path, eval_episodes=10)
    played, begun = [], []
    play = evaluation.Arena.play

    def remembered(self, *args, **kwargs):
        begun.append(0)
        played.append(play(self, *args, **kwargs))
        return played[-1]

    reset = SignalEnv.reset

    def counted(self, seed=None, options=None):
        begun[-1] += 1
        return reset(self, seed, options)

    monkeypatch.setattr(evaluation.Arena, "play", remembered)
    monkeypatch.setattr(SignalEnv, "reset", counted)
    args = SimpleNamespace(**{**vars(learner.args), "runner": "episode", "batch_size_run": 1})
    summary = evaluation.evaluate(args, learner.teacher, learner.mac)
    # Teacher, student and random greedily, teacher and student sampled; the last count also has the agreement's.
    assert [len(result.returns) for result in played] == [10] * 5
    assert begun == [10, 10, 10, 10, 20]
    teacher, student, random = (summary[name]["return_mean"] for name in ("teacher", "student", "random"))
    assert [teacher, student, random] == [float(result.returns.mean()) for result in played[:3]]
    assert summary["student"]["return_std"] == float(played[1].returns.std())
    assert summary["retention"] == pytest.approx(1 - abs(student - teacher) / abs(teacher))
    assert summary["retention_normalised"] == pytest.approx((student - random) / (teacher - random))
    assert (summary["task"], summary["limits"], summary["seed"], summary["episodes"]) == (TASK, "fo", 1, 10)
    assert all(summary[name]["win_rate"] is None for name in ("teacher", "student", "random"))
    assert 0.0 <= summary["agreement"] <= 1.0

    of_teacher = closed_formula(OBS + AGENTS, 16, ACTIONS)
    of_students = [closed_formula(3, 8, ACTIONS), closed_formula(4, 12, ACTIONS)]
    assert summary["flops_per_decision_teacher"] == of_teacher
    assert summary["flops_per_decision_student"] == np.mean(of_students)
    assert summary["flops_ratio"] == pytest.approx(of_teacher / np.mean(of_students))
    lengths = [float(result.lengths.mean()) for result in played[:2]]
    assert summary["flops_per_episode_teacher"] == pytest.approx(AGENTS * of_teacher * lengths[0])
    assert summary["flops_per_episode_student"] == pytest.approx(sum(of_students) * lengths[1])

    def size(d, w):
        return d * w + w + 6 * w * w + 6 * w + w * ACTIONS + ACTIONS

    assert summary["params_teacher"] == size(OBS + AGENTS, 16)
    assert summary["params_student"] == np.mean([size(3, 8), size(4, 12)])
    assert (summary["widths"], summary["inputs"]) == ([8, 12], [3, 4])


@pytest.mark.parametrize("episodes", [1, 6, 7, 12])
def test_exactly_the_episodes_asked_for_are_played_whatever_the_block(results, tmp_path, episodes):
    learner = make_learner(results, tmp_path, eval_episodes=episodes)
    arena = evaluation.Arena(HOST, learner.args, episodes)

    def make(scheme, options):
        return learner.teacher.mac

    assert len(arena.play(make, masked=False, label="").returns) == episodes


def test_agreement_is_counted_over_the_decisions_taken_in_the_unmasked_environment(results, tmp_path):
    learner = make_learner(results, tmp_path, eval_episodes=12)
    student, agent = learner.mac, learner.teacher.mac.agent
    same_choice = []

    def make(scheme, options):
        mac = HeteroMAC(scheme, None, options)
        mac.load_state(student)
        mac.greedy = True
        return mac

    arena = evaluation.Arena(HOST, learner.args, 12)
    for batch, _, _ in arena.blocks(make, masked=False, label=""):
        for row in range(batch.batch_size):
            length = int(batch["filled"][row].sum()) - 1
            for i in range(AGENTS):
                hidden, identity = torch.zeros(1, 16), torch.eye(AGENTS)[i]
                for t in range(length):
                    logits, hidden = agent(torch.cat([batch["obs"][row, t, i], identity]).unsqueeze(0), hidden)
                    avail = batch["avail_actions"][row, t, i]
                    if avail.sum() > 1:
                        wanted = logits[0].masked_fill(avail == 0, -torch.inf).argmax()
                        same_choice.append(bool(wanted == batch["actions"][row, t, i, 0]))
    summary = evaluation.evaluate(learner.args, learner.teacher, student)
    assert 0 < np.mean(same_choice) < 1
    assert summary["agreement"] == pytest.approx(np.mean(same_choice), abs=1e-6)


def test_an_evaluation_repeats_itself(results, tmp_path):
    learner = make_learner(results, tmp_path)
    once, again = (evaluation.evaluate(learner.args, learner.teacher, learner.mac) for _ in range(2))
    for summary in (once, again):
        for name in ("decision_us_teacher", "decision_us_student"):
            assert summary.pop(name) > 0
    assert once == again
