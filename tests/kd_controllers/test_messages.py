"""A team's radio: what the keys give, who is silent, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from kd_controllers.messages import Messages, check_same_radio, draw_delivered, read_messages
from kd_controllers.student_registry import check_agent
from kd_core.errors import UserError

NAMES = ("red", "green", "blue")


def keys(**given):
    silent = {"message_bits": 4, "message_to": "all", "message_latency": 1, "message_loss": 0.0, "message_every": 1}
    return SimpleNamespace(**{**silent, **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"message_bits": -1}, "message_bits is -1: expected a whole number of bits of at least 0"),
        ({"message_bits": 1.5}, "message_bits is 1.5"),
        ({"message_bits": True}, "message_bits is True"),
        ({"message_bits": "16"}, "message_bits is '16'"),
        ({"message_bits": None}, "message_bits is None"),
        ({"message_number_bits": 3}, "message_number_bits is 3: expected 1, 2 or 4 bits"),
        ({"message_number_bits": True}, "message_number_bits is True"),
        ({"message_bits": 6, "message_number_bits": 4}, "message_bits is 6, and numbers of .*: give a multiple of 4"),
        ({"message_latency": 0}, "message_latency is 0: expected a whole number of steps of at least 1"),
        ({"message_every": 0.5}, "message_every is 0.5"),
        ({"message_loss": 1.0}, "message_loss is 1.0: expected a probability"),
        ({"message_loss": -0.1}, "message_loss is -0.1"),
        ({"message_loss": "a"}, "message_loss is 'a'"),
        ({"message_to": "everyone"}, "message_to is 'everyone': expected all, or a list of links"),
        ({"message_to": [0, 1]}, r"message_to is \[0, 1\]: expected all"),
        ({"message_to": [[0, 1, 2]]}, "expected all, or a list of links"),
        ({"message_to": [[0, 3]]}, "names an agent 3 that is not there: agents are 0 to 2, or red, green, blue"),
        ({"message_to": [["red", "pink"]]}, "names an agent 'pink' that is not there"),
        ({"message_to": [[True, 0]]}, "names an agent True"),
        ({"message_to": [[-1, 0]]}, "names an agent -1"),
        ({"message_to": [[1, "green"]]}, r"links agent 1 \('green'\) to itself"),
        ({"message_to": [[0, 1], ["red", 1]]}, "a link is named twice"),
        ({"message_to": []}, "message_bits needs two agents with a link between them"),
        ({"message_bits": 0, "message_latency": 0}, "message_latency is 0"),
    ],
)
def test_a_wrong_radio_is_refused_in_one_line(given, message):
    with pytest.raises(UserError, match=message) as caught:
        read_messages(keys(**given), NAMES)
    assert "\n" not in str(caught.value)


def test_a_silent_team_has_no_radio():
    assert read_messages(keys(message_bits=0), NAMES) is None
    assert read_messages(keys(message_bits=0), ["alone"]) is None
    assert read_messages(SimpleNamespace(), NAMES) is None  # a stock algorithm


def test_links_by_index_and_by_name():
    messages = read_messages(keys(message_to=[["green", 0], [0, "blue"]]), NAMES)
    assert messages.links == ((0, 2), (1, 0))
    assert [messages.speakers(i) for i in range(3)] == [[1], [], [0]]
    assert [messages.is_heard(i) for i in range(3)] == [True, True, False]
    assert messages.matrix(3).tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert Messages.from_dict(messages.to_dict()) == messages
    everyone = read_messages(keys(), NAMES)
    assert everyone.matrix(3).equal(1 - torch.eye(3))


def test_who_has_no_choice_is_silent_and_the_others_speak_in_their_turn():
    avail = torch.ones(1, 5, 2, 3)
    avail[0, 2:, 1, 1:] = 0  # only the no-op: dead
    avail[0, 4] = 0  # padding
    everyone = [[1, 1], [1, 1], [1, 0], [1, 0], [0, 0]]
    assert Messages(4, ((0, 1),)).speaks(avail)[0].tolist() == everyone
    in_turns = Messages(4, ((0, 1),), every=2)
    assert in_turns.speaks(avail)[0].tolist() == [[1, 1], [0, 0], [1, 0], [0, 0], [0, 0]]
    for t in range(5):
        assert torch.equal(in_turns.speaks(avail[:, t : t + 1], first=t)[:, 0], in_turns.speaks(avail)[:, t])
    assert in_turns.bits_per_step() == 2.0


def test_messages_are_lost_at_their_rate_on_every_link():
    torch.manual_seed(0)
    share = draw_delivered(0.3, (200, 50), 2).float().mean(dim=(0, 1))
    assert torch.all((share - 0.7).abs() < 0.02)


def test_only_recurrent_students_talk():
    with pytest.raises(UserError, match="only agent=rnn talks, and agent is personal_rnn: set message_bits=0"):
        check_agent(SimpleNamespace(agent="personal_rnn", message_bits=4))


def test_students_of_another_radio_are_not_loaded():
    messages = read_messages(keys(), NAMES)
    check_same_radio("here", {"messages": {**messages.to_dict(), "loss": 0.2}}, messages)
    check_same_radio("here", {}, None)
    with pytest.raises(UserError, match=r"here was trained with message_bits=4, .*, not with message_bits=0: give the"):
        check_same_radio("here", {"messages": messages.to_dict()}, None)
    with pytest.raises(
        UserError,
        match="trained with message_bits=0, not with message_bits=4, message_number_bits=1, message_latency=1",
    ):
        check_same_radio("here", {"messages": None}, messages)


@pytest.mark.parametrize(
    "changed", [5, {"more": 1}, {"links": 7}, {"links": [1]}, {"links": None}, {"number_bits": "x"}, {"number_bits": 3}]
)
def test_a_checkpoint_with_a_damaged_radio_is_refused_in_one_line(changed):
    messages = read_messages(keys(), NAMES)
    told = changed if isinstance(changed, int) else {**messages.to_dict(), **changed}
    with pytest.raises(UserError, match="which is no radio: copy the checkpoint whole"):
        check_same_radio("here", {"messages": told}, messages)
