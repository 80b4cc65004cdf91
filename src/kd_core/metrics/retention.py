"""Retention of the teacher: the paper's number, its signed variant, and the one relative to random play."""

from __future__ import annotations

import math


def retention(student: float, teacher: float, win_rate: bool) -> float | None:
    """Compute the paper's retention, 1 for a student as good as its teacher.

    For win rates ``S / T``. For returns, which may be negative, ``1 - |S - T| / |T|``. The formula is taken literally,
    with two faults. A student better than its teacher scores like one that is worse by as much. And the number depends
    on where the task puts its zero. `retention_signed` lacks the first fault, `retention_normalised` both.

    Args:
        student: the student's win rate in [0, 1], or its mean return.
        teacher: the teacher's, of the same kind.
        win_rate: which of the two they are.

    Returns:
        The retention, or None where it is not defined: a teacher at 0, or a number that is not finite.
    """
    if teacher == 0 or not _finite(student, teacher):
        return None
    return student / teacher if win_rate else 1 - abs(student - teacher) / abs(teacher)


def retention_signed(student: float, teacher: float) -> float | None:
    """Compute the paper's retention in which a better student has more than 1, ``1 + (S - T) / |T|``.

    It is `retention` for win rates, and for returns of students that are no better than their teacher.

    Args:
        student: the student's win rate or mean return.
        teacher: the teacher's, of the same kind.

    Returns:
        The share, or None where it is not defined: a teacher at 0, or a number that is not finite.
    """
    if teacher == 0 or not _finite(student, teacher):
        return None
    return 1 + (student - teacher) / abs(teacher)


def retention_normalised(student: float, teacher: float, random: float) -> float | None:
    """Compute the student's share of the teacher's gain over random play, ``(S - R) / (T - R)``.

    0 is random play, 1 the teacher; a better student exceeds 1 and one worse than random is negative.

    Args:
        student: the student's win rate or mean return.
        teacher: the teacher's, of the same kind.
        random: that of a team that picks uniformly among its available actions.

    Returns:
        The share, or None where it is not defined: a teacher no better than random play, where a larger share would not
        mean a better student, or a number that is not finite.
    """
    if teacher <= random or not _finite(student, teacher, random):
        return None
    return (student - random) / (teacher - random)


def _finite(*numbers: float) -> bool:
    return all(math.isfinite(number) for number in numbers)
