"""A student that begins with another's weights under a mask that shows other features."""

from __future__ import annotations

import pytest
import torch

from kd_core.checkpoints import fingerprint, read_checkpoint
from kd_core.errors import UserError
from kd_core.files import file_sha256
from tiny_students import make_learner, weights

BEFORE, AFTER = "0: [0, 1, 2], 1: [0, 1, 2, 4]", "0: [1, 3], 1: [2, 4]"
# What dies is what BEFORE shows and AFTER does not.
DEAD = ((0, 0), (0, 2), (1, 0), (1, 1))


def saved(learner, folder):
    folder.mkdir()
    learner.save_models(str(folder))
    return str(folder)


@pytest.fixture
def ancestor(results, tmp_path):
    """Makes a student's checkpoint; returns its folder and its learner."""

    def make(**updates):
        learner = make_learner(results, tmp_path, **{"masks": BEFORE, "own_action": True, "seed": 3, **updates})
        return saved(learner, tmp_path / "40"), learner

    return make


@pytest.mark.parametrize("radio", [{}, {"message_bits": 3}], ids=["silent", "talking"])
def test_it_acts_as_its_ancestor_does_with_dead_sensors(results, tmp_path, ancestor, radio):
    folder, former = ancestor(**radio)
    student = make_learner(results, tmp_path, masks=AFTER, own_action=True, adapt_from=folder, **radio)
    obs, actions, avail = torch.randn(6, 4, 2, 5), torch.randint(3, (6, 4, 2)), torch.ones(6, 4, 2, 3)
    dark = obs.clone()
    for agent, feature in DEAD:
        dark[:, :, agent, feature] = 0.0
    unrolled = [
        learner.mac.unroll(seen, None, actions, learner.mac.radio(avail))[0]
        for learner, seen in ((former, dark), (student, obs))
    ]
    torch.testing.assert_close(*unrolled)
    assert torch.equal(student.student_roles, former.student_roles)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(unrolled[0], former.mac.unroll(obs, None, actions, former.mac.radio(avail))[0])


def test_its_checkpoint_names_its_ancestor_and_goes_on_without_it(results, tmp_path, ancestor):
    folder, _ = ancestor()
    student = make_learner(results, tmp_path, masks=AFTER, own_action=True, adapt_from=folder)
    known = {"path": folder, "sha256": file_sha256(f"{folder}/agent.th")}
    assert read_checkpoint(saved(student, tmp_path / "8"))["ancestor"] == known
    going_on = {"adapt_from": str(tmp_path / "gone"), "checkpoint_path": str(tmp_path)}
    again = make_learner(results, tmp_path, masks=AFTER, own_action=True, **going_on)
    again.load_models(str(tmp_path / "8"))
    assert again.ancestor == known
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(student).items())


@pytest.mark.parametrize(
    ("former", "now", "message"),
    [
        ({"widths": [8, 8]}, {}, r"has the widths \[8, 8\], and this run \[8, 12\]: set widths=\[8, 8\]"),
        ({"message_bits": 2}, {}, "was trained with message_bits=2"),
        (
            {"widths": [8, 8], "sharing": "group", "masks": AFTER},
            {"widths": [8, 8], "sharing": "group", "masks": "0: [1], 1: [1]"},
            "they had two: set sharing=none",
        ),
        ({}, {"agent": "personal_rnn"}, "only agent=rnn begins with another student"),
    ],
)
def test_an_ancestor_that_does_not_fit_is_refused(results, tmp_path, ancestor, former, now, message):
    folder, _ = ancestor(**former)
    with pytest.raises(UserError, match=message):
        make_learner(results, tmp_path, **{"masks": AFTER, "own_action": True, "adapt_from": folder, **now})


def test_what_is_no_students_checkpoint_is_refused(results, tmp_path):
    with pytest.raises(UserError, match="no whole checkpoint"):
        make_learner(results, tmp_path, adapt_from=str(tmp_path))


def test_runs_of_before_the_key_are_still_found():
    former = {"env_args": {}, "limits": "lh"}
    assert fingerprint({**former, "adapt_from": ""}) == fingerprint(former)
    assert fingerprint({**former, "adapt_from": "there"}) != fingerprint(former)
