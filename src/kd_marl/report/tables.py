"""Tables I, II and III and the terms removed, the paper's numbers beside ours, as (head, rows)."""

from __future__ import annotations

from collections.abc import Sequence

from kd_core.checkpoints import hides
from kd_marl.report.estimates import Estimate, estimate
from kd_marl.report.groups import Cell, Group, Groups, Task
from kd_marl.report.markdown import short
from kd_marl.report.methods import ABLATIONS, BASELINES, COMPARATORS, LIMITS, STUDENT, look, place, setting_title
from kd_marl.report.scores import TaskScores, cost, over_seeds
from kd_marl.runs import paper
from kd_marl.runs.finished import Run

NOT_RUN, ABSENT = "not run", "-"
# Head of a column with both, e.g. ``3 x 500``.
RUNS = "seeds x episodes"
PAPER_SIGHT = "paper"
_TERMS = {"SL": "soft logits", "HL": "hard logits", "IR": "relations", "COR": "roles"}

Rows = tuple[list[str], list[list[str]]]


def scores_table(groups: Groups, task: Task) -> Rows:
    """Write a task's part of Table I or II: teacher, baselines and KD-MARL under each limit, the paper beside ours."""
    found = TaskScores.of(groups, task)
    in_paper = paper.table_of(task[1]) is not None
    head = ["method", "limits"]
    if found.wins:
        head += ["win rate, paper", "win rate, ours"]
    head += ["retention, paper", "retention, ours", *([] if found.wins else ["retention over random, ours"])]
    head += ["return, paper", "return, ours", "step, paper (ms)", "decision, ours (µs)"]
    head += ["FLOPs per decision", "steps of training", RUNS]
    rows = [_teacher_row(found, in_paper)]
    if found.random("return_mean") is not None:
        rows.append(_random_row(found))
    sent = [ABSENT] * len(rows)
    for method, limits, sight in _wanted(groups, task, in_paper):
        group = groups.main.get(Cell(task, method, limits, sight))
        rows.append(_score_row(found, method, limits, sight, group))
        sent.append(_sent(group))
    if any(cell != ABSENT for cell in sent):
        head.insert(-1, "bits a second")
        for row, cell in zip(rows, sent, strict=True):
            row.insert(-1, cell)
    return head, rows


def own_actions(groups: Groups, task: Task) -> str:
    """Say which rows of a task's tables are of agents that are told their own last action; empty where none are."""
    hidden = [group for group in groups.of_task(task) if hides(group.runs[0].config)]
    told = [group for group in hidden if group.runs[0].config.get("own_action")]
    if not told:
        return ""
    if len(told) == len(hidden):
        return "Under a mask, agents are also told their own last action."
    rows = "; ".join(f"{look(group.cell.method).title} {group.cell.setting}" for group in hidden if group not in told)
    return f"Under a mask, agents are also told their own last action, but for {rows}."


def comparators_table(groups: Groups, task: Task, limits: str, sight: str) -> Rows:
    """Write Table III on one task: each method's retention and an episode's cost; the paper's are of 3s5z alone."""
    table = paper.numbers()["table_3"]
    known = table["rows"] if (task[1], limits, sight) == (table["task"], table["limits"], PAPER_SIGHT) else {}
    found = TaskScores.of(groups, task)
    head = ["method", "uses", f"{found.measure}, paper", f"{found.measure}, ours", "retention, ours"]
    head += ["FLOPs per episode, paper", "FLOPs per episode, ours", RUNS]
    rows = []
    for method in (*COMPARATORS, STUDENT):
        group = groups.main.get(Cell(task, method, limits, sight))
        entry = known.get(method)
        uses = table["rows"][method]
        spread = f" ± {short(entry['flops_spread'])}" if entry and "flops_spread" in entry else ""
        rows.append(
            [
                f"{uses['name']} ({uses['reference']})",
                f"{', '.join(_TERMS[term] for term in uses['uses'])}; {uses['agents']}",
                f"{entry['win_rate']:.2f} %" if entry else ABSENT,
                score_cell(found, group),
                retention_cell(found, group),
                f"{short(entry['flops'])}{spread}" if entry else ABSENT,
                _short(cost(group, "flops_per_episode")),
                _seeds(group),
            ]
        )
    return head, rows


def ablation_table(groups: Groups, task: Task, limits: str, sight: str) -> Rows:
    """Write the table of KD-MARL, the paper's literal recipe, and KD-MARL with each term removed."""
    found = TaskScores.of(groups, task)
    head = ["method", found.measure, "retention", "agreement with the teacher", RUNS]
    rows = []
    for method in (STUDENT, *ABLATIONS):
        group = groups.main.get(Cell(task, method, limits, sight))
        agreed = over_seeds(group, lambda run: run.summary["agreement"])
        cells = [score_cell(found, group), retention_cell(found, group), percent(agreed), _seeds(group)]
        rows.append([look(method).title, *cells])
    return head, rows


def places_of(groups: Groups, methods: Sequence[str]) -> list[tuple[Task, str, str]]:
    """List where one of these methods has been run: task, limits, masks; in the order of the page."""
    order = {task: number for number, task in enumerate(groups.tasks)}
    found = {(cell.task, cell.limits, cell.sight) for cell in groups.main if cell.method in methods}
    return sorted(found, key=lambda place: (order[place[0]], LIMITS.index(place[1]), place[2]))


def percent(value: Estimate | None) -> str:
    """Write a share in per cent, or a dash."""
    return ABSENT if value is None else value.text(100, 1, " %")


def score_cell(found: TaskScores, group: Group | None) -> str:
    """Write a group's score as a table's cell."""
    if group is None:
        return NOT_RUN
    value = estimate(found.scores(group))
    return percent(value) if found.wins else _plain(value)


def retention_cell(found: TaskScores, group: Group | None) -> str:
    """Write a group's retention as a cell."""
    return NOT_RUN if group is None else percent(estimate(found.retention(group)))


def _wanted(groups: Groups, task: Task, in_paper: bool) -> list[tuple[str, str, str]]:
    """List the rows of a task: all that the paper has, and all else that was run and belongs to no other table."""
    elsewhere = {*COMPARATORS, *ABLATIONS}
    run = {cell[1:] for cell in groups.main if cell.task == task and cell.method not in elsewhere}
    asked = set()
    if in_paper:
        # The paper's MAPPO under full observation is its teacher, which has a row of its own.
        asked = {(m, limits, PAPER_SIGHT if limits != "fo" else "") for m in BASELINES for limits in LIMITS}
        asked -= {("mappo", "fo", "")}
        asked |= {(STUDENT, limits, PAPER_SIGHT) for limits in LIMITS[1:]}
    return sorted(run | asked, key=lambda row: (place(row[0]), LIMITS.index(row[1]), row[2]))


def _teacher_row(found: TaskScores, in_paper: bool) -> list[str]:
    theirs = paper.score(found.task[1], "mappo", "fo") if in_paper else None
    row = ["teacher (MAPPO)", setting_title("fo", "")]
    if found.wins:
        row += [f"{theirs['win_rate']:.2f} %" if theirs else ABSENT, percent(found.teacher("win_rate"))]
    row += ["100 %" if theirs else ABSENT, *["100 %"] * (1 if found.wins else 2)]
    row += [_spread(theirs, "return"), _plain(found.teacher("return_mean"))]
    row += [_spread(theirs, "step_ms"), _plain(found.teacher_cost("decision_us"), 0)]
    trained = found.teacher_facts.get("steps")
    row += [_short(found.teacher_cost("flops_per_decision")), ABSENT if trained is None else short(trained)]
    return [*row, _evaluated(found)]


def _random_row(found: TaskScores) -> list[str]:
    row = ["random play", setting_title("fo", "")]
    if found.wins:
        row += [ABSENT, percent(found.random("win_rate"))]
    row += [ABSENT, ABSENT, *([] if found.wins else ["0 %"])]
    row += [ABSENT, _plain(found.random("return_mean")), ABSENT, ABSENT, ABSENT, ABSENT]
    return [*row, _evaluated(found)]


def _score_row(found: TaskScores, method: str, limits: str, sight: str, group: Group | None) -> list[str]:
    # The text of the paper describes random masks, its tables fixed ones: its numbers stand beside both.
    known = sight != "own" and not (method == "mappo" and limits == "fo")
    theirs = paper.score(found.task[1], method, limits) if known else None
    retained = paper.retention_of(found.task[1], method, limits) if known else None
    row = [look(method).title, setting_title(limits, sight)]
    if found.wins:
        row += [f"{theirs['win_rate']:.2f} %" if theirs else ABSENT, score_cell(found, group)]
    row += [ABSENT if retained is None else f"{100 * retained:.1f} %", retention_cell(found, group)]
    if not found.wins:
        row.append(NOT_RUN if group is None else percent(estimate(found.retention_over_random(group))))
    returns = over_seeds(group, lambda run: run.policy["return_mean"])
    row += [_spread(theirs, "return"), NOT_RUN if group is None else _plain(returns)]
    row += [_spread(theirs, "step_ms"), _plain(cost(group, "decision_us"), 0)]
    trained = over_seeds(group, lambda run: run.steps)
    return [*row, _short(cost(group, "flops_per_decision")), _short(trained), _seeds(group)]


def _sent(group: Group | None) -> str:
    """Write what an agent sends a second, or a step where the task has no rate; a dash where it is silent."""
    summary = {} if group is None else group.runs[0].summary
    if not summary.get("message_bits"):
        return ABSENT
    rate = summary["bits_per_second"]
    return f"{summary['bits_per_step']:g} a step" if rate is None else f"{rate:g}"


def _plain(value: Estimate | None, digits: int = 2) -> str:
    return ABSENT if value is None else value.text(digits=digits)


def _short(value: Estimate | None) -> str:
    return ABSENT if value is None else short(value.centre)


def _spread(theirs: dict | None, name: str) -> str:
    # As the paper prints them, trailing zeros included.
    return f"{theirs[name][0]} ± {theirs[name][1]}" if theirs else ABSENT


def _seeds(group: Group | None) -> str:
    return NOT_RUN if group is None else seeds_and_episodes(group.runs)


def _evaluated(found: TaskScores) -> str:
    """Count the evaluations of the teacher and of random play."""
    runs = found.evaluations
    return seeds_and_episodes(runs) if runs else ABSENT


def seeds_and_episodes(runs: Sequence[Run]) -> str:
    """Write ``3 x 500``; numbers of episodes that differ as a range."""
    episodes = sorted({int(run.summary["episodes"]) for run in runs})
    return f"{len(runs)} x {' to '.join(map(str, dict.fromkeys((episodes[0], episodes[-1]))))}"
