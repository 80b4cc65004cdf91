"""Stage 2 with students that talk: episodes end early, an agent dies, messages are lost."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from kd_core.errors import UserError
from kd_learners.losses import action_log_prob, masked_log_softmax
from kd_learners.student_learner import StudentLearner
from tiny_stages import run_stage
from tiny_students import make_learner, same, student_args, weights

TALK = {"message_bits": 4, "message_number_bits": 2, "message_loss": 0.25}


@pytest.mark.parametrize("distill_on", ["expert", "student", "mixed"])
def test_students_learn_to_talk_whatever_they_learn_from(results, tmp_path, distill_on, monkeypatch):
    monkeypatch.setattr(StudentLearner, "compared", lambda self: None)
    learner = run_stage(student_args(results, tmp_path, distill_on=distill_on, **TALK))
    torch.manual_seed(learner.args.seed)
    fresh = weights(make_learner(results, tmp_path, **TALK))
    for name, value in weights(learner).items():
        assert not torch.equal(value, fresh[name]), f"{name} did not change"
    assert all(np.isfinite(value) for _, value in learner.logger.stats["loss"])
    again = run_stage(student_args(results, tmp_path / "again", distill_on=distill_on, **TALK))
    assert same(weights(learner), weights(again))


def test_labels_have_the_log_probabilities_and_the_lost_messages_of_the_play(results, tmp_path, monkeypatch):
    monkeypatch.setattr(StudentLearner, "compared", lambda self: None)
    seen, lost = [], []
    add = StudentLearner._add_recent

    def remembered(self, episodes):
        add(self, episodes)
        block = self.recent._blocks[-1]
        logits, _ = self.mac.agent.unroll_packed(block.obs, block.length, block.radio)
        packed = action_log_prob(masked_log_softmax(logits, block.avail), block.actions)
        seen.append((packed - block.behaviour_log_prob).abs()[block.acting > 0].max().item())
        lost.append(1 - block.delivered.float().mean().item())

    monkeypatch.setattr(StudentLearner, "_add_recent", remembered)
    learner = run_stage(student_args(results, tmp_path, message_bits=3, message_loss=0.5))
    assert len(seen) > 3 and max(seen) < 1e-5
    assert np.mean(lost) == pytest.approx(0.5, abs=0.1)
    assert len(learner.recent) > 0


def test_training_loses_messages_and_a_test_loses_none(results, tmp_path):
    learner = make_learner(results, tmp_path, message_bits=3, message_loss=0.5)
    mac = learner.mac
    batch = {
        "obs": torch.randn(6, 4, 2, 5),
        "avail_actions": torch.ones(6, 4, 2, 3),
        "actions": torch.zeros(6, 4, 2, 1),
    }
    for test_mode in (False, True):
        mac.init_hidden(6)
        for t in range(3):
            mac.forward(batch, t, test_mode=test_mode)
        radio = mac.radio(batch["avail_actions"][:, :3])
        assert (radio.delivered is None) == test_mode
    mac.test_loss = 0.5
    mac.init_hidden(6)
    mac.forward(batch, 0, test_mode=True)
    assert mac.radio(batch["avail_actions"][:, :1]).delivered.shape == (6, 1, 2, 2)


def test_a_resumed_talker_takes_the_very_next_step_and_another_radio_is_refused(results, tmp_path):
    learner = make_learner(results, tmp_path, distill_on="expert", **TALK)
    for _ in range(3):
        learner._update(learner._minibatch(), with_diagnostics=False)
    (tmp_path / "12").mkdir()
    learner.save_models(str(tmp_path / "12"))
    assert json.loads((tmp_path / "12" / "checkpoint.json").read_text())["messages"]["bits"] == 4
    other = make_learner(results, tmp_path, distill_on="expert", **TALK)
    other.load_models(str(tmp_path / "12"))
    for each in (learner, other):
        each._update(each._minibatch(), with_diagnostics=False)
    assert same(weights(learner), weights(other))
    signs = {"message_bits": 4}, "message_bits=4, message_number_bits=1"
    for radio, named in (({}, "message_bits=0"), ({"message_bits": 5}, "message_bits=5"), signs):
        silent = make_learner(results, tmp_path, distill_on="expert", **radio)
        with pytest.raises(
            UserError, match=f"was trained with message_bits=4, message_number_bits=2, .*, not with {named}"
        ):
            silent.load_models(str(tmp_path / "12"))


def test_a_comparator_that_talks_is_refused(results, tmp_path):
    with pytest.raises(UserError, match="only agent=rnn talks"):
        make_learner(results, tmp_path, message_bits=3, agent="attention_rnn")
