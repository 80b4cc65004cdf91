"""Students of the particle environments against MAPPO trained directly under the same limit."""

from __future__ import annotations

from results_evidence import NOT_MEASURED, Estimate, Evidence, over_seeds, shown, table
from results_grid import BASELINE, STUDENT


def sight_of(setting: str) -> str:
    """The limits whose baselines a setting is compared with: lha hides what lh hides."""
    return setting.replace("lha", "lh")


def acting(evidence: Evidence, algorithm: str, task: str, setting: str) -> tuple[Estimate | None, Estimate | None]:
    """Return of a student or a baseline when it acts greedily, and when it samples its actions."""
    policy = "student" if algorithm == STUDENT else "policy"
    rows = evidence.summaries(algorithm, task, setting)
    return over_seeds(rows, policy, "return_mean"), over_seeds(rows, policy, "sampled", "return_mean")


def best(acting: tuple[Estimate | None, Estimate | None]) -> Estimate | None:
    """The better way of acting, by its mean."""
    return max((way for way in acting if way is not None), key=lambda way: way.mean, default=None)


def against_baseline(evidence: Evidence, task: str, setting: str) -> tuple[str, str]:
    """Whether a student is at least as good as MAPPO under the same limit: ``yes | undecided | no`` and a sentence.

    Each is taken at its better way of acting. Undecided: the intervals overlap, or there are too few seeds for any.
    """
    ours = best(acting(evidence, STUDENT, task, setting))
    theirs = best(acting(evidence, BASELINE, task, sight_of(setting)))
    if ours is None or theirs is None:
        return NOT_MEASURED, NOT_MEASURED
    overlap = "the intervals overlap" if ours.overlaps(theirs) else "the intervals do not overlap"
    if ours.half is None or theirs.half is None:
        overlap = "too few seeds for intervals"
    numbers = f"{ours.text()} against {theirs.text()}; {overlap}"
    better = ours.mean >= theirs.mean
    if ours.half is None or theirs.half is None or ours.overlaps(theirs):
        how = "at least as high as" if better else "lower than"
        return "undecided", f"the student's mean is {how} MAPPO's ({numbers})"
    if better:
        return "yes", f"the student is at least as good as MAPPO ({numbers})"
    return "no", f"the student is worse than MAPPO ({numbers})"


def baseline_table(evidence: Evidence, task: str) -> str:
    """Returns of students and baselines, for both ways of acting."""
    rows = []
    for setting in evidence.grid.settings:
        sight = sight_of(setting)
        ways = (*acting(evidence, STUDENT, task, setting), *acting(evidence, BASELINE, task, sight))
        rows.append((setting, *(shown(way) for way in ways), evidence.made(BASELINE, task, sight)))
    head = ("setting", "student, greedy", "student, sampled", "mappo, greedy", "mappo, sampled", "mappo seeds")
    return table(head, rows)
