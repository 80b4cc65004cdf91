"""Who sees what: for each agent how much of each block of its observation its student gets."""

from __future__ import annotations

from typing import Any

from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from kd_marl.report.drawing import INK, Picture, Sheet, grid_of
from kd_marl.report.groups import Group, Groups, Task
from kd_marl.report.methods import LIMITS, STUDENT, file_name, short_task, task_title

# Own, allies, enemies; and the particles' blocks. What is in no block is grey.
_COLOURS = {
    "O": "#e69f00",
    "A": "#0072b2",
    "E": "#d55e00",
    "T": "#999933",
    "L": "#d55e00",
    "A(P)": "#0072b2",
    "V": "#009e73",
    "P": "#e69f00",
    "M": "#cc79a7",
    "G": "#882255",
    "D(A-A)": "#56b4e9",
}
_MEANING = {
    "O": "own",
    "A": "allies",
    "E": "enemies",
    "T": "terrain",
    "L": "landmarks",
    "A(P)": "others' positions",
    "V": "own velocity",
    "P": "own position",
    "M": "messages",
    "G": "goal",
    "D(A-A)": "distances (derived)",
    "other": "in no block",
}
_HIDDEN = "#eeeeee"
# Blocks of which a random part is seen; lines, since dots would make files of a megabyte.
_DRAWN: dict[str, Any] = {"alpha": 0.55, "hatch": "\\\\"}


def masked_groups(groups: Groups, task: Task) -> list[Group]:
    """Choose a group for each limit and mask of a task, KD-MARL's where there is one; full observation is left out."""
    chosen: dict[tuple[str, str], Group] = {}
    for group in groups.of_task(task):
        if (group.cell.limits != "fo" or group.cell.sight) and (
            group.cell[2:] not in chosen or group.cell.method == STUDENT
        ):
            chosen[group.cell[2:]] = group
    return [chosen[key] for key in sorted(chosen, key=lambda key: (LIMITS.index(key[0]), key[1]))]


def who_sees_what(groups: Groups, task: Task) -> Picture | None:
    """Draw a panel for each limit; None if no run of the task states it."""
    able = [group for group in masked_groups(groups, task) if group.runs[0].summary.get("sees")]
    if not able:
        return None
    agents = len(able[0].runs[0].summary["sees"])
    name = file_name("sight", short_task(task[1]), task[0])
    title = f"Who sees what: {task_title(task)}"
    used: dict[str, None] = {}
    with Sheet(name, *grid_of(len(able), 2), (5.6, 1.1 + 0.33 * agents)) as sheet:
        for axes, group in sheet.panels(able):
            rows = group.runs[0].summary["sees"]
            widths = group.widths
            for row, sees in enumerate(rows):
                start = 0
                for block, (seen, of) in sees["blocks"].items():
                    used[block] = None
                    colour = _COLOURS.get(block, "#999999")
                    if seen:
                        drawn = _DRAWN if sees["draw"] is not None else {}
                        axes.barh(row, seen, left=start, color=colour, edgecolor="white", height=0.72, **drawn)
                        if seen >= 0.06 * _most(rows):
                            middle, ink = start + seen / 2, INK if drawn else "white"
                            axes.text(middle, row, block, ha="center", va="center", color=ink, fontsize=8)
                    if of > seen:
                        hidden = {"color": _HIDDEN, "edgecolor": "#bbbbbb", "hatch": "///", "linewidth": 0.4}
                        axes.barh(row, of - seen, left=start + seen, height=0.72, **hidden)
                    start += of
                note = beside(sees, widths[row] if widths else None)
                axes.text(start + 0.01 * _most(rows), row, note, va="center", fontsize=8.5)
            axes.set_yticks(range(agents), [_agent(row, sees) for row, sees in enumerate(rows)], fontsize=9)
            axes.set_ylim(agents - 0.4, -0.6)
            axes.set_xlim(0, (1.9 if any(sees["draw"] for sees in rows) else 1.45) * _most(rows))
            ticks = MaxNLocator(5, integer=True).tick_values(0, _most(rows))
            axes.set_xticks([tick for tick in ticks if 0 <= tick <= _most(rows)])
            axes.set_xlabel("features of the observation")
            axes.set_title(group.inputs_title)
            axes.spines[["top", "right"]].set_visible(False)
        handles = [Patch(color=_COLOURS.get(block, "#999999"), label=_label(block)) for block in used]
        handles.append(Patch(facecolor=_HIDDEN, edgecolor="#bbbbbb", hatch="///", label="hidden"))
        if any(sees["draw"] is not None for group in able for sees in group.runs[0].summary["sees"]):
            handles.append(
                Patch(facecolor="#777777", edgecolor="white", **_DRAWN, label="some of it, drawn each episode")
            )
        sheet.legend(handles, 4)
        return Picture(name, title, sheet.svg(title))


def _most(rows: list[dict[str, Any]]) -> int:
    return max(sum(of for _, of in sees["blocks"].values()) for sees in rows)


def beside(sees: dict[str, Any], width: int | None = None) -> str:
    """Say how many features an agent's student gets of those that are observed: ``5 of 11``."""
    seen, of = sum(pair[0] for pair in sees["blocks"].values()), sees.get("observed", "unknown")
    if sees["draw"] is not None:
        low, high = sees["draw"]
        text = f"{low if low == high else f'{low} to {high}'} of {of}, drawn each episode"
    else:
        text = f"{seen} of {of}"
    return text + (f"; width {width}" if width else "")


def _agent(row: int, sees: dict[str, Any]) -> str:
    """Write its number, with its name where that says more."""
    return f"agent {row}" if sees["agent"] == f"agent_{row}" else f"{row}: {sees['agent']}"


def _label(block: str) -> str:
    return f"{block}: {_MEANING[block]}" if block in _MEANING and block != "other" else _MEANING.get(block, block)
