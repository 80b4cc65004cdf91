"""One agent as a process of its own: ``python -m kd_onboard.serve BUNDLE --agent 2 --backend c``.

It knows of the world only its standard input. All numbers are little-endian:

    request   b"R" slot:u16                                       begin an episode
              b"A" count:u16 count * (slot:u16 features:f32[inputs] available:u8[actions])
    answer    b"R" after a reset; b"A" count * action:i32; or b"E" length:u32 text and the end

An agent that talks sends and hears messages by itself, over `kd_onboard.radio`:

    its start  b"R" port:u16, where its radio listens
    request    b"L" count:u16 token:8s count * port:u16       join a team: the ports of its hearers; answered by b"L"
    answer     b"A" count * (action:i32 spoke:u8 heard:u16)   whether it sent a message, and how many it heard

A slot is one of several episodes played at once, with a recurrent state of its own. The process ends with its input.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import struct
import sys
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from kd_onboard.agent import OnboardAgent, TalkingAgent
from kd_onboard.backend import BACKENDS
from kd_onboard.bundle import read_bundle
from kd_onboard.errors import OnboardError
from kd_onboard.profile import AgentProfile
from kd_onboard.radio import TOKEN_BYTES, Radio
from kd_onboard.sampling import Generator

RESET, ACT, LINK, ERROR = b"R", b"A", b"L", b"E"
COUNT = struct.Struct("<H")
LENGTH = struct.Struct("<I")
# What a request's number of a slot can tell apart.
LARGEST_SLOTS = 1 << 16


def row_type(agent: AgentProfile) -> np.dtype:
    """Build the dtype of one decision's request: all that an agent's process is told."""
    features = ("features", "<f4", (agent.inputs,))
    return np.dtype([("slot", "<u2"), features, ("available", "u1", (agent.n_actions,))])


def answer_type(agent: AgentProfile) -> np.dtype:
    """Build the dtype of one decision's answer."""
    talk = [] if agent.messages is None else [("spoke", "u1"), ("heard", "<u2")]
    return np.dtype([("action", "<i4"), *talk])


def serve(
    agents: Sequence[OnboardAgent],
    requests: BinaryIO,
    answers: BinaryIO,
    generators: Sequence[Generator] | None = None,
    radio: Radio | None = None,
) -> None:
    """Answer requests until they end.

    Args:
        agents: the same agent for each slot.
        requests: the stream of requests.
        answers: the stream of answers.
        generators: draw the actions, one a slot; None: the best action is taken.
        radio: of an agent that talks.

    Raises:
        OnboardError: a request is not valid, or an agent cannot act.
    """
    rows = row_type(agents[0].profile)
    while kind := requests.read(1):
        head = requests.read(COUNT.size)
        valid = (RESET, ACT) if radio is None else (RESET, ACT, LINK)
        if kind not in valid or len(head) != COUNT.size:
            expected = " or ".join(repr(request) for request in valid)
            raise OnboardError(f"request {kind!r} is none: expected {expected} and a number")
        (number,) = COUNT.unpack(head)
        if kind == RESET:
            _slot(agents, number).reset()
            if radio is not None:
                radio.begin(number)
            answers.write(RESET)
        elif kind == LINK and radio is not None:
            token, ports = requests.read(TOKEN_BYTES), requests.read(number * COUNT.size)
            radio.join(token, [port for (port,) in COUNT.iter_unpack(ports)])
            answers.write(LINK)
        else:
            data = requests.read(number * rows.itemsize)
            if len(data) != number * rows.itemsize:
                raise OnboardError(f"a request of {number * rows.itemsize} bytes ended after {len(data)}")
            table = np.frombuffer(data, rows)
            if radio is None:
                actions = [_act(agents, generators, row) for row in table]
                answers.write(ACT + np.array(actions, "<i4").tobytes())
            else:
                answers.write(ACT + _talk(agents, generators, radio, table).tobytes())
        answers.flush()


def _talk(
    agents: Sequence[OnboardAgent], generators: Sequence[Generator] | None, radio: Radio, table: np.ndarray
) -> np.ndarray:
    """Decide with what has arrived, and send what is said before anything is answered."""
    decided = np.zeros(len(table), answer_type(agents[0].profile))
    radio.receive()
    for row, answer in zip(table, decided, strict=True):
        slot = int(row["slot"])
        agent = _slot(agents, slot)
        assert isinstance(agent, TalkingAgent), "an agent with a radio talks"
        inbox = radio.hear(slot)
        given = (row["features"], row["available"], inbox)
        action, message = agent.act(*given) if generators is None else agent.sample(*given, generators[slot])
        radio.say(slot, message)
        answer["action"], answer["spoke"] = action, message is not None
        answer["heard"] = len(inbox) - inbox.count(None)
    radio.send()
    return decided


def _act(agents: Sequence[OnboardAgent], generators: Sequence[Generator] | None, row: np.ndarray) -> int:
    slot = int(row["slot"])
    agent = _slot(agents, slot)
    if generators is None:
        return agent.act(row["features"], row["available"])
    return agent.sample(row["features"], row["available"], generators[slot])


def _slot(agents: Sequence[OnboardAgent], number: int) -> OnboardAgent:
    if number >= len(agents):
        raise OnboardError(f"slot {number} asked for, but there are {len(agents)}")
    return agents[number]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one agent until its input ends, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kd_onboard.serve", description=__doc__.splitlines()[0])
    parser.add_argument("bundle", help="the bundle's folder")
    parser.add_argument("--agent", type=int, required=True, help="which agent: 0, 1, ...")
    parser.add_argument("--backend", default="numpy", choices=BACKENDS)
    parser.add_argument("--slots", type=int, default=1, help="episodes played beside each other")
    parser.add_argument("--key", help="file of the public key that must have signed the bundle")
    parser.add_argument("--trust", action="store_true", help="run the bundle's C although no key vouches for it")
    parser.add_argument("--sample", type=int, metavar="SEED", help="draw the actions (default: the best one)")
    parser.add_argument("--message-loss", type=float, default=0.0, help="probability that a message is lost")
    parser.add_argument("--message-delay", type=int, default=0, help="steps by which messages are late")
    parser.add_argument("--seed", type=int, default=0, help="of the losses")
    args = parser.parse_args(arguments)
    if not 1 <= args.slots <= LARGEST_SLOTS:
        parser.error(f"--slots {args.slots}: expected a whole number from 1 to {LARGEST_SLOTS}")
    # Text that a library prints must not become an answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        bundle = read_bundle(args.bundle)
        options = {"key": args.key, "trust": args.trust}
        agents = [OnboardAgent.load(bundle, args.agent, args.backend, **options) for _ in range(args.slots)]
        generators = None
        if args.sample is not None:
            # Numbers of its own for every agent and slot.
            generators = [Generator(args.sample, args.agent << 32 | slot) for slot in range(args.slots)]
        messages, radio = agents[0].profile.messages, None
        answers.write(RESET)
        with contextlib.ExitStack() as stack:
            if messages is not None:
                loss = (args.message_loss, args.message_delay, args.seed)
                radio = stack.enter_context(contextlib.closing(Radio(args.agent, messages, args.slots, *loss)))
                answers.write(COUNT.pack(radio.port))
            answers.flush()
            serve(agents, sys.stdin.buffer, answers, generators, radio)
    except OnboardError as error:
        text = str(error).encode()
        answers.write(ERROR + LENGTH.pack(len(text)) + text)
        answers.flush()
        return 1
    except (BrokenPipeError, KeyboardInterrupt):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
