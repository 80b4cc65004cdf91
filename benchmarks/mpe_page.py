"""The particle environments on docs/results.md: retention beside the paper's, and MAPPO under the same limits."""

from __future__ import annotations

from typing import Any

import mpe_notes
import results_figure
from mpe_baselines import against_baseline, baseline_table, sight_of
from results_evidence import NOT_MEASURED, PERCENT, Evidence, shown, table
from results_families import limits_of, preset_of
from results_grid import BASELINE, STUDENT

from kd_core.metrics.retention import retention

FIGURE = "results-mpe.svg"
# The targets at full observation.
RETENTION_TARGET, FLOPS_TARGET = 0.95, 28.6


def summary(evidence: Evidence) -> str:
    """The README's table: what is kept of the teacher, at what cost, beside the paper."""
    head = ("task", "limits", "teacher", "student", "kept", "paper keeps", "FLOPs, times fewer")
    rows = []
    for task in evidence.grid.tasks:
        for setting in evidence.grid.settings:
            kept = paper_retention(task, setting)
            row = [mpe_notes.short(task), setting.replace("-", ", ")]
            row += [shown(evidence.student(task, setting, policy, "return_mean")) for policy in ("teacher", "student")]
            row.append(shown(evidence.student(task, setting, "retention"), **PERCENT))
            row.append("-" if kept is None else f"{100 * kept:.1f} %")
            row.append(shown(evidence.student(task, setting, "flops_ratio"), digits=1))
            rows.append(row)
    return (
        f"Returns of the greedy policies over {', '.join(map(str, evidence.episodes))} episodes, mean of "
        f"{evidence.seeds} ± 95 % interval over seeds; kept is 1 - |S - T| / |T|, as in the paper. "
        f"{mpe_notes.COOPERATIVE} {mpe_notes.OWN_ACTION.format(masks='docs/masks.md')}\n\n"
        f"{table(head, rows)}"
    )


def section(evidence: Evidence) -> list[str]:
    """The paragraphs below the family's heading."""
    parts = [
        mpe_notes.HOW_TO_READ,
        f"![Retention for each task and setting, with the paper's values]({FIGURE})",
        "### Does it hold?",
        "\n".join(f"- {line}" for line in targets(evidence)),
    ]
    for task in evidence.grid.tasks:
        parts += _task(evidence, task)
    return parts


def figures(evidence: Evidence) -> dict[str, str]:
    """File name -> SVG: retention for each task and setting."""
    words = results_figure.Words(
        title="How much of the teacher's return the students keep",
        axis="retention 1 - |S-T|/|T|, per cent",
        paper="the paper, Table II (LH, LH+A)",
    )
    return {FIGURE: results_figure.panels(_panels(evidence), words, shows=(90.0, 100.0))}


def _panels(evidence: Evidence) -> list[results_figure.Panel]:
    rows = []
    for task in evidence.grid.tasks:
        points = []
        for setting in evidence.grid.settings:
            ours, paper = evidence.student(task, setting, "retention"), paper_retention(task, setting)
            mean, (low, high) = (None, (None, None)) if ours is None else (ours.mean, ours.ends)
            points.append(results_figure.Point(setting, mean, low, high, paper))
        rows.append(results_figure.Panel(mpe_notes.short(task), 1.0, points))
    return rows


def paper_retention(task: str, setting: str) -> float | None:
    """Retention by Table II, 1 - |S-T|/|T|; None for full observation, where the paper has the teacher alone."""
    values = mpe_notes.PAPER.get(task)
    limits = limits_of(setting)
    if values is None or limits == "fo":
        return None
    return retention(getattr(values, limits)[0], values.fo[0], win_rate=False)


def _task(evidence: Evidence, task: str) -> list[str]:
    """The section of one task."""
    grid = evidence.grid
    example = grid.row(STUDENT, task, grid.settings[0])[0]
    parts = [f"### {mpe_notes.short(task)}", "#### Teacher, student, random", _results_table(evidence, task)]
    parts.append(f"The first row's first run: `{grid.shell_line(example)}`.")
    if task in mpe_notes.PAPER:
        parts += ["#### The paper's Table II", _paper_table(task)]
        if task in mpe_notes.PAPER_REMARKS:
            parts.append(mpe_notes.PAPER_REMARKS[task])
    sight = sight_of(grid.settings[0])
    steps = grid.steps(task, sight)
    parts += [
        "#### Against MAPPO trained directly under the same limit",
        "The host's recurrent `mappo`, central critic and agents 32 wide, trained for "
        f"{'an unknown number of' if steps is None else f'{steps:,}'} environment steps: as many as the teacher, the "
        "expert buffer and the students took together. lha has lh's baseline. Returns, for both ways of acting; the "
        "sentences below take each at its better one:",
        baseline_table(evidence, task),
        f"The first row's first baseline: `{grid.shell_line(grid.row(BASELINE, task, sight)[0])}`.",
        "\n".join(f"- {setting}: {against_baseline(evidence, task, setting)[1]}." for setting in grid.settings),
        "#### Who sees what",
    ]
    for preset in dict.fromkeys(preset_of(setting) for setting in grid.settings if preset_of(setting)):
        parts.append("\n".join([f"**{preset}**", "", *(f"- {line}" for line in _sight(evidence, task, preset))]))
        if (task, preset) in mpe_notes.WHY:
            parts.append(mpe_notes.WHY[task, preset])
    return parts


def _results_table(evidence: Evidence, task: str) -> str:
    head = (
        *("setting", "teacher", "student", "random", "retention", "retention over random", "FLOPs, times fewer"),
        *("agreement", "widths", "seeds", "paper: return (retention)"),
    )
    rows = []
    for setting in evidence.grid.settings:

        def cell(*path: str, setting: str = setting, **style: Any) -> str:
            return shown(evidence.student(task, setting, *path), **style)

        rows.append(
            (
                setting,
                *(cell(policy, "return_mean") for policy in ("teacher", "student", "random")),
                cell("retention", **PERCENT),
                cell("retention_normalised", **PERCENT),
                cell("flops_ratio", digits=1),
                cell("agreement", **PERCENT),
                evidence.widths(task, setting),
                evidence.made(STUDENT, task, setting),
                _paper_cell(task, setting),
            )
        )
    return table(head, rows)


def _paper_cell(task: str, setting: str) -> str:
    values = mpe_notes.PAPER.get(task)
    if values is None:
        return "-"
    limits = limits_of(setting)
    mean, spread = getattr(values, limits)
    kept = paper_retention(task, setting)
    return f"{mean:.1f} ± {spread}" + (" (MAPPO)" if kept is None else f" ({100 * kept:.1f} %)")


def _paper_table(task: str) -> str:
    values = mpe_notes.PAPER[task]
    head = ("MAPPO FO", "KD-MARL LH", "its retention", "KD-MARL LH+A", "its retention", "FLOPs, times fewer")
    kept = [f"{100 * (paper_retention(task, setting) or 0.0):.1f} %" for setting in ("lh-paper", "lha-paper")]
    fo, lh, lha = (f"{mean:.1f} ± {spread}" for mean, spread in (values.fo, values.lh, values.lha))
    return table(head, [(fo, lh, kept[0], lha, kept[1], f"{values.flops_ratio:.1f}")])


def targets(evidence: Evidence) -> list[str]:
    """A line for each target: what it is, whether it holds, and the numbers."""
    lines = []
    for task in evidence.grid.tasks:
        kept, ratio = evidence.student(task, "fo", "retention"), evidence.student(task, "fo", "flops_ratio")
        name = mpe_notes.short(task)
        target = f"{name}, fo: at least {100 * RETENTION_TARGET:.0f} % retention at {FLOPS_TARGET} times fewer FLOPs"
        if kept is None or ratio is None:
            lines.append(f"{target}: **{NOT_MEASURED}**")
            continue
        holds = kept.mean >= RETENTION_TARGET and ratio.mean >= FLOPS_TARGET
        numbers = f"{kept.text(100, 1, ' %')} at {ratio.text(digits=1)} times fewer"
        lines.append(f"{target}: **{'yes' if holds else 'no'}** ({numbers})")
    for task in evidence.grid.tasks:
        for setting in evidence.grid.settings:
            answer, sentence = against_baseline(evidence, task, setting)
            reason = "" if answer == NOT_MEASURED else f" ({sentence})"
            lines.append(
                f"{mpe_notes.short(task)}, {setting}: not worse than MAPPO under the same limit: **{answer}**{reason}"
            )
    return lines


def _sight(evidence: Evidence, task: str, preset: str) -> list[str]:
    """A line for each agent."""
    # Late: on an EPyMARL checkout the host must be loaded before `envs` is.
    from envs.hetero_mask import layout_for, mask_for

    facts = evidence.grid.teacher(task) or {}
    mask = mask_for(layout_for(task, facts["n_agents"], facts["obs_size"]), "lh", preset)
    lines = []
    for agent, name in enumerate(mask.layout.agent_names):
        of = f"of {len(mask.layout.real(agent))} features"
        if mask.draw_sizes is None:
            lines.append(f"agent {agent} ({name}): {', '.join(mask.names(agent))}; {len(mask.indices(agent))} {of}")
        else:
            low, high = mask.draw_sizes[agent]
            count = str(low) if low == high else f"{low} to {high}"
            lines.append(f"agent {agent} ({name}): {count} {of}, drawn anew each episode")
    return lines
