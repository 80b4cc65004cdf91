"""One block of episodes, cut into sequences so that the epochs over it compute no padding.

The policy learns on short sequences of one agent each ("data chunks", Yu et al., arXiv 2103.01955). A sequence begins
with the recurrent state that the network had there when the block was played. Sequences without a decision are left
out: the padding after an episode's end and the time after an agent's death. Padded steps of the critic are left out
too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sequences:
    """Decisions of single agents, ``(rows, length)``; ``acting`` is 0 at steps without a decision.

    Attributes:
        inputs: of the policy network, ``(rows, length, input_size)``.
        hidden: its recurrent state before each row, ``(rows, hidden_dim)``.
        avail: ``(rows, length, actions)``.
        follower_log_probs: ``(rows, length, actions)``, or None without a follower.
    """

    inputs: Tensor
    hidden: Tensor
    avail: Tensor
    actions: Tensor
    log_prob: Tensor
    advantage: Tensor
    acting: Tensor
    follower_log_probs: Tensor | None = None


@dataclass(frozen=True)
class States:
    """Steps that were taken: the critic's inputs ``(rows, 1 or agents, size)`` and targets ``(rows, agents)``."""

    inputs: Tensor
    target: Tensor


@dataclass(frozen=True)
class Rollout:
    """One block of episodes, ready for several epochs."""

    sequences: Sequences
    states: States

    def minibatches(self, count: int) -> Iterator[tuple[Sequences, States]]:
        """Split the rows at random into at most ``count`` parts of about equal size.

        Every row is in exactly one part, and no part is empty. Where nobody had a choice there is no part.
        """
        count = min(count, len(self.sequences.acting), len(self.states.target))
        if not count:
            return
        parts = [_parts(self.sequences, count), _parts(self.states, count)]
        yield from zip(*parts, strict=True)


def pieces(time: int, length: int) -> int:
    """Count the sequences of ``length`` steps into which :func:`cut` cuts an agent's episode of ``time`` steps."""
    return -(-time // length)


def cut(x: Tensor, length: int, kept: Tensor | None = None) -> Tensor:
    """Cut whole episodes into sequences of single agents.

    Args:
        x: ``(batch, time, agents, ...)``.
        length: steps of a sequence; the last one of an episode is padded with zeros.
        kept: the sequences to return, bool ``(batch * agents * pieces,)``; None: all. The others are never copied.

    Returns:
        ``(sequences, length, ...)``, by episode, then agent, then time.
    """
    batch, time, agents = x.shape[:3]
    count = pieces(time, length)
    rows = torch.arange(batch * agents * count, device=x.device)
    rows = (rows if kept is None else rows[kept]).unsqueeze(1)
    step = rows % count * length + torch.arange(length, device=x.device)
    found = x[rows // (agents * count), step.clamp(max=time - 1), rows // count % agents]
    if count * length > time:
        found[step >= time] = 0
    return found


def ends(length: int) -> slice:
    """Return a slice of the last steps of the whole sequences of :func:`cut`.

    Each next sequence begins with the recurrent state there.
    """
    return slice(length - 1, None, length)


def starts(at_ends: Tensor, count: int) -> Tensor:
    """Compute the recurrent state before each sequence of :func:`cut`.

    Args:
        at_ends: state after the steps of :func:`ends`, ``(batch, time // length, agents, hidden_dim)``.
        count: sequences of an agent's episode, as :func:`pieces` counts them.

    Returns:
        ``(batch * agents * count, hidden_dim)``; zeros where a sequence begins an episode.
    """
    before = nn.functional.pad(at_ends, (0, 0, 0, 0, 1, 0))[:, :count]
    return before.movedim(2, 1).reshape(-1, at_ends.shape[-1])


def _parts(rows: Any, count: int) -> list[Any]:
    fields = {name: value for name, value in vars(rows).items() if value is not None}
    order = torch.randperm(len(next(iter(fields.values()))))
    return [type(rows)(**{name: value[part] for name, value in fields.items()}) for part in order.tensor_split(count)]
