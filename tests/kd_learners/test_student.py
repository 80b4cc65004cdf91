"""Stage 2: whole short runs, a teacher of EPyMARL, and what is refused before anything is made."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest
import torch

from kd_core.artifacts.expert_buffer import ExpertBuffer
from kd_core.errors import UserError
from kd_core.files import file_sha256
from kd_learners.student_learner import StudentLearner
from tiny_stages import OBS, STATE, TASK, run_stage
from tiny_students import make_learner, same, student_args, weights


# --------------------------------------------------------------------------------------------------- whole short runs
@pytest.mark.parametrize("distill_on", ["expert", "student", "mixed"])
def test_training_changes_the_students_and_not_one_bit_of_the_teacher(results, tmp_path, distill_on, monkeypatch):
    monkeypatch.setattr(StudentLearner, "compared", lambda self: None)
    files = [results / "teacher" / name for name in ("agent.th", "critic.th", "teacher.json")]
    hashes = [file_sha256(file) for file in files]
    learner = run_stage(student_args(results, tmp_path, distill_on=distill_on))
    artifact = learner.teacher.artifact
    assert same(artifact.agent_state, learner.teacher.mac.agent.state_dict())
    assert same(artifact.critic_state, learner.teacher.critic.state_dict())
    for network in (learner.teacher.mac.agent, learner.teacher.critic):
        assert not network.training
        assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert [file_sha256(file) for file in files] == hashes
    torch.manual_seed(learner.args.seed)
    fresh = make_learner(results, tmp_path)
    assert learner.updates >= 8
    for name, value in weights(learner).items():
        assert not torch.equal(value, weights(fresh)[name]), f"{name} did not change"
    assert (len(learner.recent) > 0) == (distill_on != "expert")
    for name in ("loss", "ppo", "kl", "ce", "structure", "role", "entropy", "clip_fraction", "effective_sample_size"):
        assert all(np.isfinite(value) for _, value in learner.logger.stats[name])


@pytest.mark.parametrize("preset", ["paper", "random"])
def test_the_same_seed_makes_the_same_students_bit_for_bit(results, tmp_path, preset, monkeypatch):
    monkeypatch.setattr(StudentLearner, "compared", lambda self: None)
    limits = {"limits": "lh", "masks": "", "masks_preset": "random"} if preset == "random" else {}
    first, again, other = (
        weights(run_stage(student_args(results, tmp_path / name, seed=seed, distill_on="mixed", **limits)))
        for name, seed in (("first", 4), ("again", 4), ("other", 5))
    )
    assert same(first, again)
    assert not same(first, other)


# The distillation terms to the end, so that the student's own advantages do not take over.
IMITATE = {"distillation_final_share": 1.0}


@pytest.mark.parametrize("distill_on", ["expert", "student", "mixed"])
def test_students_come_to_agree_with_the_teacher_whatever_they_learn_from(results, tmp_path, distill_on, monkeypatch):
    monkeypatch.setattr(StudentLearner, "compared", lambda self: None)
    args = student_args(results, tmp_path, distill_on=distill_on, masks="", widths=16, t_max=300, lr=0.01, **IMITATE)
    stats = run_stage(args).logger.stats
    before, after = (np.mean([value for _, value in stats["kl"][part]]) for part in (slice(0, 1), slice(-5, None)))
    assert after < 0.3 * before
    assert np.mean([value for _, value in stats["agreement"][-5:]]) > 0.85


@pytest.mark.parametrize(("decay", "half_way"), [("linear", 0.6), ("geometric", 0.2**0.5)])
def test_the_weights_of_distillation_fall_and_the_others_stay(results, tmp_path, decay, half_way):
    settings = {"distillation_final_share": 0.2, "lr_final_share": 0.2, "decay": decay, "t_max": 1000}
    learner = make_learner(results, tmp_path, distill_on="expert", **settings)
    falling = ("kl_coef", "ce_coef", "structure_coef", "role_coef")
    full = {name: getattr(learner.objective, name) for name in (*falling, "ppo_coef", "entropy_coef")}
    for t_env, share in ((0, 1.0), (500, half_way), (1000, 0.2), (1025, 0.2)):
        learner.train(None, t_env, 0)
        assert learner.optimiser.param_groups[0]["lr"] == pytest.approx(share * learner.settings.lr)
        for name, value in full.items():
            expected = value * share if name in falling else value
            assert getattr(learner.weights, name) == pytest.approx(expected)


def test_a_resumed_learner_takes_the_very_next_step(results, tmp_path):
    learner = make_learner(results, tmp_path, distill_on="expert")
    for _ in range(3):
        learner._update(learner._minibatch(), with_diagnostics=False)
    learner.t_env = 12
    torch.rand(5)  # the students' play draws from this generator
    (tmp_path / "12").mkdir()
    learner.save_models(str(tmp_path / "12"))
    drawn_next = torch.rand(3)
    other = make_learner(results, tmp_path, distill_on="expert")
    other.load_models(str(tmp_path / "12"))
    assert (other.updates, other.t_env) == (3, 12)
    assert torch.equal(torch.rand(3), drawn_next)
    for each in (learner, other):
        each._update(each._minibatch(), with_diagnostics=False)
    assert same(weights(learner), weights(other))


# ------------------------------------------------------------------------------------------------- a teacher of EPyMARL
def foreign_teacher(results, folder, **changes):
    """What EPyMARL's mappo leaves behind: weights, here the toy teacher's, and a Sacred config."""
    folder.mkdir()
    for name in ("agent.th", "critic.th"):
        shutil.copy(results / "teacher" / name, folder / name)
    config = {
        "name": "mappo",
        "seed": 3,
        "env_args": {"key": TASK},
        "agent": "rnn",
        "critic_type": "cv_critic",
        "gamma": 0.9,
        "use_rnn": True,
        "obs_agent_id": True,
        "obs_last_action": False,
        "obs_individual_obs": False,
        "standardise_rewards": True,
        "standardise_returns": False,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return {"teacher": str(folder), "teacher_config": str(folder / "config.json")}


def test_a_foreign_teachers_reward_statistics_are_estimated_with_a_warning(results, tmp_path, caplog):
    """The toy teacher's critic is untrained, so rewards are counted as the host counts them: padding is rows too."""
    given = foreign_teacher(results, tmp_path / "mappo", batch_size=4)
    with caplog.at_level(logging.WARNING):
        learner = make_learner(results, tmp_path, distill_on="expert", **given)
    assert any("has no reward statistics: they will be estimated" in line for line in caplog.messages)
    assert any("rewards mean" in line and "counted over its last policy alone" in line for line in caplog.messages)
    data = ExpertBuffer.open(results / "buffer").gather(range(24), ("reward", "length"))
    length = data["length"].tolist()
    rows = [data["reward"][e, : max(length[e - e % 4 : e - e % 4 + 4]), 0] for e in range(24)]
    rewards = np.concatenate(rows)
    scale = learner.teacher.reward_scale
    assert float(scale.mean) == pytest.approx(rewards.mean(), abs=1e-6)
    assert float(scale.std) == pytest.approx(rewards.std(ddof=1), abs=1e-6)
    assert (float(learner.teacher.value_scale.mean), float(learner.teacher.value_scale.std)) == (0.0, 1.0)
    learner._update(learner._minibatch(), with_diagnostics=False)


# ------------------------------------------------------------------------------------------------------- the settings
SEES_STATE = "python src/main.py --config=kd_student --env-config=signals with teacher_input=state"


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"distill_on": "both"}, "distill_on is 'both': choose one of expert, student, mixed"),
        ({"student_share": 1.5}, "student_share is 1.5: expected a number from 0 to 1"),
        ({"ce_target": "soft-ish"}, "ce_target is 'soft-ish': choose one of hard, soft"),
        ({"decay": "cosine"}, "decay is 'cosine': choose one of linear, geometric"),
        ({"decay": "geometric", "lr_final_share": 0.0}, "decay=geometric never reaches 0"),
        ({"widths": [8, 8, 8]}, "widths has 3 numbers, but toy-signals-v0 has 2 agents"),
        ({"sharing": "some"}, "sharing is 'some'"),
        ({"mask_at": "environment"}, "needs mac=hetero_mac and mask_at=controller"),
        ({"batch_size": 2}, "set batch_size, buffer_size and batch_size_run to the same number"),
        ({"gamma": "x"}, "gamma is 'x': expected a number from 0 to 1 or null"),
        ({"ppo_coef": float("nan")}, "ppo_coef is nan: expected a number of at least 0"),
        ({"role_init": "random"}, "role_init is 'random': choose one of kmeans, orthogonal"),
        ({"buffer_episodes": 0}, "buffer_episodes is 0: expected a whole number of at least 1"),
        ({"hidden_dim": -1, "widths": None}, "hidden_dim is -1: expected a number of units of at least 1"),
        ({"action_selector": "epsilon_greedy"}, "samples its actions from a policy: set action_selector=soft_policies"),
        ({"distill_on": "mixed", "student_share": 0.05}, "student_share=0.05 of minibatch_episodes=8 is, rounded, 0"),
        ({"command": SEES_STATE, "teacher_input": "state"}, "teacher_input is state, and the teacher in .* sees obs"),
        ({"reward_scalarisation": "mean"}, "reward_scalarisation=sum, this run has mean.* or ppo_coef=0"),
    ],
)
def test_an_impossible_setting_is_one_line_before_anything_is_made(results, tmp_path, updates, message):
    with pytest.raises(UserError, match=message) as caught:
        make_learner(results, tmp_path, **updates)
    assert "\n" not in str(caught.value)


def test_rewards_of_another_unit_do_no_harm_without_ppo(results, tmp_path):
    teacher = {"expert_buffer": str(tmp_path / "buffer"), "reward_scalarisation": "mean"}
    shutil.copytree(results / "buffer", tmp_path / "buffer")
    facts = json.loads((tmp_path / "buffer" / "buffer.json").read_text())
    (tmp_path / "buffer" / "buffer.json").write_text(json.dumps({**facts, "reward_scalarisation": "mean"}))
    make_learner(results, tmp_path, ppo_coef=0.0, **teacher)
    with pytest.raises(UserError, match="reward_scalarisation=sum, this run has mean"):
        make_learner(results, tmp_path, **teacher)


def test_a_buffer_without_episodes_is_refused(results, tmp_path):
    shutil.copytree(results / "buffer", tmp_path / "buffer")
    for shard in (tmp_path / "buffer").glob("shard-*"):
        shard.unlink()
    file = tmp_path / "buffer" / "buffer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "shards": [], "episodes": 0, "steps": 0}))
    with pytest.raises(UserError, match="holds no episode yet: finish it with --config=kd_export, resume=True"):
        make_learner(results, tmp_path, expert_buffer=str(tmp_path / "buffer"))


def test_an_evaluation_reads_only_what_plays(results, tmp_path):
    learner = make_learner(results, tmp_path)
    learner.t_env = 7
    learner.save_models(str(tmp_path))
    (tmp_path / "training.th").unlink()
    other = make_learner(results, tmp_path, evaluate=True, lr=0.5, feature_coef=1.0)
    other.load_models(str(tmp_path))
    assert other.t_env == 7 and same(learner.mac.agent.state_dict(), other.mac.agent.state_dict())
    file = tmp_path / "checkpoint.json"
    facts = json.loads(file.read_text())
    del facts["mask"]
    file.write_text(json.dumps(facts))
    with pytest.raises(UserError, match="is no student's: give the folder of a run of kd_student"):
        other.load_models(str(tmp_path))


def test_the_state_is_what_the_toy_task_says(learner):
    assert (learner.teacher.sizes.obs_size, learner.teacher.sizes.state_size) == (OBS, STATE)
