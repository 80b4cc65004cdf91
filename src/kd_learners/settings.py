"""Typed settings read once from EPyMARL's flat ``args``, and checks of their values."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, get_args, get_type_hints

from kd_core import keys
from kd_core.errors import UserError

Settings = TypeVar("Settings")


def read_settings(kind: type[Settings], args: Any) -> Settings:
    """Fill a dataclass from the keys of the same names.

    Raises:
        UserError: a key has a value that it does not take (`kd_core.keys`), or null where the dataclass has a type.
    """
    hints = get_type_hints(kind)
    values = {}
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]
        given = getattr(args, item.name)
        value, expected = keys.kind_of(item.name, given).read(item.name, given), get_args(hints[item.name])
        expected = expected or (hints[item.name],)
        if float in expected and type(value) is int:
            value = float(value)
        if type(value) not in expected:
            words = " or ".join("null" if kind is type(None) else kind.__name__ for kind in expected)
            raise UserError(f"{item.name} is {value!r}: expected a value of type {words}")
        values[item.name] = value
    return kind(**values)


def check_episodes(episodes: Any) -> None:
    """Refuse ``eval_episodes`` that cannot be played.

    Raises:
        UserError: it is not a positive whole number.
    """
    if type(episodes) is not int or episodes < 1:
        raise UserError(f"eval_episodes is {episodes!r}: expected a number of episodes of at least 1")


def check_entropy(share: Any) -> None:
    """Refuse a ``teacher_entropy`` that no temperature gives.

    Raises:
        UserError: it is no share strictly between 0 and 1.
    """
    if type(share) not in (int, float) or not 0 < share < 1:
        raise UserError(f"teacher_entropy is {share!r}: expected a share above 0 (greedy) and below 1 (uniform)")


def check_acting(args: Any) -> None:
    """Refuse a task without a choice, and a way of acting that does not sample from the policy's probabilities.

    Raises:
        UserError: there is one action only, or actions are not sampled from the policy.
    """
    if args.n_actions < 2:
        raise UserError(f"{args.map_name} has one action, so there is nothing to decide: {args.learner} needs two")
    for key, wanted in (("agent_output_type", "pi_logits"), ("action_selector", "soft_policies")):
        if getattr(args, key) != wanted:
            raise UserError(f"{args.learner} samples its actions from a policy: set {key}={wanted}")


def check_blocks(args: Any) -> None:
    """Refuse to give a learner other episodes than those just played.

    The host's buffer could return old episodes, or only some of the new ones.

    Raises:
        UserError: ``batch_size``, ``buffer_size`` and ``batch_size_run`` differ.
    """
    if not args.batch_size == args.buffer_size == args.batch_size_run:
        raise UserError(
            f"{args.learner} takes the episodes just played: set batch_size, buffer_size and batch_size_run to the "
            "same number"
        )
