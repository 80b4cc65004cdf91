"""The unit of a stock teacher's values: read where it was saved, else found from what its critic says."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path

import pytest
import torch

from kd_core.artifacts.expert_buffer import ExpertBuffer
from kd_core.artifacts.teacher import load_teacher
from kd_core.artifacts.teacher_weights import MOMENTS_FILE
from kd_core.errors import UserError
from kd_learners import lost_statistics
from kd_learners.frozen_teacher import FrozenTeacher, Scale
from kd_learners.lost_statistics import Followed
from tiny_stages import AGENTS, STATE, described, run_stage, stage_args
from tiny_students import student_args

GAMMA, MEAN, STD = 0.9, 0.5, 2.0
REWARDS = torch.tensor([-1.0, 0.0, 3.0]).double()
KNOWN = Scale(torch.tensor([MEAN]).double(), torch.tensor([STD]).double())


def drawn(goes_on: float, cut: bool, episodes=4000, steps=12) -> tuple[Followed, torch.Tensor]:
    """Episodes whose states are drawn anew at each step, and each state's exact value of standardised rewards.

    An episode goes on with probability ``goes_on``; if it is ``cut`` by its time limit, the learner adds the value of
    the state after it.
    """
    torch.manual_seed(0)
    reward = (REWARDS - MEAN) / STD
    value = reward + GAMMA * goes_on * reward.mean() / (1.0 - GAMMA * goes_on)
    states = torch.randint(3, (episodes, steps + 1))
    length = torch.full((episodes,), steps)
    if not cut:
        ends = torch.rand(episodes, steps) >= goes_on
        ends[:, -1] = True
        length = ends.int().argmax(1) + 1
    left = (length[:, None] - torch.arange(steps)).clamp(min=0).double()
    filled = (left > 0).double()[..., None]
    ahead = (GAMMA**left)[..., None] * float(cut)
    end = value[states.gather(1, length[:, None])][..., None]
    return Followed(REWARDS[states[:, :-1]][..., None] * filled, value[states[:, :-1]][..., None], end, ahead, filled,
                    torch.full((episodes,), steps), GAMMA), value  # fmt: skip


@pytest.mark.parametrize(("goes_on", "cut"), [(0.6, False), (1.0, True)], ids=["ends for good", "cut by its limit"])
def test_a_critic_that_learnt_tells_the_statistics_of_its_returns(goes_on, cut):
    steps, _ = drawn(goes_on, cut)
    # The same critic, had it been trained on returns of deviation 5 and mean -3.
    out = {name: (getattr(steps, name) + 3.0) / 5.0 for name in ("value", "end")}
    value, error = lost_statistics.value_statistics(Followed(**{**vars(steps), **out}), KNOWN)
    assert error < 0.05
    assert float(value.std) == pytest.approx(5.0, rel=4 * error)
    assert float(value.mean) == pytest.approx(-3.0, abs=0.3)


@pytest.mark.parametrize("says", [torch.randn, torch.ones], ids=["anything", "always the same"])
def test_where_the_critic_tells_nothing_statistics_are_counted_as_the_host_counts_them(says):
    steps, _ = drawn(0.6, False)
    noise = Followed(**{**vars(steps), "value": says(steps.value.shape).double()})
    reward = lost_statistics.counted(noise.reward * noise.filled, noise.rows)
    # Rows of padding are rows: 12 of each episode.
    padded = steps.reward.flatten()
    assert len(padded) == 4000 * 12
    assert (float(reward.mean), float(reward.std)) == pytest.approx((float(padded.mean()), float(padded.std())))
    value, error = lost_statistics.value_statistics(noise, reward)
    returns = noise.returns(reward, value)[steps.filled > 0]
    assert error is None
    assert float(value.mean) == pytest.approx(float(returns.sum() / len(padded)))


# ------------------------------------------------------------------------------- what the bundled runtime's runs leave
def trained(folder: Path, algorithm: str, t_max=60, **updates):
    """A stock run on the toy task: its learner, and its checkpoint with the `config.json` of its record."""
    args = stage_args(algorithm, folder / algorithm, t_max=t_max, **updates)
    config = {key: value for key, value in vars(args).items() if key != "env_args"}
    learner = run_stage(args)
    learner.save_models(str(folder / algorithm / "7"))
    record = {**config, "env_args": {"key": args.map_name}, "env": "tiny_signals"}
    (folder / "config.json").write_text(json.dumps(record, default=str))
    return learner, folder / algorithm / "7"


def frozen(teacher_folder: Path, results: Path) -> FrozenTeacher:
    args = stage_args("kd_export", results)
    described(args)
    config = teacher_folder.parents[1] / "config.json"
    return FrozenTeacher(load_teacher(teacher_folder, config=config, n_agents=AGENTS), args)


def distilled(folder: Path, teacher: Path, caplog) -> tuple[FrozenTeacher, str]:
    """Export and distil; the student's teacher, and what was said of its statistics."""
    given = {"teacher": str(teacher), "teacher_config": str(folder / "config.json")}
    buffer = str(folder / "buffer")
    run_stage(stage_args("kd_export", folder, expert_buffer=buffer, **given))
    with caplog.at_level(logging.WARNING):
        student = run_stage(student_args(folder, folder, **given, expert_buffer=buffer, distill_on="expert"))
    assert all(value.isfinite().all() for value in student.mac.agent.state_dict().values())
    return student.teacher, "\n".join(line for line in caplog.messages if line.startswith("Statistics of the teacher"))


class Steps(dict):
    """Fields of 3 episodes of 4 steps, with the sizes that EPyMARL's critics ask for."""

    batch_size, max_seq_length, device = 3, 4, "cpu"


@pytest.mark.parametrize("algorithm", ["mappo", "mappo_ns", "ippo_ns"])
def test_a_stock_teacher_is_distilled_in_the_unit_that_its_run_saved(tmp_path, caplog, algorithm):
    learner, folder = trained(tmp_path, algorithm, standardise_returns=True)
    teacher, said = distilled(tmp_path, folder, caplog)
    assert said == ""
    for scale, moments in ((teacher.reward_scale, learner.rew_ms), (teacher.value_scale, learner.ret_ms)):
        torch.testing.assert_close(scale.mean, moments.mean)
        torch.testing.assert_close(scale.std, moments.var.sqrt())
    # The network is each agent's own, and says what the host's says.
    inputs = torch.randn(6, AGENTS, teacher.sizes.input_size)
    logits, _ = teacher.mac.unroll_inputs(inputs.unsqueeze(1))
    hidden = torch.zeros(6, AGENTS, teacher.sizes.hidden_dim)
    expected, _ = learner.mac.agent(inputs.flatten(0, 1), hidden)
    torch.testing.assert_close(logits[:, 0].flatten(0, 1), expected)
    steps = {"state": torch.randn(3, 4, STATE), "obs": torch.randn(3, 4, AGENTS, teacher.sizes.obs_size)}
    values = learner.critic(Steps(steps)).squeeze(-1)
    from kd_learners.central_critic import evaluate

    torch.testing.assert_close(evaluate(teacher.critic, teacher.critic_sizes.inputs(steps)), values)
    assert not any(parameter.requires_grad for parameter in teacher.critic.parameters())


def test_without_the_file_they_are_estimated_and_that_is_said(tmp_path, caplog):
    _, folder = trained(tmp_path, "mappo_ns", standardise_returns=True)
    (folder / MOMENTS_FILE).unlink()
    teacher, said = distilled(tmp_path, folder, caplog)
    assert any("no reward and value statistics: they will be estimated" in line for line in caplog.messages)
    assert re.search(r"estimated from 24 episodes: rewards mean .*; returns mean .* standard deviations", said)
    assert teacher.value_scale.std.shape == (AGENTS,) and (teacher.value_scale.std > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("standardised", [True, False], ids=["returns too", "rewards"])
def test_the_estimate_is_near_what_the_run_counted(tmp_path, standardised):
    learnt = {"lr": 0.005, "epochs": 1, "runner": "episode", "batch_size_run": 1}
    _, folder = trained(tmp_path, "mappo", t_max=3000, standardise_returns=standardised, **learnt)
    counted = frozen(folder, tmp_path)
    (folder / MOMENTS_FILE).unlink()
    given = {"teacher": str(folder), "teacher_config": str(tmp_path / "config.json"), "buffer_episodes": 400}
    run_stage(stage_args("kd_export", tmp_path, expert_buffer=str(tmp_path / "buffer"), **given))
    teacher = frozen(folder, tmp_path)
    lost_statistics.estimate(teacher, ExpertBuffer.open(tmp_path / "buffer"))
    torch.testing.assert_close(teacher.reward_scale.std, counted.reward_scale.std, rtol=0.15, atol=0.0)
    if standardised:
        bias, counted_bias = (mean_above(one, tmp_path / "buffer") for one in (teacher, counted))
        assert bias < 0.1 < counted_bias


def mean_above(teacher: FrozenTeacher, folder: Path) -> float:
    """How far a teacher's values lie from the returns that followed on the mean, in deviations of these returns."""
    steps = lost_statistics.followed(teacher, ExpertBuffer.open(folder))
    returns = steps.returns(teacher.reward_scale.to(torch.float64), Scale(torch.zeros(1), torch.ones(1)))
    taken = steps.filled.expand_as(returns) > 0
    return abs(float((steps.value - returns)[taken].mean() / returns[taken].std()))


def test_statistics_that_cannot_be_read_are_one_line(tmp_path):
    _, folder = trained(tmp_path, "mappo", t_max=1)
    (folder / MOMENTS_FILE).write_bytes(b"cut")
    with pytest.raises(UserError, match=rf"{MOMENTS_FILE} is damaged: copy it again, or remove it"):
        load_teacher(folder, config=tmp_path / "config.json", n_agents=AGENTS)


@pytest.mark.skipif("EPYMARL_HOME" in os.environ, reason="EPyMARL begins its statistics anew")
def test_a_bundled_run_goes_on_with_its_statistics(tmp_path):
    learner, folder = trained(tmp_path, "mappo", standardise_returns=True)
    args = stage_args(
        "mappo", tmp_path / "again", standardise_returns=True, checkpoint_path=str(folder.parent), t_max=1
    )
    # It has taken its steps, so it only loads.
    again = run_stage(args)
    for name in ("rew_ms", "ret_ms"):
        saved, loaded = (vars(getattr(one, name)) for one in (learner, again))
        assert saved["count"] == loaded["count"] > 1.0
        assert torch.equal(saved["mean"], loaded["mean"]) and torch.equal(saved["var"], loaded["var"])
