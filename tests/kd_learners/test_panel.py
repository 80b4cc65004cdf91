"""Several teachers that label one student's episodes, each in its own unit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from kd_core.artifacts.teacher import read_facts, save_teacher, weights_sha256
from kd_core.checkpoints import fingerprint, read_checkpoint
from kd_core.errors import UserError
from kd_core.stages import several
from kd_learners import objective
from kd_learners.panel import Line
from kd_learners.student_learner import StudentLearner
from tiny_stages import TASK, run_stage, stage_args, teacher_facts
from tiny_students import make_learner, networks, same, student_args, weights


@pytest.fixture(scope="module")
def places(results, tmp_path_factory):
    """A results folder with the expert buffers of two teachers, the second one narrower and of another discount."""
    folder = tmp_path_factory.mktemp("two")
    agent, critic = networks(hidden_dim=8, seed=9)
    facts = teacher_facts(hidden_dim=8, gamma=0.5)
    save_teacher(folder / "second", agent.state_dict(), critic.state_dict(), facts)
    shutil.copytree(results / "teacher", folder / "first")
    for name in ("first", "second"):
        buffer = folder / "buffers" / TASK / weights_sha256(folder / name)[:12]
        run_stage(stage_args("kd_export", folder, teacher=str(folder / name), expert_buffer=str(buffer)))
    return folder


def two(places, **updates):
    """What makes a tiny student's run one with both teachers."""
    names = [str(places / name) for name in ("first", "second")]
    return {"teachers": names, "teacher": "", "expert_buffer": "", **updates}


@pytest.mark.parametrize("distill_on", ["expert", "student", "mixed"])
def test_a_student_learns_from_both_and_goes_on_where_it_stopped(results, places, tmp_path, distill_on, monkeypatch):
    monkeypatch.setattr(StudentLearner, "compared", lambda self: None)
    seen = []
    terms = objective.terms

    def watched(batch, *rest):
        seen.append(batch.labelled_by)
        return terms(batch, *rest)

    monkeypatch.setattr(objective, "terms", watched)
    given = two(places, distill_on=distill_on, teacher_rule="weight")
    learner = run_stage(student_args(results, places, **given))
    assert set(torch.cat(seen).tolist()) == {0, 1}
    assert len(learner.student_roles) == 2 * learner.n_roles
    assert all(value.isfinite().all() for value in weights(learner).values())
    (tmp_path / "40").mkdir()
    learner.save_models(str(tmp_path / "40"))
    second = read_checkpoint(tmp_path / "40")["more_teachers"]
    assert [facts["sha256"] for facts in second] == [read_facts(places / "second")["sha256"]]
    again = make_learner(results, places, **given)
    again.load_models(str(tmp_path / "40"))
    assert same(weights(learner), weights(again))
    alone = make_learner(results, tmp_path)
    with pytest.raises(UserError, match="learnt from other teachers"):
        alone.load_models(str(tmp_path / "40"))


@pytest.fixture
def labelled(results, places, tmp_path):
    """Both teachers' labels of the same episodes, and what the panel makes of them."""
    from kd_learners.expert_data import VALUE_KEYS, shard_episodes

    learner = make_learner(results, places, **two(places))
    shard = next(iter(learner.labeller.labellers and learner.expert.parts[0].buffer.shards(VALUE_KEYS)))
    episodes = shard_episodes(shard)
    log_prob, seen = torch.zeros(episodes.actions.shape), episodes.obs[:, :-1]

    def label(**changes):
        return replace(learner.labeller, **changes)(episodes, log_prob, seen)

    return label, [labeller(episodes, log_prob, seen) for labeller in learner.labeller.labellers], learner


def test_a_weight_of_all_is_that_teachers_own_labels(labelled):
    label, alone, _ = labelled
    for number, weights_ in ((0, (1.0, 0.0)), (1, (0.0, 1.0))):
        found = label(rule="weight", weights=weights_)
        assert (found.labelled_by == number).all()
        for name in ("teacher_logits", "teacher_cosines", "teacher_log_roles", "advantage", "length", "actions"):
            assert torch.equal(getattr(found, name), getattr(alone[number], name)), name
    assert not torch.equal(alone[0].teacher_logits, alone[1].teacher_logits)


def test_an_episode_that_is_drawn_has_one_teacher(labelled):
    found = labelled[0](rule="weight", weights=(0.5, 0.5))
    by_episode = found.labelled_by.split(found.length.tolist())
    assert all(len(teachers.unique()) == 1 for teachers in by_episode)
    assert {int(teachers[0]) for teachers in by_episode} == {0, 1}


def test_by_value_a_step_has_the_teacher_that_expects_most(labelled):
    label, alone, learner = labelled
    high, low = Line(0.0, 1.0), Line(0.0, 0.0)
    assert (label(lines=(high, low)).labelled_by == 0).all() and (label(lines=(low, high)).labelled_by == 1).all()
    mixed = label()
    chosen = mixed.labelled_by
    assert set(chosen.tolist()) == {0, 1}
    both = torch.stack([part.teacher_logits for part in alone])
    assert torch.equal(mixed.teacher_logits, both[chosen, torch.arange(len(chosen))])
    # Critics tell these returns apart badly, but each line goes through the means of what its teacher had.
    assert all(abs(line.offset) < 10 for line in learner.labeller.lines)


def test_each_teachers_advantages_keep_their_own_unit(labelled):
    batch = labelled[0](rule="weight", weights=(0.5, 0.5))
    scaled = replace(batch, advantage=torch.where(batch.labelled_by.unsqueeze(-1) == 1, 7.0, 1.0) * batch.advantage)
    torch.testing.assert_close(objective.standardised(batch), objective.standardised(scaled))
    for number in (0, 1):
        mine = batch.acting * (batch.labelled_by == number).unsqueeze(-1) > 0
        own = objective.standardised(batch)[mine]
        assert abs(float(own.mean())) < 1e-5 and float(own.std(unbiased=False)) == pytest.approx(1.0, abs=1e-4)


def test_each_teachers_roles_are_compared_with_those_of_the_student_that_belong_to_it(labelled):
    label, alone, learner = labelled
    embedding = torch.randn(len(alone[0].obs), 2, learner.mac.agent.max_width)
    blocks = learner.student_roles.detach().unflatten(0, (2, -1))
    for number, weights_ in ((0, (1.0, 0.0)), (1, (0.0, 1.0))):
        batch = label(rule="weight", weights=weights_)
        logits = torch.zeros_like(batch.teacher_logits)
        settings = learner.objective
        both = objective.terms(batch, logits, embedding, learner.student_roles.detach(), settings)
        one = objective.terms(replace(batch, labelled_by=None), logits, embedding, blocks[number], settings)
        for name, value in both.items():
            torch.testing.assert_close(value, one[name], msg=name)


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"teacher_rule": "vote"}, "teacher_rule is 'vote': choose one of value, weight"),
        ({"teacher_weights": [1.0]}, r"expected 2 numbers of at least 0"),
        ({"teacher_weights": [0, 0]}, r"one of them above 0"),
        ({"teacher": "first"}, "teacher is for a run with one teacher: leave it out, teachers has 2"),
        ({"feature_coef": 1.0}, "set feature_coef=0"),
        ({"teachers": ["a", "a"]}, "name at least two different ones"),
        ({"teachers": [1, 2]}, "expected a list of folders"),
    ],
)
def test_what_several_teachers_cannot_do_is_one_line(results, places, tmp_path, updates, message):
    with pytest.raises(UserError, match=message):
        make_learner(results, places, **{**two(places), **updates})


@pytest.mark.parametrize("given", ["a,b", "[a, 'b']", ["a", "b"], ("a", "b")])
def test_teachers_are_a_list_or_text(given):
    assert several(SimpleNamespace(teachers=given)) == ["a", "b"]
    assert several(SimpleNamespace(teachers=None)) == several(SimpleNamespace()) == []


def test_teachers_of_different_action_counts_are_refused(results, places, tmp_path):
    agent, critic = networks()
    wide = {**agent.state_dict(), "fc2.weight": torch.zeros(4, 16), "fc2.bias": torch.zeros(4)}
    save_teacher(tmp_path / "four", wide, critic.state_dict(), teacher_facts(n_actions=4))
    names = [str(places / "first"), str(tmp_path / "four")]
    with pytest.raises(UserError, match=r"choose among the same actions: .*first has 3 and .*four 4"):
        make_learner(results, places, **two(places, teachers=names))


def test_runs_of_before_the_keys_are_still_found():
    former = {"env_args": {}, "limits": "lh"}
    assert fingerprint({**former, "teachers": None, "teacher_rule": "value", "teacher_weights": None}) == fingerprint(
        former
    )
