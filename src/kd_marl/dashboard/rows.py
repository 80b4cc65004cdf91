"""A run as one row of the page's table, from what Sacred and the final evaluation left of it.

Whatever a file holds, a row has the types that it promises: what is not of them counts as absent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, NamedTuple

from kd_marl.dashboard.liveness import Liveness

TEACHER, BUFFER, STUDENT, STOCK = "teacher", "buffer", "student", "stock"
# The words of `kd-marl suite status`.
RUNNING, FINISHED, INTERRUPTED, BROKEN = "running", "finished", "interrupted", "broken"
_STAGES = {"kd_mappo_teacher": TEACHER, "kd_buffer_export": BUFFER, "kd_mappo_student": STUDENT}
_ENDS = {
    "COMPLETED": (FINISHED, ""),
    "INTERRUPTED": (INTERRUPTED, "it was stopped: resume=True goes on from its last checkpoint"),
    "TIMEOUT": (INTERRUPTED, "it was stopped by a time limit"),
    "QUEUED": (INTERRUPTED, "it is queued and has not started"),
}
# Longest text of a cell: the names in a configuration may be anything.
_LONGEST = 200
# What a run scored last, best first.
RETURNS, WINS = ("test_return_mean", "return_mean"), ("test_battle_won_mean", "battle_won_mean")


class Progress(NamedTuple):
    """How far a run's metrics reach: environment steps, and its last return and win rate."""

    steps: float | None = None
    return_mean: float | None = None
    win_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What the table shows of a run.

    Attributes:
        key: the run among all of its source.
        method: the name of its configuration.
        stage: teacher, buffer, student or stock.
        task: what it plays.
        env: the environment's registered name.
        limits: fo, lh or lha, or the user's own.
        seed: its seed.
        state: running, finished, interrupted or broken.
        note: why it is broken or interrupted, one line.
        started: seconds since the epoch.
        seconds: how long it took, or had taken at its last heartbeat.
        steps: environment steps so far.
        t_max: of so many; None for a buffer, whose length is counted in episodes.
        episodes: that a buffer holds so far; None for all others.
        buffer_episodes: of so many.
        final: whether return and win rate are the final evaluation's.
        return_mean: what it scored last; of a buffer, the mean of its episodes.
        win_rate: likewise, in [0, 1].
        retention: of its teacher, in the final evaluation.
    """

    key: str
    method: str = ""
    stage: str = STOCK
    task: str = ""
    env: str = ""
    limits: str = ""
    seed: int | None = None
    state: str = BROKEN
    note: str = ""
    started: float | None = None
    seconds: float | None = None
    steps: float | None = None
    t_max: float | None = None
    episodes: float | None = None
    buffer_episodes: float | None = None
    final: bool = False
    return_mean: float | None = None
    win_rate: float | None = None
    retention: float | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of a run.

    Attributes:
        config: its configuration.
        account: Sacred's ``run.json``, or the database's document.
        summary: its result; empty before it has one.
        faults: what could not be read, one line each.
        lineage: its ``lineage.json``; empty where that was not asked for.
        buffer: what the buffer that it writes says of itself; empty where that is not known.
    """

    config: Mapping[str, Any]
    account: Mapping[str, Any]
    summary: Mapping[str, Any]
    faults: tuple[str, ...] = ()
    lineage: Mapping[str, Any] = field(default_factory=dict)
    buffer: Mapping[str, Any] = field(default_factory=dict)


def row(key: str, place: Sequence[str], facts: Facts, progress: Progress, liveness: Liveness, now: float) -> Row:
    """Make a run's row.

    Args:
        key: the run among all.
        place: the names of its folders, of which the last three are configuration, task and number; may be shorter.
        facts: what its files hold.
        progress: what its metrics say.
        liveness: tells whether it still runs.
        now: the time.
    """
    config, account, summary = facts.config, facts.account, facts.summary
    named = (*("",) * (3 - len(place)), *place)[-3:]
    stage = stage_of(config)
    started, beat = moment(account.get("start_time")), moment(account.get("heartbeat"))
    stopped = moment(account.get("stop_time"))
    state, note = _state(facts, started, beat, liveness, now)
    # A row that changed with every second would be sent every second.
    last = stopped or beat
    score = mapping(summary.get("student")) or mapping(summary.get("policy"))
    final = number(score.get("return_mean")) is not None
    if stage == BUFFER:
        # Its metrics hold the host's first test, which is greedy: no episode of the buffer is.
        progress = Progress(progress.steps, number(facts.buffer.get("return_mean")))
    return Row(
        key=key,
        method=text(config.get("name")) or named[0],
        stage=stage,
        task=text(config.get("map_name")) or named[1],
        env=text(config.get("env")),
        limits="own" if config.get("masks") else text(config.get("limits")),
        seed=whole(config.get("seed")),
        state=state,
        note=note,
        started=started,
        seconds=max(0.0, last - started) if last and started else None,
        steps=number(summary.get("steps")) or progress.steps,
        t_max=None if stage == BUFFER else number(config.get("t_max")),
        episodes=number(facts.buffer.get("episodes")) if stage == BUFFER else None,
        buffer_episodes=number(config.get("buffer_episodes")) if stage == BUFFER else None,
        final=final,
        return_mean=number(score.get("return_mean")) if final else progress.return_mean,
        win_rate=number(score.get("win_rate")) if final else progress.win_rate,
        retention=number(summary.get("retention")),
    )


def progress(last: Mapping[str, tuple[Any, Any]]) -> Progress:
    """Read how far a run is from the last step and value of each of its metrics."""
    steps = [step for at, _ in last.values() if (step := number(at)) is not None]
    found = {name: number(value) for name, (_, value) in last.items()}

    def first(names: Sequence[str]) -> float | None:
        return next((value for name in names if (value := found.get(name)) is not None), None)

    return Progress(max(steps, default=None), first(RETURNS), first(WINS))


def command(facts: Facts) -> str:
    """Return a run's command line as it was recorded, quoted for a shell; "" where there is none."""
    for part in (facts.config, facts.summary):
        if isinstance(line := part.get("command"), str):
            return line
    return ""


def stage_of(config: Mapping[str, Any]) -> str:
    """Name a run's stage: teacher, buffer, student or stock."""
    return _STAGES.get(text(config.get("learner")), STOCK)


def text(value: Any) -> str:
    """Take a name from a file; what is no name is empty."""
    return value[:_LONGEST] if isinstance(value, str) else ""


def number(value: Any) -> float | None:
    """Take a finite number from a file."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def whole(value: Any) -> int | None:
    """Take a whole number that a browser can hold from a file."""
    return value if type(value) is int and abs(value) < 1 << 53 else None


def mapping(value: Any) -> Mapping[str, Any]:
    """Take a part of a file that has names itself."""
    return value if isinstance(value, Mapping) else {}


def moment(value: Any) -> float | None:
    """Return seconds since the epoch of a time as Sacred notes it: UTC, as text or from a database."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.removesuffix("Z"))
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    try:
        return (value if value.tzinfo else value.replace(tzinfo=timezone.utc)).timestamp()
    except (OverflowError, ValueError):
        return None


def _state(facts: Facts, started: float | None, beat: float | None, liveness: Liveness, now: float) -> tuple[str, str]:
    """Return a run's state, and why."""
    if facts.faults:
        return BROKEN, facts.faults[0]
    status = text(facts.account.get("status"))
    if status == "RUNNING":
        host = text(mapping(facts.account.get("host")).get("hostname"))
        if liveness.alive(beat, started, host, command(facts), now):
            return RUNNING, ""
        return INTERRUPTED, "its process is gone: resume=True goes on from its last checkpoint"
    if status in _ENDS:
        return _ENDS[status]
    trace = facts.account.get("fail_trace")
    pieces = [part for part in trace if isinstance(part, str)] if isinstance(trace, list) else []
    lines = [line.strip() for line in "\n".join(pieces).split("\n") if line.strip()]
    return BROKEN, lines[-1][:_LONGEST] if lines else f"it ended with the status {status or '(none)'}"
