"""The result: what is played, counted and reported of the students."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kd_controllers.hetero_mac import HeteroMAC
from kd_core.costs.flops import closed_formula
from kd_marl.evaluation import costs as evaluation_costs
from kd_marl.evaluation.episodes import PairedEpisodes, evaluation_seed
from kd_marl.evaluation.evaluator import evaluate
from kd_marl.evaluation.result import report
from tiny_stages import ACTIONS, AGENTS, HOST, LIMIT, OBS, TASK, SignalEnv
from tiny_students import make_learner


def scored(learner, args=None):
    """The learner's result: its summary, and the counts of actions."""
    return evaluate(HOST, args or learner.args, learner.context, learner.compared())


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
    summary, _ = scored(learner)
    assert summary["agreement"] == 1.0
    for name in ("return_mean", "return_std"):
        assert summary["student"][name] == summary["teacher"][name]
    assert summary["student"]["sampled"]["return_mean"] == summary["teacher"]["sampled"]["return_mean"]
    assert summary["retention"] == 1.0
    # The tiny teacher is no better than random play.
    assert summary["retention_normalised"] is None
    assert summary["random"]["return_mean"] != summary["teacher"]["return_mean"]


def test_the_summary_adds_up(results, tmp_path, monkeypatch):
    learner = make_learner(results, tmp_path, eval_episodes=10)
    played, begun = [], []
    play = PairedEpisodes.play

    def remembered(self, *args, **kwargs):
        begun.append(0)
        played.append(play(self, *args, **kwargs))
        return played[-1]

    reset = SignalEnv.reset

    def counted(self, seed=None, options=None):
        begun[-1] += 1
        return reset(self, seed, options)

    monkeypatch.setattr(PairedEpisodes, "play", remembered)
    monkeypatch.setattr(SignalEnv, "reset", counted)
    args = SimpleNamespace(**{**vars(learner.args), "runner": "episode", "batch_size_run": 1})
    summary, _ = scored(learner, args)
    # Teacher, student and random greedily, teacher and student sampled; the last count also has the agreement's.
    assert [len(result.returns) for result in played] == [10] * 5
    assert begun == [10, 10, 10, 10, 20]
    teacher, student, random = (summary[name]["return_mean"] for name in ("teacher", "student", "random"))
    assert [teacher, student, random] == [float(result.returns.mean()) for result in played[:3]]
    assert summary["student"]["return_std"] == float(played[1].returns.std())
    assert summary["retention"] == pytest.approx(1 - abs(student - teacher) / abs(teacher))
    gain = pytest.approx((student - random) / (teacher - random)) if teacher > random else None
    assert summary["retention_normalised"] == gain
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


def test_actions_are_counted_where_there_was_a_choice(results, tmp_path):
    learner = make_learner(results, tmp_path, eval_episodes=7)
    student = learner.mac

    def make(scheme, options):
        mac = HeteroMAC(scheme, None, options, student.mask)
        mac.load_state(student)
        mac.greedy = True
        return mac

    expected = np.zeros((LIMIT, AGENTS, ACTIONS), int)
    forced = 0
    paired = PairedEpisodes(HOST, learner.args, learner.context.environment_mask, 7)
    for batch, _, _ in paired.blocks(make, masked=True, label=""):
        for row in range(batch.batch_size):
            for t in range(int(batch["filled"][row].sum()) - 1):
                for i in range(AGENTS):
                    if batch["avail_actions"][row, t, i].sum() > 1:
                        expected[t, i, int(batch["actions"][row, t, i, 0])] += 1
                    else:
                        forced += 1
    report(learner.context.run_folder, *scored(learner))
    assert forced and expected.sum()
    written = load_file(Path(learner.context.run_folder) / "actions.safetensors")
    assert written["student"].dtype == torch.int32
    np.testing.assert_array_equal(written["student"], expected)
    assert set(written) == {"teacher", "student", "random"}
    summary = json.loads((Path(learner.context.run_folder) / "summary.json").read_text())
    assert summary["actions"] == [["action_0", "action_1", "action_2"]] * AGENTS
    # The masks of tiny_students: features 0 to 2 of five, and 0, 1, 2 and 4.
    assert [row["blocks"] for row in summary["sees"]] == [{"other": [3, OBS]}, {"other": [4, OBS]}]


def test_runs_with_neighbouring_seeds_are_evaluated_in_different_episodes():
    rows = [set(range(start, start + 512)) for start in map(evaluation_seed, (0, 1, 2, 3, 10**9))]
    assert sum(map(len, rows)) == len(set().union(*rows))
    assert all(0 <= seed < 2**31 for row in rows for seed in row)
    # Nor where they were trained: their own environments have the seeds that follow theirs.
    assert not any(row.intersection(range(2000)) for row in rows)


@pytest.mark.parametrize("sharing", [True, False])
def test_a_host_policys_costs_are_those_of_its_networks(sharing):
    args = SimpleNamespace(hidden_dim=16, use_rnn=True, n_actions=ACTIONS, n_agents=AGENTS)
    agent = HOST.agents["rnn" if sharing else "rnn_ns"](OBS + AGENTS, args)
    costs = evaluation_costs.policy_costs(SimpleNamespace(agent=agent), AGENTS, length=3.5)
    one = closed_formula(OBS + AGENTS, 16, ACTIONS)
    assert costs["flops_per_decision"] == one and costs["flops_per_episode"] == pytest.approx(AGENTS * one * 3.5)
    d = OBS + AGENTS
    assert costs["params"] == d * 16 + 16 + 6 * 16 * 16 + 6 * 16 + 16 * ACTIONS + ACTIONS
    assert costs["decision_us"] > 0
    assert evaluation_costs.policy_costs(SimpleNamespace(agent=torch.nn.Identity()), AGENTS, 1.0) == {}


@pytest.mark.parametrize("episodes", [1, 6, 7, 12])
def test_exactly_the_episodes_asked_for_are_played_whatever_the_block(results, tmp_path, episodes):
    learner = make_learner(results, tmp_path, eval_episodes=episodes)
    paired = PairedEpisodes(HOST, learner.args, None, episodes)

    def make(scheme, options):
        return learner.teacher.mac

    assert len(paired.play(make, masked=False, label="").returns) == episodes


def test_agreement_is_counted_over_the_decisions_taken_in_the_unmasked_environment(results, tmp_path):
    learner = make_learner(results, tmp_path, eval_episodes=12)
    student, agent = learner.mac, learner.teacher.mac.agent
    same_choice = [[], []]

    def make(scheme, options):
        mac = HeteroMAC(scheme, None, options, student.mask)
        mac.load_state(student)
        mac.greedy = True
        return mac

    paired = PairedEpisodes(HOST, learner.args, None, 12)
    for batch, _, _ in paired.blocks(make, masked=False, label=""):
        for row in range(batch.batch_size):
            length = int(batch["filled"][row].sum()) - 1
            for i in range(AGENTS):
                hidden, identity = torch.zeros(1, 16), torch.eye(AGENTS)[i]
                for t in range(length):
                    logits, hidden = agent(torch.cat([batch["obs"][row, t, i], identity]).unsqueeze(0), hidden)
                    avail = batch["avail_actions"][row, t, i]
                    if avail.sum() > 1:
                        wanted = logits[0].masked_fill(avail == 0, -torch.inf).argmax()
                        same_choice[i].append(bool(wanted == batch["actions"][row, t, i, 0]))
    summary, _ = scored(learner)
    every = [*same_choice[0], *same_choice[1]]
    assert 0 < np.mean(every) < 1 and len(same_choice[0]) != len(same_choice[1])
    assert summary["agreement"] == pytest.approx(np.mean(every), abs=1e-6)
    assert summary["agreement_per_agent"] == pytest.approx([np.mean(same) for same in same_choice], abs=1e-6)


def test_an_evaluation_repeats_itself(results, tmp_path):
    learner = make_learner(results, tmp_path)
    (once, *counts), (again, *more) = (scored(learner) for _ in range(2))
    counts += more
    for name in ("teacher", "student", "random"):
        np.testing.assert_array_equal(counts[0][name], counts[1][name])
    for summary in (once, again):
        for name in ("decision_us_teacher", "decision_us_student"):
            assert summary.pop(name) > 0
    assert once == again
