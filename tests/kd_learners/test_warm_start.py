"""A teacher's training that begins with another teacher: its networks, its unit of value, its steps and its time."""

from __future__ import annotations

import pytest
import torch

from kd_core import files
from kd_core.artifacts.teacher import FACTS_FILE, load_teacher, read_facts
from kd_core.errors import UserError
from tiny_teachers import make_learner, played


@pytest.fixture
def first(tmp_path):
    """A teacher's folder, and the learner that wrote it."""
    torch.manual_seed(1)
    learner = make_learner(tmp_path / "first")
    learner.args.command = "python src/main.py first"
    learner.logger.log_stat("test_return_mean", 2.0, 4)
    learner.train(played(), t_env=40, episode_num=0)
    learner.save_models(str(tmp_path / "40"))
    return tmp_path / "40", learner


def test_it_has_the_first_teachers_networks_and_unit_of_value(first, tmp_path):
    folder, one = first
    two = make_learner(tmp_path, begin_with=str(folder))
    for mine, its in ((two.mac.agent, one.mac.agent), (two.critic, one.critic)):
        assert all(torch.equal(mine.state_dict()[name], value) for name, value in its.state_dict().items())
    assert (two.returns.mean, two.returns.std) == pytest.approx((one.returns.mean, one.returns.std))
    # Forty steps of two agents: new returns move it as slowly as they would have moved the first one's.
    assert two.returns.count == 80.0


def test_the_first_teachers_steps_time_and_tests_count_as_its_own(first, tmp_path):
    folder, _ = first
    learner = make_learner(tmp_path, begin_with=str(folder))
    learner.logger.log_stat("test_return_mean", 3.0, 8)
    learner.train(played(), t_env=10, episode_num=0)
    learner.finish()
    facts, before = learner.facts(), read_facts(folder)
    assert (facts["steps"], facts["best_test_step"]) == (50, 48)
    assert facts["tests"] == [[4, 2.0], [48, 3.0]]
    assert facts["train_seconds"] >= before["train_seconds"]
    assert facts["begun_with"] == {
        "sha256": before["sha256"],
        "command": "python src/main.py first",
        "begun_with": None,
    }


def test_it_goes_on_from_a_checkpoint_as_if_never_stopped(first, tmp_path):
    folder, _ = first
    learner = make_learner(tmp_path, begin_with=str(folder))
    learner.logger.log_stat("test_return_mean", 3.0, 8)
    learner.train(played(), t_env=10, episode_num=0)
    learner.save_models(str(tmp_path / "10"))
    other = make_learner(tmp_path, begin_with=str(folder))
    other.load_models(str(tmp_path / "10"))
    assert other.steps == 10
    for each in (learner, other):
        torch.manual_seed(9)
        each.train(played(seed=1), t_env=20, episode_num=0)
        assert each.facts()["steps"] == 60
        assert each.facts()["tests"] == [[4, 2.0], [48, 3.0]]
    for ours, theirs in zip(learner.mac.parameters(), other.mac.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_teacher_that_began_with_nobody_says_so(first):
    facts = load_teacher(first[0]).facts
    assert facts["begun_with"] is None
    assert facts["steps"] == 40


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"hidden_dim": 8}, "that teacher has hidden_dim 16, this run 8: set the run's keys as that teacher's command"),
        ({"obs_individual_obs": True}, "that teacher has obs_individual_obs False, this run True"),
        ({"obs_agent_id": False}, "that teacher has obs_agent_id True, this run False"),
    ],
)
def test_a_teacher_with_other_networks_is_refused_in_one_line(first, tmp_path, updates, message):
    with pytest.raises(UserError, match=message):
        make_learner(tmp_path, begin_with=str(first[0]), **updates)


def test_a_teacher_that_is_not_there_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no teacher at .*nowhere: there is no such folder"):
        make_learner(tmp_path, begin_with=str(tmp_path / "nowhere"))


def test_a_critic_whose_unit_is_unknown_is_refused_in_one_line(first, tmp_path):
    folder, _ = first
    facts = read_facts(folder)
    files.write_json(folder / FACTS_FILE, {**facts, "normalisers": {"reward": None, "value": None}})
    with pytest.raises(UserError, match="nothing tells the unit of that critic's values"):
        make_learner(tmp_path, begin_with=str(folder))
