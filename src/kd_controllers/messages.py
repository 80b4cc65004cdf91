"""The radio of a team: its settings, and which messages were sent and which arrived.

An agent sends ``message_bits`` bits after its step, and its hearers read them ``message_latency`` steps later. An agent
without a choice (dead, or padding) is silent, and so is every agent between its turns (``message_every``).
A message is a row of numbers of ``message_number_bits`` bits each; of one bit they are signs. docs/concepts/messages.md
has the equations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kd_core.errors import UserError
from kd_onboard.profile import NUMBER_BITS

Link = tuple[int, int]


@dataclass(frozen=True)
class Messages:
    """What a team may tell each other.

    Attributes:
        bits: K, of one message.
        links: pairs (speaker, hearer) of agents, sorted.
        latency: steps from a message to its hearing, at least 1.
        loss: probability that a message is lost on a link, in training.
        every: steps from one message of an agent to its next.
        number_bits: b, of each number of a message; 1: its numbers are signs.
    """

    bits: int
    links: tuple[Link, ...]
    latency: int = 1
    loss: float = 0.0
    every: int = 1
    number_bits: int = 1

    @property
    def numbers(self) -> int:
        """Numbers of one message."""
        return self.bits // self.number_bits

    def speakers(self, hearer: int) -> list[int]:
        """List the agents that an agent hears, in their order."""
        return [speaker for speaker, other in self.links if other == hearer]

    def is_heard(self, speaker: int) -> bool:
        """Tell whether some agent hears this one."""
        return bool(self.hearers(speaker))

    def hearers(self, speaker: int) -> list[int]:
        """List the agents that hear an agent, in their order."""
        return [hearer for own, hearer in self.links if own == speaker]

    def exchanged(self, agent: int) -> tuple[int, int, int]:
        """Return the numbers that an agent hears and says in a step, and the bits of each."""
        said = self.numbers if self.is_heard(agent) else 0
        return self.numbers * len(self.speakers(agent)), said, self.number_bits

    def matrix(self, n_agents: int) -> Tensor:
        """Build ``(hearers, speakers)`` float32, 1 where there is a link."""
        found = torch.zeros(n_agents, n_agents)
        for speaker, hearer in self.links:
            found[hearer, speaker] = 1.0
        return found

    def bits_per_step(self) -> float:
        """Compute the bits that an agent sends a step, on average."""
        return self.bits / self.every

    def speaks(self, avail: Tensor, first: int = 0) -> Tensor:
        """Mark the agents that send a message after each step.

        Args:
            avail: ``(batch, time, agents, actions)``, 1 where available.
            first: number of the first step in its episode.

        Returns:
            ``(batch, time, agents)`` uint8.
        """
        turn = torch.arange(first, first + avail.shape[1], device=avail.device) % self.every == 0
        return ((avail > 0).sum(-1) > 1).mul(turn.unsqueeze(-1)).to(torch.uint8)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes, for JSON."""
        return {**asdict(self), "links": [list(link) for link in self.links]}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Messages:
        """Invert `to_dict`.

        Raises:
            UserError: the facts are no radio's.
        """
        try:
            found = cls(**{**facts, "links": tuple((speaker, hearer) for speaker, hearer in facts["links"])})
            if found.number_bits not in NUMBER_BITS:
                raise ValueError
        except (TypeError, ValueError, KeyError):
            raise UserError(
                f"messages of the checkpoint are {facts!r}, which is no radio: copy the checkpoint whole"
            ) from None
        return found


@dataclass(frozen=True)
class Radio:
    """The messages of some steps, whatever their leading axes.

    Attributes:
        speaks: ``(..., agents)``, 1 where an agent sends after the step.
        delivered: ``(..., hearers, speakers)``, 0 where what would be heard at the step was lost; None: nothing was.
    """

    speaks: Tensor
    delivered: Tensor | None = None

    def only(self, rows: Tensor) -> Radio:
        """Return the messages of these rows of the first axis."""
        return Radio(self.speaks[rows], None if self.delivered is None else self.delivered[rows])


def draw_delivered(loss: float, shape: Sequence[int], n_agents: int) -> Tensor:
    """Draw which messages arrive, ``(*shape, hearers, speakers)`` uint8, from PyTorch's generator."""
    return (torch.rand(*shape, n_agents, n_agents) >= loss).to(torch.uint8)


def read_messages(args: Any, names: Sequence[str]) -> Messages | None:
    """Read a run's radio from its keys ``message_*``.

    Args:
        args: the run's namespace; a stock algorithm's has no such keys, nor has a run of before there were messages.
        names: of the agents.

    Returns:
        The settings, or None for a silent team (``message_bits`` of 0).

    Raises:
        UserError: the first key with an impossible value.
    """
    if not hasattr(args, "message_bits"):
        return None
    bits, loss = args.message_bits, args.message_loss
    if type(bits) is not int or bits < 0:
        raise UserError(f"message_bits is {bits!r}: expected a whole number of bits of at least 0")
    for key in ("message_latency", "message_every"):
        if type(getattr(args, key)) is not int or getattr(args, key) < 1:
            raise UserError(f"{key} is {getattr(args, key)!r}: expected a whole number of steps of at least 1")
    if type(loss) not in (int, float) or not 0.0 <= loss < 1.0:
        raise UserError(f"message_loss is {loss!r}: expected a probability of at least 0 and below 1")
    # Runs of before there were numbers have no such key.
    number_bits = getattr(args, "message_number_bits", 1)
    if type(number_bits) is not int or number_bits not in NUMBER_BITS:
        raise UserError(f"message_number_bits is {number_bits!r}: expected 1, 2 or 4 bits")
    if bits % number_bits:
        raise UserError(
            f"message_bits is {bits}, and numbers of message_number_bits={number_bits} do not fill it: give a multiple "
            f"of {number_bits}"
        )
    links = _links(args.message_to, names)
    if not bits:
        return None
    if not links:
        raise UserError("message_bits needs two agents with a link between them: add one to message_to, or set it to 0")
    return Messages(bits, links, args.message_latency, float(loss), args.message_every, number_bits)


def check_same_radio(path: str, facts: Mapping[str, Any], messages: Messages | None) -> None:
    """Refuse to load students that were trained with another radio; how often messages were lost may differ.

    Args:
        path: of the checkpoint.
        facts: its ``checkpoint.json``.
        messages: this run's radio, None of a silent team.

    Raises:
        UserError: bits, links, latency or turns differ.
    """
    theirs = None if not facts.get("messages") else Messages.from_dict(facts["messages"])
    if _fixed(theirs) != _fixed(messages):
        raise UserError(
            f"the student in {path} was trained with {_described(theirs)}, not with {_described(messages)}: give the "
            "message_ keys that it was trained with, or train anew with resume=False"
        )


def _fixed(messages: Messages | None) -> Messages | None:
    return None if messages is None else replace(messages, loss=0.0)


def _described(messages: Messages | None) -> str:
    """Describe a radio in a message to the user."""
    if messages is None:
        return "message_bits=0"
    return (
        f"message_bits={messages.bits}, message_number_bits={messages.number_bits}, "
        f"message_latency={messages.latency}, message_every={messages.every} and "
        f"{len(messages.links)} links"
    )


def _links(given: Any, names: Sequence[str]) -> tuple[Link, ...]:
    """Read ``message_to``; agents are indices or names.

    Raises:
        UserError: it is no list of pairs, names an unknown agent, or names a link twice or to the agent itself.
    """
    if given == "all":
        links = [(speaker, hearer) for speaker in range(len(names)) for hearer in range(len(names))]
        found = [(speaker, hearer) for speaker, hearer in links if speaker != hearer]
    elif isinstance(given, list | tuple) and all(isinstance(link, list | tuple) and len(link) == 2 for link in given):
        found = [(_agent(speaker, names), _agent(hearer, names)) for speaker, hearer in given]
    else:
        raise UserError(
            f"message_to is {given!r}: expected all, or a list of links [speaker, hearer] such as [[0, 1], [1, 0]]"
        )
    for speaker, hearer in found:
        if speaker == hearer:
            raise UserError(f"message_to links agent {speaker} ('{names[speaker]}') to itself: leave that link out")
    if len(set(found)) < len(found):
        raise UserError(f"message_to is {given!r}: a link is named twice, leave one out")
    return tuple(sorted(found))


def _agent(given: Any, names: Sequence[str]) -> int:
    """Read one agent, an index or a name."""
    if given in names:
        return list(names).index(given)
    if type(given) is int and 0 <= given < len(names):
        return given
    raise UserError(
        f"message_to names an agent {given!r} that is not there: agents are 0 to {len(names) - 1}, or "
        + ", ".join(names)
    )
