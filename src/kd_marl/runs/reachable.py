"""What can be reached under a task's limits: an exact bound where there is one, else the best return that was found.

Retention against a teacher that sees everything measures mask and method together. `share_of` compares a policy with
what any policy can return that sees as little. The entries are in ``reachable.json``, each with the command that it
comes from; `kd-marl reachable` shows and keeps them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from kd_core import checkpoints, files
from kd_core.errors import UserError
from kd_core.metrics.intervals import mean_interval, share_interval
from kd_core.metrics.retention import retention
from kd_marl.runs.finished import Run
from kd_marl.runs.identity import identity

FILE = Path(__file__).parent / "reachable.json"
FORMAT, VERSION = "kd-marl/reachable", 1
BOUND, BEST = "bound", "best"
# Fewer episodes, of all runs together, are no measurement of what can be reached.
LEAST_EPISODES = 1000
# Words of a command line that say where a run is made, and not what.
_PLACES = re.compile(r" (local_results_path|resume|runner_processes)=\S+")
_TEACHER = "teacher"
_REWARDS = ("common_reward", "reward_scalarisation")


@dataclass(frozen=True)
class Reachable:
    """The most that is known to be reachable in one task under one kind of limits.

    Attributes:
        setting: the environment: ``env``, ``env_args`` without seed, ``common_reward`` and ``reward_scalarisation``.
        task: its name.
        limits: ``fo``, or ``lh`` for ``lh`` and ``lha``, which hide the same.
        masks_preset: what they hide; empty under ``fo``.
        message_bits: of a message; 0 where agents are silent; None: whatever they tell each other.
        measure: ``win_rate`` or ``return_mean``.
        value: a mean over the runs.
        low: lower end of its 95 % interval, over the runs or, of a single one, over its episodes.
        high: upper end.
        kind: ``bound``: no policy has more; ``best``: no policy that was tried has more.
        runs: how many there are; 0 for a bound.
        episodes: of all together.
        command: what it was measured with.
        date: when, as ISO 8601 has it.
    """

    setting: Mapping[str, Any]
    task: str
    limits: str
    masks_preset: str
    message_bits: int | None
    measure: str
    value: float
    low: float
    high: float
    kind: str
    runs: int
    episodes: int
    command: str
    date: str

    @property
    def place(self) -> str:
        """What there is one entry for."""
        key = [dict(self.setting), self.task, self.limits, self.masks_preset, self.message_bits, self.measure]
        return json.dumps(key, sort_keys=True)


def setting_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Take from a run's configuration what decides how its task pays."""
    env_args = json.loads(json.dumps(checkpoints.unseeded(config.get("env_args", {})), default=str))
    return {"env": config["env"], "env_args": env_args, **{key: config.get(key) for key in _REWARDS}}


def read(file: Path = FILE) -> list[Reachable]:
    """Read the entries; none where there is no file yet.

    Raises:
        UserError: it is damaged, or of another version.
    """
    if not file.is_file():
        return []
    facts = files.read_json(file)
    if (facts.get("format"), facts.get("version")) != (FORMAT, VERSION):
        raise UserError(f"{file} is no list of what can be reached: expected {FORMAT} version {VERSION}")
    try:
        return [Reachable(**entry) for entry in facts["entries"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged: {error}") from None


def find(
    entries: Iterable[Reachable], config: Mapping[str, Any], limits: str, preset: str, bits: int
) -> Reachable | None:
    """Find what can be reached by agents that see and tell each other no more than a run's.

    Args:
        entries: as `read` returns them.
        config: the run's.
        limits: ``fo``, ``lh`` or ``lha``.
        preset: its masks' preset; ``own`` for masks of the user's, of which nothing is known.
        bits: of a message.

    Returns:
        A bound if there is one. Else the best entry of as many bits or fewer; a talking team is not compared with
        silent ones. None where nothing is known.
    """
    kept_limits, kept_preset = ("fo", "") if limits == "fo" else ("lh", preset)
    setting = setting_of(config)
    mine = [
        entry
        for entry in entries
        if (entry.setting, entry.limits, entry.masks_preset) == (setting, kept_limits, kept_preset)
    ]
    bounds = [entry for entry in mine if entry.kind == BOUND and entry.message_bits in (None, bits)]
    if bounds:
        return min(bounds, key=lambda entry: entry.value)
    found = [entry for entry in mine if entry.message_bits is not None and entry.message_bits <= bits]
    return max((entry for entry in found if bool(entry.message_bits) == bool(bits)), key=_value, default=None)


def share_of(entry: Reachable | None, score: Mapping[str, Any]) -> float | None:
    """Compute a policy's share of what can be reached, by the formula of retention; at most 1.

    Args:
        entry: what can be reached; None: unknown.
        score: the policy's of ``summary.json``.

    Returns:
        None where it is unknown. 1 for a policy above the best that was kept: then that one is reachable.
    """
    if entry is None or score.get(entry.measure) is None:
        return None
    if score[entry.measure] >= entry.value:
        return 1.0
    return retention(score[entry.measure], entry.value, win_rate=entry.measure == "win_rate")


def of_run(entries: Iterable[Reachable], run: Run) -> float | None:
    """Compute the share of what can be reached of a finished run's policy, as `share_of` does."""
    return share_of(find(entries, run.config, run.limits, run.sight, _bits(run)), run.policy)


def keep(runs: Iterable[Run], date: str, file: Path = FILE) -> list[Reachable]:
    """Keep the best policies of finished runs, where they are better than what the file has; bounds stay.

    Runs that differ in their seed alone count as one policy, with their mean. Under ``fo`` teachers count too.

    Args:
        runs: students, and policies of other algorithms; those under masks of the user's are passed over.
        date: when.
        file: of the entries, written if one is better.

    Returns:
        The entries that are new.
    """
    entries = {entry.place: entry for entry in read(file)}
    new: dict[str, Reachable] = {}
    for entry in _candidates(runs, date):
        known = new.get(entry.place) or entries.get(entry.place)
        if entry.episodes >= LEAST_EPISODES and (known is None or entry.value > known.value):
            new[entry.place] = entry
    if new:
        write([*{**entries, **new}.values()], file)
    return list(new.values())


def write(entries: Iterable[Reachable], file: Path = FILE) -> None:
    """Write the entries, in the order of task, limits and bits.

    Raises:
        UserError: the file cannot be written.
    """
    ordered = sorted(entries, key=lambda e: (e.task, e.limits, e.masks_preset, e.kind != BOUND, e.message_bits or 0))
    files.write_json(file, {"format": FORMAT, "version": VERSION, "entries": [asdict(entry) for entry in ordered]})


def _candidates(runs: Iterable[Run], date: str) -> Iterable[Reachable]:
    groups: dict[tuple[str, str], list[tuple[Run, Mapping[str, Any]]]] = {}
    for run in runs:
        if run.sight == "own":
            continue
        groups.setdefault((identity({**run.config, "seed": 0}), run.teacher), []).append((run, run.policy))
        if run.limits == "fo" and run.is_student:
            groups.setdefault((_TEACHER, run.teacher), []).append((run, run.summary["teacher"]))
    for (kind, _), members in groups.items():
        run, score = members[0]
        command = _PLACES.sub("", str(run.summary.get("command", "unknown")))
        measure = "return_mean" if score.get("win_rate") is None else "win_rate"
        # A seed that ran twice counts once.
        scores = list({run.seed: (score, run.summary["episodes"]) for run, score in members}.values())
        low, high = _interval(measure, scores)
        yield Reachable(
            setting=setting_of(run.config),
            task=run.task[1],
            limits="fo" if run.limits == "fo" else "lh",
            masks_preset="" if run.limits == "fo" else run.sight,
            message_bits=_bits(run),
            measure=measure,
            value=fmean(score[measure] for score, _ in scores),
            low=low,
            high=high,
            kind=BEST,
            runs=len(scores),
            episodes=sum(episodes for _, episodes in scores),
            command=f"the teacher of {command}" if kind == _TEACHER else command,
            date=date,
        )


def _interval(measure: str, scores: list[tuple[Mapping[str, Any], int]]) -> tuple[float, float]:
    values = [score[measure] for score, _ in scores]
    if len(values) > 1:
        return mean_interval(fmean(values), pstdev(values), len(values))
    (score, episodes), *_ = scores
    if measure == "win_rate":
        return share_interval(score[measure], episodes)
    return mean_interval(score[measure], score["return_std"], episodes)


def _bits(run: Run) -> int:
    return int(run.config.get("message_bits") or 0)


def _value(entry: Reachable) -> float:
    return entry.value
