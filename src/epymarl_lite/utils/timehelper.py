"""Durations as text."""

from __future__ import annotations

import time


def time_str(seconds: float) -> str:
    """Format a duration as ``1 days, 2 hours, 3 minutes, 4 seconds``, without units that are zero."""
    days, rest = divmod(int(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "days"), (hours, "hours"), (minutes, "minutes")]
    return ", ".join([f"{count} {unit}" for count, unit in parts if count] + [f"{rest} seconds"])


def time_left(start_time: float, t_start: int, t_current: int, t_max: int) -> str:
    """Estimate the time left of a run at its pace so far, as text.

    Args:
        start_time: ``time.time()`` when the count stood at ``t_start``.
        t_start: environment steps at the start.
        t_current: environment steps now.
        t_max: environment steps at the end.
    """
    if t_current >= t_max:
        return "-"
    elapsed = time.time() - start_time
    return time_str(elapsed * (t_max - t_current) / max(1, t_current - t_start))
