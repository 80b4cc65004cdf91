"""The StarCraft maps on docs/results.md: teachers with their learning curves, and what students keep of their wins."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import results_figure
import smax_notes
from results_evidence import NOT_MEASURED, PERCENT, Estimate, Evidence, estimate, shown, table
from results_grid import STUDENT
from scipy.stats import binomtest
from smax_notes import FLOPS_TARGET, KEPT_TARGETS, MEAN_TARGETS, PAPER, TEACHER_HOURS, TEACHER_TARGETS

from kd_core.metrics.retention import retention

CURVES, WINS = "results-smax-teachers.svg", "results-smax-students.svg"
MET, NOT_MET = "met", "not met"


def summary(evidence: Evidence) -> str:
    """The README's table: what is kept of the teacher's wins, at what cost, beside the paper."""
    head = ("map", "limits", "teacher wins", "student wins", "kept", "paper keeps", "FLOPs, times fewer")
    paths = (("teacher", "win_rate"), ("student", "win_rate"), ("retention",))
    rows = []
    for task in evidence.grid.tasks:
        for setting in evidence.grid.settings:
            cells = [shown(evidence.student(task, setting, *path), **PERCENT) for path in paths]
            kept = paper_kept(task, setting)
            cells.append("-" if kept is None else f"{100 * kept:.1f} %")
            cells.append(shown(evidence.student(task, setting, "flops_ratio"), digits=1))
            rows.append((task, setting, *cells))
    return (
        f"Battles won by the greedy policies, of {', '.join(map(str, evidence.episodes))}, mean of "
        f"{evidence.seeds} ± 95 % interval over seeds; students are 16 wide under fo, 32 under lh, "
        f"and 16 to 32 under lha; kept is S / T, as in the paper, which plays SMAC: another game on maps "
        f"of the same names. {smax_notes.NOT_ALIKE}\n\n{table(head, rows)}"
    )


def section(evidence: Evidence) -> list[str]:
    """The paragraphs below the family's heading."""
    grid = evidence.grid
    teachers = grid.teachers()
    return [
        smax_notes.NOT_SMAC,
        smax_notes.HOW_TO_READ,
        _chance(evidence),
        "### Does it hold?",
        smax_notes.TARGETS,
        "\n".join(f"- {line}" for line in targets(evidence)),
        "### Teachers",
        "Share of battles won with its 95 % interval (Wilson's), acting greedily and sampling. Steps are those of the "
        "environment, all agents together; the weights are those of the best test on the way, with imitation_gap_coef "
        "those of the last. Time is wall-clock, with the tests.",
        _teacher_table(teachers),
        "\n".join(f"- {name}: {_trained_by(name, facts)}" for name, facts in teachers.items()),
        f"![Win rate of the teachers against environment steps]({CURVES})",
        "### Students",
        f"![Win rate of teacher and students for each map and limit]({WINS})",
        _student_table(evidence),
        _commands(evidence),
        "### The paper's Table I (SMAC)",
        "Win rates in per cent. MAPPO FO is the paper's teacher, 256 wide; MAPPO LH and LH+A are trained directly "
        f"under the limits, as wide as the students. {smax_notes.PAPER_FLOPS}",
        _paper_table(grid.tasks),
    ]


def figures(evidence: Evidence) -> dict[str, str]:
    """File name -> SVG: the teachers' learning curves, and the students' win rates."""
    words = results_figure.Words(
        title="Battles won by the students and by their teacher",
        axis="win rate, per cent",
    )
    return {
        CURVES: results_figure.curves(_curves(evidence), "Learning curves of the SMAX teachers (greedy tests)"),
        WINS: results_figure.panels(_panels(evidence), words, shows=(60.0, 100.0)),
    }


def targets(evidence: Evidence) -> list[str]:
    """A line for each target: what it is, whether it is met, and the numbers."""
    lines = []
    for task in evidence.grid.tasks:
        answer, numbers = teacher_verdict(task, evidence.grid.teacher(task))
        again = evidence.student(task, "lh", "teacher", "win_rate") if "lh" in evidence.grid.settings else None
        if again is not None:
            numbers += f"; in the students' battles {again.text(**PERCENT)} greedy"
            if answer.startswith(MET) and again.mean < TEACHER_TARGETS[task]:
                answer += " in its own test alone"
        target = (
            f"at least {100 * TEACHER_TARGETS[task]:.0f} % wins after at most {TEACHER_HOURS:.0f} hours of training"
        )
        lines.append(f"{task}, teacher: {target}: **{answer}** ({numbers})")
    for task in evidence.grid.tasks:
        for setting in evidence.grid.settings:
            kept, ratio = (evidence.student(task, setting, name) for name in ("retention", "flops_ratio"))
            target = f"at least {100 * KEPT_TARGETS[setting]:.0f} % of the teacher's win rate"
            keeps = _judged(kept, KEPT_TARGETS[setting], **PERCENT)
            costs = f"at least {FLOPS_TARGET} times fewer FLOPs: {_judged(ratio, FLOPS_TARGET, digits=1)}"
            lines.append(f"{task}, {setting}: {target}: {keeps}; {costs}")
    for setting, share in MEAN_TARGETS.items():
        if setting in evidence.grid.settings:
            keeps = _judged(mean_kept(evidence, setting), share, **PERCENT)
            lines.append(
                f"mean of the maps, {setting}: at least {100 * share:.0f} % of the teacher's win rate: {keeps}"
            )
    return lines


def mean_kept(evidence: Evidence, setting: str) -> Estimate | None:
    """What is kept on average over the maps, over the seeds that have a run on each; None if a map has no run."""
    maps = [evidence.grid.row(STUDENT, task, setting) for task in evidence.grid.tasks]
    rows = [[evidence.found.get(cell) for cell in cells] for cells in zip(*maps, strict=True)]
    return estimate([fmean(run.summary["retention"] for run in row) for row in rows if all(row)])


def verdict(value: Estimate | None, target: float) -> str:
    """Whether a mean reaches a target, and whether the seeds leave that open: the target lies within the interval."""
    if value is None:
        return NOT_MEASURED
    low, high = value.ends
    is_open = low is not None and high is not None and low < target <= high
    return (MET if value.mean >= target else NOT_MET) + (", but within the interval" if is_open else "")


def _judged(value: Estimate | None, target: float, **style: Any) -> str:
    numbers = "" if value is None else f" ({value.text(**style)})"
    return f"**{verdict(value, target)}**{numbers}"


def teacher_verdict(task: str, facts: dict[str, Any] | None) -> tuple[str, str]:
    """Whether a teacher reaches its target, acting in the better of the two ways, and the numbers."""
    if facts is None or not facts.get("test"):
        return NOT_MEASURED, "no test of a finished teacher"
    test, seconds = facts["test"], facts.get("train_seconds")
    way = max(("greedy", "sampled"), key=lambda way: test[way]["win_rate"])
    # Whole battles: the rate itself is a mean of means, and its last digit may be short.
    enough = round(test[way]["win_rate"] * test["episodes"]) >= TEACHER_TARGETS[task] * test["episodes"]
    numbers = f"{100 * test[way]['win_rate']:.1f} % {way}, {_duration(seconds)}"
    if not enough or (seconds is not None and seconds > 3600 * TEACHER_HOURS):
        return NOT_MET, numbers
    return (f"{MET} in wins", numbers) if seconds is None else (MET, numbers)


def _trained_by(name: str, facts: dict[str, Any]) -> str:
    """The command that trained a teacher, after that of the teacher which it began with."""
    first = facts.get("begun_with")
    both = f"`kd-marl teachers train {name}` runs `{first['command']}`, then " if first else ""
    return both + f"`{facts.get('command')}`"


def paper_kept(task: str, setting: str) -> float | None:
    """Share of the teacher's win rate that the paper's students keep (Table I); None for full observation."""
    row = PAPER[task]
    return retention(row.kd_marl[setting], row.mappo["fo"], win_rate=True) if setting in row.kd_marl else None


def _teacher_table(teachers: dict[str, dict[str, Any]]) -> str:
    head = ("teacher", "greedy", "sampled", "battles", "steps", "weights of step", "time", "target", "reached?")
    rows = []
    for name, facts in teachers.items():
        task, test = facts["task"], facts.get("test") or {}
        ways = [_wins(test[way]["win_rate"], test["episodes"]) if test else "-" for way in ("greedy", "sampled")]
        steps = [f"{facts[key]:,}" if key in facts else "-" for key in ("steps", "best_test_step")]
        target = f"{100 * TEACHER_TARGETS[task]:.0f} %"
        answer = teacher_verdict(task, facts)[0]
        row = (
            name,
            *ways,
            str(test.get("episodes", "-")),
            *steps,
            _duration(facts.get("train_seconds")),
            target,
            answer,
        )
        rows.append(row)
    return table(head, rows)


def _wins(rate: float, battles: int) -> str:
    """A win rate with the interval that counting it leaves."""
    interval = binomtest(round(rate * battles), battles).proportion_ci(method="wilson")
    return f"{100 * rate:.1f} % ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def _duration(seconds: float | None) -> str:
    return "time not recorded" if seconds is None else f"{seconds / 60:.0f} minutes"


def _chance(evidence: Evidence) -> str:
    """How uncertain counted battles are, in words."""
    battles, rate = min(evidence.episodes, default=500), 0.9
    seeds = min(len(evidence.grid.seeds(STUDENT, setting)) for setting in evidence.grid.settings)
    single = 196 * (rate * (1 - rate) / battles) ** 0.5
    ratio = 196 * (2 * (1 - rate) / (rate * battles * seeds)) ** 0.5
    return (
        f"**Chance.** A win rate counted over {battles} battles is uncertain by itself: a policy that wins "
        f"{100 * rate:.0f} % shows that ± {single:.1f} points (binomial, 95 %). What is kept is a ratio of two counts: "
        f"with {seeds} seeds a student exactly as good as such a teacher shows 100 ± {ratio:.1f} % of it. The "
        "students' intervals over seeds contain this; a teacher's own test is a single count."
    )


def _curves(evidence: Evidence) -> list[results_figure.Curve]:
    lines = []
    for name, facts in evidence.grid.teachers().items():
        # A test is [steps, return] or, where battles are won, [steps, return, win rate].
        points = [(test[0], test[2]) for test in facts.get("tests", []) if len(test) > 2]
        if points:
            lines.append(results_figure.Curve(name, points, facts.get("best_test_step")))
    return lines


def _panels(evidence: Evidence) -> list[results_figure.Panel]:
    rows = []
    for task in evidence.grid.tasks:
        levels = [evidence.student(task, setting, "teacher", "win_rate") for setting in evidence.grid.settings]
        teacher = next((level.mean for level in levels if level is not None), None)
        points = []
        for setting in evidence.grid.settings:
            ours = evidence.student(task, setting, "student", "win_rate")
            mean, (low, high) = (None, (None, None)) if ours is None else (ours.mean, ours.ends)
            # Nobody wins more than every battle, or fewer than none, whatever the t interval says.
            low, high = (None if end is None else min(1.0, max(0.0, end)) for end in (low, high))
            points.append(results_figure.Point(setting, mean, low, high, paper=None))
        rows.append(results_figure.Panel(task, teacher, points))
    return rows


def _student_table(evidence: Evidence) -> str:
    head = (
        *("map", "limits", "teacher wins", "student wins", "random wins", "kept", "target", "FLOPs, times fewer"),
        *("agreement", "widths", "seeds", "paper, SMAC: wins (kept)"),
    )
    rows = []
    for task in evidence.grid.tasks:
        for setting in evidence.grid.settings:

            def cell(*path: str, task: str = task, setting: str = setting, **style: Any) -> str:
                return shown(evidence.student(task, setting, *path), **style)

            target = KEPT_TARGETS[setting]
            rows.append(
                (
                    *(task, setting),
                    *(cell(policy, "win_rate", **PERCENT) for policy in ("teacher", "student", "random")),
                    cell("retention", **PERCENT),
                    f"{100 * target:.0f} %: {verdict(evidence.student(task, setting, 'retention'), target)}",
                    cell("flops_ratio", digits=1),
                    cell("agreement", **PERCENT),
                    evidence.widths(task, setting),
                    evidence.made(STUDENT, task, setting),
                    _paper_cell(task, setting),
                )
            )
    return table(head, rows)


def _commands(evidence: Evidence) -> str:
    """What runs the first map's students; those of the other maps differ in its name."""
    grid = evidence.grid
    cells = [grid.row(STUDENT, grid.tasks[0], setting)[0] for setting in grid.settings]
    lines = "\n".join(f"- `{grid.shell_line(cell)}`" for cell in cells)
    return f"The first map's first runs; the others differ in the map and the seed:\n\n{lines}"


def _paper_cell(task: str, setting: str) -> str:
    row, kept = PAPER[task], paper_kept(task, setting)
    return f"{row.mappo['fo']} % (MAPPO)" if kept is None else f"{row.kd_marl[setting]} % ({100 * kept:.1f} %)"


def _paper_table(tasks: Sequence[str]) -> str:
    head = ("map", "MAPPO FO", "MAPPO LH", "MAPPO LH+A", "KD-MARL LH", "its retention", "KD-MARL LH+A", "its retention")
    rows = []
    for task in tasks:
        row = PAPER[task]
        students = []
        for limits in ("lh", "lha"):
            students += [f"{row.kd_marl[limits]:.2f}", f"{100 * (paper_kept(task, limits) or 0.0):.1f} %"]
        rows.append((task, *(f"{row.mappo[limits]:.2f}" for limits in ("fo", "lh", "lha")), *students))
    return table(head, rows)
