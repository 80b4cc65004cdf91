"""Typed settings read once from EPyMARL's flat ``args``, and checks of their values."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypeVar, get_args, get_type_hints

from kd_core.errors import UserError

Settings = TypeVar("Settings")


def read_settings(kind: type[Settings], args: Any) -> Settings:
    """Fill a dataclass from the keys of the same names.

    Raises:
        UserError: a key has a value of another type than the dataclass declares.
    """
    hints = get_type_hints(kind)
    values = {}
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]
        value, expected = getattr(args, item.name), get_args(hints[item.name]) or (hints[item.name],)
        if float in expected and type(value) is int:
            value = float(value)
        if type(value) not in expected:
            words = " or ".join("null" if kind is type(None) else kind.__name__ for kind in expected)
            raise UserError(f"{item.name} is {value!r}: expected a value of type {words}")
        values[item.name] = value
    return kind(**values)


def check_counts(settings: Any, *names: str) -> None:
    """Refuse counts below 1.

    Raises:
        UserError: the first that is below 1.
    """
    for name in names:
        if getattr(settings, name) < 1:
            raise UserError(f"{name} is {getattr(settings, name)}: expected a whole number of at least 1")


def check_above_zero(settings: Any, *names: str) -> None:
    """Refuse values that are not finite and above 0.

    Raises:
        UserError: the first that is not.
    """
    for name in names:
        if not 0.0 < getattr(settings, name) < math.inf:
            raise UserError(f"{name} is {getattr(settings, name)}: it must be above 0")


def check_not_negative(settings: Any, *names: str) -> None:
    """Refuse values that are not finite and at least 0, such as the weight of a term.

    Raises:
        UserError: the first that is not.
    """
    for name in names:
        if not 0.0 <= getattr(settings, name) < math.inf:
            raise UserError(f"{name} is {getattr(settings, name)}: it must be 0 or more")


def check_shares(settings: Any, *names: str) -> None:
    """Refuse values outside [0, 1], such as of a discount; None is accepted.

    Raises:
        UserError: the first that does not.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and not 0.0 <= value <= 1.0:
            raise UserError(f"{name} is {value}: it must lie between 0 and 1")


def check_episodes(episodes: Any) -> None:
    """Refuse ``eval_episodes`` that cannot be played.

    Raises:
        UserError: it is not a positive whole number.
    """
    if type(episodes) is not int or episodes < 1:
        raise UserError(f"eval_episodes is {episodes!r}: expected a number of episodes of at least 1")


def check_acting(args: Any) -> None:
    """Refuse a way of acting in which actions are not sampled from the policy's probabilities.

    Raises:
        UserError: actions are not sampled from the policy.
    """
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
