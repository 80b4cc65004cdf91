"""The page: which tables and figures stand where, and what is said between them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kd_envs.hetero_mask import PRESETS
from kd_marl.report import (
    captions,
    figure_actions,
    figure_bits,
    figure_costs,
    figure_curves,
    figure_masks,
    provenance,
    robustness,
    tables,
)
from kd_marl.report.drawing import Picture
from kd_marl.report.estimates import mean, stratified
from kd_marl.report.groups import Cell, Group, Groups, Task
from kd_marl.report.markdown import bullets, folded, table
from kd_marl.report.methods import (
    ABLATIONS,
    BASELINES,
    COMPARATORS,
    FAMILIES,
    LIMITS,
    STUDENT,
    look,
    setting_title,
    short_task,
    task_title,
)
from kd_marl.report.scores import TaskScores
from kd_marl.runs import paper

TITLE = "KD-MARL: the paper's results beside ours"
_PRESETS = ("", *PRESETS, "own")


@dataclass
class Page:
    """A page in the making: paragraphs of Markdown, and the pictures that they show."""

    parts: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    def say(self, *paragraphs: str) -> None:
        """Add paragraphs."""
        self.parts += [paragraph for paragraph in paragraphs if paragraph]

    def show(self, picture: Picture | None, otherwise: str) -> None:
        """Add a picture with its note, or the sentence that says why there is none."""
        if picture is None:
            self.say(otherwise)
            return
        self.pictures.append(picture)
        self.say(f"![{picture.title}]({picture.name}.svg)", picture.note)

    @property
    def markdown(self) -> str:
        """The whole page."""
        return "\n\n".join(self.parts) + "\n"


def build(groups: Groups, passed_over: Sequence[str], facts: Sequence[tuple[str, str]]) -> Page:
    """Write the page.

    Args:
        groups: the runs.
        passed_over: one line for each run without a result that counts.
        facts: name and value of what the page itself came from: command, time, version.

    Raises:
        UserError: a file of a run is broken.
    """
    page = Page()
    page.say(f"# {TITLE}")
    _overview(page, groups)
    _costs(page, groups)
    _curves(page, groups)
    _scores(page, groups)
    _comparisons(page, groups)
    _behaviour(page, groups)
    _sight(page, groups)
    page.say("## Robustness")
    page.say(*(robustness.section(groups) or ["Not run: no run of these has been through `kd-marl stress`."]))
    page.say("## What was run", table(("", ""), [list(fact) for fact in facts]), *provenance.section(groups))
    _missing(page, groups, passed_over)
    return page


def _overview(page: Page, groups: Groups) -> None:
    page.say("## Overview")
    page.show(figure_costs.retention_overview(groups), "Not run: no student has been evaluated.")
    rows = []
    for family in FAMILIES:
        for limits, sight in itertools.product(LIMITS, _PRESETS):
            mine = [
                groups.main[cell]
                for task in groups.of_family(family)
                if (cell := Cell(task, STUDENT, limits, sight)) in groups.main
            ]
            if not mine:
                continue
            shares = [TaskScores.of(groups, group.cell.task).retention(group) for group in mine]
            gains = [TaskScores.of(groups, group.cell.task).retention_over_random(group) for group in mine]
            fewer = stratified([[run.summary["flops_ratio"] for run in group.runs] for group in mine])
            rows.append(
                [
                    f"{family}, {setting_title(limits, sight)}",
                    ", ".join(short_task(group.cell.task[1]) for group in mine),
                    _seeds(mine),
                    tables.percent(stratified(shares)),
                    tables.percent(stratified(shares, mean)),
                    tables.percent(stratified(gains, mean)),
                    "-" if fewer is None else f"{fewer.centre:.1f}x",
                ]
            )
    if rows:
        head = ["KD-MARL", "tasks", "seeds of each", "retention, interquartile mean", "retention, mean"]
        head += ["retention over random, mean", "FLOPs, times fewer"]
        page.say(
            table(head, rows),
            f"The paper's retention is {100 * paper.numbers()['mean_retention']:.0f} % on average over its tasks and "
            "limits.",
        )
    page.say(folded("How to read the tables", captions.HOW_TO_READ, captions.NOT_THE_SAME, captions.TOGETHER))


def _scores(page: Page, groups: Groups) -> None:
    in_tables = {
        name: [task for task in groups.tasks if paper.table_of(task[1]) == name] for name in ("table_1", "table_2")
    }
    for title, name in (("Table I: StarCraft maps", "table_1"), ("Table II: particle environments", "table_2")):
        page.say(f"## {title}")
        if any(group.cell.method in BASELINES for task in in_tables[name] for group in groups.of_task(task)):
            page.say(folded("What the baselines have", captions.BASELINES))
        for task in in_tables[name]:
            _task_scores(page, groups, task)
        done = {task[1] for task in in_tables[name]}
        left = [task for task in paper.numbers()[name] if task not in done]
        if left:
            page.say(f"Not run: {', '.join(left)}.")
    page.say(captions.SAME_DIGITS if in_tables["table_2"] else "")
    others = [task for task in groups.tasks if paper.table_of(task[1]) is None]
    if others:
        page.say("## Tasks that the paper has not")
    for task in others:
        _task_scores(page, groups, task)


def _task_scores(page: Page, groups: Groups, task: Task) -> None:
    page.say(f"### {task_title(task)}", table(*tables.scores_table(groups, task)), tables.own_actions(groups, task))


def _comparisons(page: Page, groups: Groups) -> None:
    page.say("## Table III: other ways to distil")
    reference = paper.numbers()["table_3"]
    places = tables.places_of(groups, COMPARATORS)
    asked = [(task, reference["limits"], tables.PAPER_SIGHT) for task in groups.tasks if task[1] == reference["task"]]
    for task, limits, sight in dict.fromkeys([*asked, *places]):
        heading = f"### {task_title(task)}, {setting_title(limits, sight)}"
        page.say(heading, table(*tables.comparators_table(groups, task, limits, sight)))
    if not asked:
        page.say(f"Not run on {reference['task']}, the paper's map.")
    page.say("### Each term removed")
    removed = tables.places_of(groups, ABLATIONS)
    for task, limits, sight in removed:
        page.say(
            f"{task_title(task)}, {setting_title(limits, sight)}:",
            table(*tables.ablation_table(groups, task, limits, sight)),
        )
    if not removed:
        page.say("Not run.")


def _costs(page: Page, groups: Groups) -> None:
    page.say("## Figure 3: FLOPs per episode")
    page.show(figure_costs.flops_per_episode(groups), "Not run: no student has been evaluated.")
    lacking = [g for t in groups.tasks for g in groups.of_task(t) if g.runs[0].cost("flops_per_episode") is None]
    page.say(_lack(lacking, "did not count their FLOPs"))
    page.say("## Retention against FLOPs")
    page.show(figure_costs.retention_against_flops(groups), "Not run: no student has been evaluated.")
    if (picture := figure_bits.retention_against_bits(groups)) is not None:
        page.say("## Retention against bits", "What students gain that tell each other what they see.")
        page.show(picture, "")
        page.say(table(*figure_bits.bits_table(groups)))


def _curves(page: Page, groups: Groups) -> None:
    page.say("## Learning curves")
    pictures = [
        figure_curves.learning_curves(groups, groups.of_family(family), f"curves-{name}")
        for family, name in FAMILIES.items()
    ]
    pictures.append(figure_curves.learning_curves(groups, groups.tasks, "curves-terms", terms=True))
    drawn = [picture for picture in pictures if picture is not None]
    for picture in drawn:
        page.show(picture, "")
    if not drawn:
        page.say("None: no run has logged two tests or more.")
    page.show(figure_curves.teacher_curves(groups), "The teachers' own curves are not where their students found them.")


def _behaviour(page: Page, groups: Groups) -> None:
    page.say("## Agreement with the teacher, agent by agent")
    picture, lacking = figure_curves.agreement_per_agent(groups)
    page.show(picture, "Not measured." if lacking else "Not run.")
    page.say(_lack(lacking, "did not measure it by agent"))
    page.say("## Figure 4: action frequencies over time", folded("How to read it", captions.CONCENTRATION))
    missing: list[Group] = []
    drawn = False
    for task in groups.tasks:
        able, without = figure_actions.counted(groups, task)
        missing += without
        measured = figure_actions.concentration_table(groups, task)
        if measured is None:
            continue
        drawn = True
        page.say(f"### {task_title(task)}")
        settings = sorted({group.cell[2:] for group in able}, key=lambda key: (LIMITS.index(key[0]), key[1]))
        for limits, sight in settings:
            page.show(figure_actions.action_frequencies(groups, task, limits, sight), "")
        page.say(table(*measured))
    if not drawn:
        page.say("No run has counted its actions.")
    page.say(_lack(missing, "did not count their actions"))


def _sight(page: Page, groups: Groups) -> None:
    page.say("## Who sees what", "What a mask hides from an agent's student; under FO nothing is hidden.")
    for task in groups.tasks:
        page.show(figure_masks.who_sees_what(groups, task), "")


def _missing(page: Page, groups: Groups, passed_over: Sequence[str]) -> None:
    page.say("## What was not run")
    lines = []
    for name in ("table_1", "table_2"):
        for task, methods in paper.numbers()[name].items():
            here: list[Task] = [found for found in groups.tasks if found[1] == task]
            for place in here:
                asked = [(m, limits) for m in methods for limits in methods[m] if (m, limits) != ("mappo", "fo")]
                without = [
                    f"{look(m).title} {setting_title(limits, '')}"
                    for m, limits in asked
                    if Cell(place, m, limits, "" if limits == "fo" else tables.PAPER_SIGHT) not in groups.main
                ]
                if without:
                    lines.append(f"{task_title(place)}: {', '.join(without)}")
            if not here:
                lines.append(f"{task}: nothing was run")
    page.say(bullets(lines) if lines else "Nothing that the paper's Tables I and II have is missing.")
    page.say("## What was left out")
    left = [*groups.left_out, *passed_over]
    page.say(bullets(_plain(line) for line in left) if left else "Nothing: every run found is in a table.")


def _lack(groups: Iterable[Group], what: str) -> str:
    named = [f"{task_title(g.cell.task)} {g.cell.method} {g.cell.setting}" for g in groups]
    return f"Some runs {what}: {'; '.join(named)}." if named else ""


def _seeds(groups: Sequence[Group]) -> str:
    counts = sorted({len(group.seeds) for group in groups})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _plain(line: str) -> str:
    """Write a line that Markdown takes as it is."""
    return line.replace("_", "\\_").replace("*", "\\*").replace("<", "\\<")
