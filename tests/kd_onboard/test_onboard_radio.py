"""Messages as datagrams: heard at their step or lost, whatever else arrives."""

from __future__ import annotations

import contextlib
import socket
import struct

import pytest

from kd_onboard.profile import AgentMessages
from kd_onboard.radio import Radio

TOKEN = b"12345678"


@pytest.fixture
def team():
    """Agents 0 and 1, which hear each other; what one of them says is heard two steps later."""
    with contextlib.ExitStack() as stack:

        def build(**options):
            radios = []
            for agent in (0, 1):
                messages = AgentMessages(bits=9, every=1, latency=2, hears=(1 - agent,), heard_by=(1 - agent,))
                radios.append(stack.enter_context(contextlib.closing(Radio(agent, messages, slots=2, **options))))
            for agent, radio in enumerate(radios):
                radio.join(TOKEN, [radios[1 - agent].port])
                radio.begin(0)
                radio.begin(1)
            return radios

        yield build


@pytest.mark.parametrize("number_bits", [1, 4])
def test_a_profile_says_of_numbers_only_what_is_not_a_sign(number_bits):
    messages = AgentMessages(bits=8, every=1, latency=2, hears=(1,), heard_by=(2,), number_bits=number_bits)
    told = messages.to_dict()
    assert told.get("number_bits", 1) == number_bits and ("number_bits" in told) == (number_bits > 1)
    assert AgentMessages.from_dict(told) == messages


def play(radios, steps, slot=0):
    """What agent 0 hears, step by step, of an agent 1 that counts its steps; agent 0 is silent."""
    heard = []
    for step in range(steps):
        for radio, message in zip(radios, (None, bytes([step, 1])), strict=True):
            radio.receive()
            heard += radio.hear(slot) if message is None else []
            radio.say(slot, message)
            radio.send()
    return heard


def told(*messages):
    return [message if message is None else bytes([message, 1]) for message in messages]


def test_a_message_is_heard_at_its_step_in_its_own_slot_and_episode(team):
    radios = team()
    assert play(radios, 5) == told(None, None, 0, 1, 2)
    assert play(radios, 4, slot=1) == told(None, None, 0, 1)
    radios[0].begin(0)
    radios[1].begin(0)
    # Of the last episode two are still under way: nobody hears them.
    assert play(radios, 3) == told(None, None, 0)


def test_delay_shifts_what_is_heard(team):
    assert play(team(delay=2), 6) == told(None, None, None, None, 0, 1)


def test_losses_are_drawn_from_the_seed(team):
    first, again, other = (play(team(loss=0.5, seed=seed), 60) for seed in (1, 1, 2))
    assert first == again != other and 10 < first.count(None) - 2 < 48
    assert play(team(loss=1.0), 10) == [None] * 10


def test_what_is_malformed_foreign_late_or_early_is_lost_and_counted(team):
    radios = team()
    place = struct.Struct("<HII")

    def datagram(token=TOKEN, speaker=1, count=1, slot=0, episode=1, step=0, message=b"ab"):
        return struct.pack("<8sHH", token, speaker, count) + place.pack(slot, episode, step) + message

    wrong = [
        *(b"", b"x", bytes(9000)),
        *(datagram(token=b"87654321"), datagram(speaker=0), datagram(speaker=9), datagram(count=2), datagram(count=0)),
        *(datagram(message=b"a"), datagram(slot=2), datagram(episode=2), datagram(step=1), datagram(step=1 << 31)),
    ]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for data in wrong:
            stranger.sendto(data, ("127.0.0.1", radios[0].port))
        radios[0].receive()
        assert radios[0].refused == len(wrong)
        assert play(radios, 4) == told(None, None, 0, 1)
        # Said at a step that has been heard already.
        stranger.sendto(datagram(step=1, message=b"zz"), ("127.0.0.1", radios[0].port))
        assert play(radios, 1) == told(2)
        assert radios[0].refused == len(wrong) + 1


def test_nobody_who_listens_is_no_crash(team):
    radios = team()
    radios[1].join(TOKEN, [1])
    radios[0].close()
    for _ in range(3):
        radios[1].receive()
        assert radios[1].hear(0) == [None]
        radios[1].say(0, b"ab")
        radios[1].send()
