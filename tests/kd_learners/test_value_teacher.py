"""QMIX, VDN and IQL checkpoints as teachers: their policy and its temperature, their values, their students."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_core.artifacts.expert_buffer import ExpertBuffer
from kd_core.checkpoints import read_checkpoint
from kd_core.errors import UserError
from kd_core.stages import locate_teacher
from kd_learners import batches
from kd_learners.expert_data import shard_episodes
from kd_learners.student_learner import StudentLearner
from kd_learners.value_teacher import entropy_share, fit_temperature, frozen_teacher
from tiny_stages import AGENTS, described, run_stage, stage_args
from tiny_students import make_learner, student_args
from tiny_teachers import played
from value_runs import numpy_team_value, value_run

MIXERS = ["qmix", "vdn", None]


def share_by_loops(q, avail, temperature):
    entropies, greatest = [], []
    for row, some in zip(q, avail, strict=True):
        values = [value / temperature for value, there in zip(row, some, strict=True) if there]
        top = max(values)
        chances = [math.exp(value - top) for value in values]
        chances = [chance / sum(chances) for chance in chances]
        entropies.append(-sum(chance * math.log(chance) for chance in chances if chance > 0))
        greatest.append(math.log(len(values)))
    return np.mean(entropies) / np.mean(greatest)


@given(seed=st.integers(0, 9999), unit=st.sampled_from([1e-4, 1.0, 1e5]), share=st.floats(0.01, 0.99))
@settings(max_examples=25, deadline=None)
def test_the_temperature_gives_the_entropy_that_was_asked_for(seed, unit, share):
    generator = np.random.default_rng(seed)
    q = unit * generator.standard_normal((30, 4))
    avail = (generator.random((30, 4)) < 0.6).astype(np.int64)
    avail[:, :2] = 1
    found = fit_temperature(torch.from_numpy(q), torch.from_numpy(avail), share)
    assert share_by_loops(q, avail, found) == pytest.approx(share, abs=1e-6)
    grid = [share_by_loops(q, avail, found * factor) for factor in (0.1, 0.5, 1.0, 2.0, 10.0)]
    assert grid == sorted(grid)
    assert entropy_share(torch.from_numpy(q), torch.from_numpy(avail), found) == pytest.approx(grid[2], abs=1e-9)


def test_values_that_tell_no_actions_apart_have_no_temperature():
    q, avail = torch.zeros(5, 3), torch.ones(5, 3)
    with pytest.raises(UserError, match=r"too few actions apart: .* at least 1\.00 .* teacher_entropy is 0\.1"):
        fit_temperature(q, avail, 0.1)


def teacher_of(tmp_path, mixer, **changes):
    args = stage_args("kd_export", tmp_path, teacher=str(value_run(tmp_path, mixer, **changes)))
    return frozen_teacher(locate_teacher(args, described(args).task), args)


def q_by_steps(teacher, episodes, row, t):
    """Q of one step of an episode, the network unrolled step by step."""
    agent, hidden = teacher.mac.agent, torch.zeros(AGENTS, 16)
    (_, weight), (_, bias) = teacher._last_layers
    for step in range(t + 1):
        x = torch.cat([episodes.obs[row, step], torch.eye(AGENTS)], -1)
        hidden = agent.rnn(torch.relu(agent.fc1(x)), hidden)
    return (hidden @ weight.T + bias).detach().double().numpy()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("mixer", MIXERS)
def test_values_and_regrets_are_those_of_the_mixer_at_the_greedy_joint_action(tmp_path, mixer, layers):
    if mixer != "qmix" and layers == 1:
        pytest.skip("no mixer with layers")
    teacher = teacher_of(tmp_path, mixer, layers=layers)
    teacher.set_temperature(0.3)
    episodes = batches.from_host(played())
    values, regrets = teacher.values(episodes), teacher.regrets(episodes)

    def team(q, state):
        if mixer == "qmix":
            return numpy_team_value(q, state, teacher.mixer)
        return q.sum()

    for row, length in enumerate(episodes.length.tolist()):
        for t in range(length + 1):
            q = q_by_steps(teacher, episodes, row, t)
            there = episodes.avail_actions[row, t].numpy() > 0
            best = np.array([q[i][there[i]].max() for i in range(AGENTS)])
            state = episodes.state[row, t].double().numpy()
            expected = best if mixer is None else np.full(AGENTS, team(best, state))
            np.testing.assert_allclose(values[row, t], expected, rtol=1e-4, atol=1e-5)
            if t == length or mixer is None:
                continue
            for i in range(AGENTS):
                step = 1e-5 * np.eye(AGENTS)[i]
                weight = (team(best + step, state) - team(best - step, state)) / 2e-5
                expected = weight * (q[i][episodes.actions[row, t, i]] - best[i])
                assert regrets[row, t, i].item() == pytest.approx(expected, rel=1e-3, abs=1e-5)
        assert not regrets[row, length:].any()
    assert (regrets <= 0).all()


def test_acting_greedily_is_what_the_checkpoint_does_and_the_temperature_softens_it(tmp_path):
    teacher = teacher_of(tmp_path, "vdn")
    episodes = batches.from_host(played())
    steps = {"obs": episodes.obs, "state": episodes.state, "actions": episodes.actions}
    q, _ = teacher.label(steps, episodes.length + 1)
    teacher.set_temperature(4.0)
    logits, _ = teacher.label(steps, episodes.length + 1)
    torch.testing.assert_close(4.0 * logits, q)
    assert torch.equal(logits.argmax(-1), q.argmax(-1))


@pytest.fixture(scope="module", params=MIXERS, ids=["qmix", "vdn", "iql"])
def exported(request, tmp_path_factory):
    """A results folder with a teacher and its expert buffer."""
    results = tmp_path_factory.mktemp("values")
    folder = value_run(results, request.param)
    run_stage(stage_args("kd_export", results, teacher=str(folder), expert_buffer=str(results / "buffer")))
    return results, folder, request.param


def test_an_export_plays_the_policy_whose_temperature_its_facts_tell(exported):
    results, folder, _ = exported
    buffer = ExpertBuffer.open(results / "buffer", check=True)
    assert buffer.episodes == 24 and buffer.facts["teacher_entropy"] == 0.1
    (shard, *_) = buffer.shards()
    args = stage_args("kd_export", results, teacher=str(folder))
    teacher = frozen_teacher(locate_teacher(args, described(args).task), args)
    episodes, t = shard_episodes(shard), buffer.facts["teacher_temperature"]
    q = teacher.action_values(episodes)[:, :-1] / t
    taken = episodes.filled.squeeze(-1) > 0
    torch.testing.assert_close(shard["teacher_logits"][taken], q[taken], rtol=1e-4, atol=1e-4)
    log_probs = torch.log_softmax(q.masked_fill(episodes.avail_actions[:, :-1] == 0, -1e10), -1)
    of_taken = log_probs.gather(-1, episodes.actions.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(shard["behaviour_log_prob"][taken], of_taken[taken], rtol=1e-4, atol=1e-4)
    # Not greedy, and near the entropy that it was fitted to in a few other episodes.
    acting = taken.unsqueeze(-1) & (episodes.avail_actions[:, :-1].sum(-1) > 1)
    share = entropy_share(q[acting], episodes.avail_actions[:, :-1][acting], 1.0)
    assert 0.04 < share < 0.25


def test_a_student_learns_from_it_by_shared_advantages_and_by_credit(exported, tmp_path, monkeypatch):
    results, folder, mixer = exported
    given = {"teacher": str(folder)}
    shared = make_learner(results, tmp_path, **given)
    assert shared.teacher.temperature == json.loads((results / "buffer/buffer.json").read_text())["teacher_temperature"]
    if mixer is None:
        with pytest.raises(UserError, match=r"credit needs a mixer, .* has none \(iql\): set advantage=shared"):
            make_learner(results, tmp_path, advantage="credit", **given)
    else:
        own = make_learner(results, tmp_path, advantage="credit", **given)
        team, mine = shared.expert._labels[0], own.expert._labels[0]
        assert torch.equal(team[..., :1].expand_as(team), team) and not torch.equal(team, mine)
        # All agents' regrets can be told from what each one's advantage has gained.
        (shard,) = [torch.cat(part) for part in zip(*[(own.teacher.regrets(shard_episodes(shard)),)
                    for shard in own.expert.buffer.shards()], strict=True)]  # fmt: skip
        torch.testing.assert_close(mine, team - shard.flip(-1))
    monkeypatch.setattr(StudentLearner, "compared", lambda self: None)
    learner = run_stage(student_args(results, tmp_path, **given, advantage="shared" if mixer is None else "credit"))
    (tmp_path / "40").mkdir()
    learner.save_models(str(tmp_path / "40"))
    assert read_checkpoint(tmp_path / "40")["teacher"]["temperature"] == learner.teacher.temperature


def test_credit_is_refused_where_no_mixer_tells_it(results, tmp_path):
    with pytest.raises(UserError, match=r"needs a mixer, .* has none \(cv_critic\): .* give a qmix or vdn teacher"):
        make_learner(results, tmp_path, advantage="credit")


def test_a_buffer_of_another_entropy_is_refused(exported, tmp_path):
    results, folder, _ = exported
    with pytest.raises(UserError, match=r"exported with teacher_entropy=0\.1, this run has 0\.3: set it to that, or"):
        make_learner(results, tmp_path, teacher=str(folder), teacher_entropy=0.3)
    again = {"teacher": str(folder), "expert_buffer": str(results / "buffer"), "resume": True}
    with pytest.raises(UserError, match=r"exported with teacher_entropy=0\.1, this run has 0\.3"):
        run_stage(stage_args("kd_export", tmp_path, teacher_entropy=0.3, **again))


@pytest.mark.parametrize("share", [0, 1, 1.0])
def test_an_entropy_that_no_temperature_gives_is_refused(tmp_path, share):
    args = stage_args("kd_export", tmp_path, teacher_entropy=share)
    with pytest.raises(UserError, match=r"teacher_entropy is .*: expected a share above 0 \(greedy\) and below 1"):
        run_stage(args)


def test_an_unknown_kind_of_advantage_is_refused(results, tmp_path):
    with pytest.raises(UserError, match="advantage is 'mine': choose one of shared, credit"):
        make_learner(results, tmp_path, advantage="mine")


def test_a_mixer_that_lacks_a_layer_is_refused(tmp_path):
    folder = value_run(tmp_path, "qmix")
    state = torch.load(folder / "mixer.th")
    torch.save({name: value for name, value in state.items() if not name.startswith("V.")}, folder / "mixer.th")
    args = stage_args("kd_export", tmp_path, teacher=str(folder))
    with pytest.raises(UserError, match=r"the weights of the teacher in .* \(the mixer lacks 'V\.0\.weight'\)"):
        frozen_teacher(locate_teacher(args, described(args).task), args)
