"""The kinds of student networks, by the name that the key ``agent`` gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kd_controllers.attention_net import AttentionStudent
from kd_controllers.messages import Messages
from kd_controllers.personal_net import PersonalStudent
from kd_controllers.student_net import HeteroStudent
from kd_controllers.talking_net import TalkingStudent
from kd_core.errors import UserError, nearest

Sights = Sequence[Sequence[int]]
Maker = Callable[[Any, Sequence[int], Sights], HeteroStudent]

STUDENTS: dict[str, Maker] = {
    "rnn": lambda args, widths, visible: HeteroStudent(widths, visible, args.n_actions, args.sharing),
    "attention_rnn": lambda args, widths, visible: AttentionStudent(
        widths, visible, args.n_actions, args.sharing, args.attention_window
    ),
    "personal_rnn": lambda args, widths, visible: PersonalStudent(widths, visible, args.n_actions, args.sharing),
}


def check_agent(args: Any) -> None:
    """Refuse an unknown kind of student, or one that cannot do what is asked.

    Args:
        args: the run's namespace: ``agent``, and the keys of that kind of network.

    Raises:
        UserError: ``agent`` is not in ``STUDENTS``, or it cannot talk.
    """
    if args.agent not in STUDENTS:
        raise UserError(f"agent '{args.agent}' is no student's network; {nearest(args.agent, STUDENTS)}")
    if args.agent != "rnn" and getattr(args, "message_bits", 0):
        raise UserError(f"only agent=rnn talks, and agent is {args.agent}: set message_bits=0, or agent=rnn")


def make_student(args: Any, widths: Sequence[int], visible: Sights, messages: Messages | None = None) -> HeteroStudent:
    """Build the students of a run.

    Args:
        args: the run's namespace: ``agent``, ``n_actions``, ``sharing`` and the keys of that kind of network.
        widths: hidden units of each agent.
        visible: for each agent the indices of the features it takes as inputs.
        messages: what the agents tell each other; None: nothing.

    Raises:
        UserError: an unknown kind, or an impossible setting of it.
    """
    check_agent(args)
    if messages is not None:
        return TalkingStudent(widths, visible, args.n_actions, args.sharing, messages)
    return STUDENTS[args.agent](args, widths, visible)
