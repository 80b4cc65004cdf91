"""What the page shows of one run: its result, its sight and its command, ready to be put into tables."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from kd_marl.dashboard.rows import BUFFER, STUDENT, Facts, command, mapping, moment, number, stage_of, text, whole
from kd_marl.evaluation.table import result_rows

# A hostile configuration may be as large as a file may be.
_MOST_KEYS, _LONGEST = 1000, 2000


def result(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the result table: its columns and rows of cells, None before there is a result."""
    if not summary:
        return None
    try:
        if "student" in summary:
            rows = [[label, *cells] for label, cells in result_rows(summary)]  # type: ignore[arg-type]
            return {"columns": ["", "teacher", "student", "random"], "rows": rows}
        return {"columns": ["", text(summary.get("algorithm")) or "policy"], "rows": _policy_rows(summary)}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return {"columns": ["", "damaged"], "rows": [["summary.json does not hold a result that kd-marl wrote", ""]]}


def sight(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what each agent sees: the blocks of features, and per agent how many of each; None if it is not said."""
    agents = summary.get("sees")
    if not isinstance(agents, list):
        return None
    rows, blocks = [], dict[str, None]()
    for agent in map(mapping, agents):
        cells = {}
        for block, counts in mapping(agent.get("blocks")).items():
            if isinstance(counts, list) and len(counts) == 2 and all(number(count) is not None for count in counts):
                cells[str(block)[:40]] = counts
                blocks[str(block)[:40]] = None
        drawn = agent.get("draw")
        ends = [number(end) for end in drawn] if isinstance(drawn, list) else []
        known = [end for end in ends if end is not None]
        share = " to ".join(f"{end:g}" for end in known) or f"{sum(counts[0] for counts in cells.values()):g}"
        rows.append(
            {"agent": text(agent.get("agent")), "blocks": cells, "seen": share, "of": number(agent.get("observed"))}
        )
    return {"blocks": list(blocks), "agents": rows[:200]}


def repeating_command(facts: Facts) -> str:
    """Write the command that repeats a run: its own, with the seed and the teacher that it was not given but had."""
    line = command(facts)
    try:
        words = shlex.split(line)
    except ValueError:
        return line
    if not words:
        return line
    # A run that went on from a checkpoint has that one's seed, which its configuration does not know.
    seed = next((n for part in (facts.summary, facts.config) if (n := whole(part.get("seed"))) is not None), None)
    had: dict[str, Any] = {"seed": seed}
    if stage_of(facts.config) in (BUFFER, STUDENT):
        teachers = (facts.lineage.get("teacher"), facts.summary.get("teacher_artifact"))
        paths = (mapping(teacher).get("path") for teacher in teachers)
        had["teacher"] = next((path for path in paths if isinstance(path, str) and path), None)
    lacking = [
        f"{key}={value}"
        for key, value in had.items()
        if value is not None and not any(word.startswith(f"{key}=") for word in words)
    ]
    return " ".join([line, *(["with"] if lacking and "with" not in words else []), *map(shlex.quote, lacking)])


def masks_command(facts: Facts) -> str:
    """Write the command that shows what each agent of a run sees, before it has a result; "" where it hides nothing."""
    try:
        words = shlex.split(command(facts))
    except ValueError:
        return ""
    environment = next((word for word in words if word.startswith("--env-config=")), "")
    limits = text(facts.config.get("limits"))
    if not environment or limits in ("", "fo"):
        return ""
    env_args = mapping(facts.config.get("env_args"))
    task = [f"--{name.replace('_', '-')}={env_args[name]}" for name in ("key", "map_name") if text(env_args.get(name))]
    return shlex.join(["kd-marl", "masks", environment, *task, f"--limits={limits}"])


def machine(account: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List where and from which source a run was made."""
    host, experiment = mapping(account.get("host")), mapping(account.get("experiment"))
    packages = experiment.get("dependencies")
    torch = (
        [package for package in packages if text(package).startswith("torch=")] if isinstance(packages, list) else []
    )
    repositories = experiment.get("repositories")
    first = mapping(repositories[0]) if isinstance(repositories, list) and repositories else {}
    commit = text(first.get("commit"))[:12] + (" with local changes" if first.get("dirty") else "")
    facts = [
        ("machine", text(host.get("hostname"))),
        ("processor", text(host.get("cpu"))),
        ("Python", text(host.get("python_version"))),
        ("PyTorch", torch[0].partition("==")[2] if torch else ""),
        ("commit", commit if text(first.get("commit")) else ""),
    ]
    return [(name, value) for name, value in facts if value]


def times(account: Mapping[str, Any]) -> dict[str, float | None]:
    """Return when a run started, was last heard of, and ended."""
    return {
        name: moment(account.get(f"{name}_time" if name != "heartbeat" else name))
        for name in ("start", "heartbeat", "stop")
    }


def settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List a configuration's keys and values as text."""
    found: list[tuple[str, str]] = []
    for key, value in list(config.items())[:_MOST_KEYS]:
        inner = {f"{key}.{name}": part for name, part in value.items()} if isinstance(value, Mapping) else {key: value}
        found += [(str(name)[:_LONGEST], _shown(part)) for name, part in list(inner.items())[:_MOST_KEYS]]
    return found


def _policy_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    rows: list[list[str]] = []
    for suffix, score in (("", summary["policy"]), (", actions sampled", summary["policy"].get("sampled"))):
        if score:
            rows.append([f"return{suffix}", f"{score['return_mean']:.2f} ± {score['return_std']:.2f}"])
            if score.get("win_rate") is not None:
                rows.append([f"win rate{suffix}", f"{100 * score['win_rate']:.1f} %"])
    for label, name in (
        ("parameters of an agent", "params"),
        ("FLOPs per decision", "flops_per_decision"),
        ("FLOPs per episode", "flops_per_episode"),
        ("microseconds, joint decision", "decision_us"),
    ):
        if (value := number(summary.get(name))) is not None:
            rows.append([label, f"{value:,.0f}" if value.is_integer() else f"{value:,.1f}"])
    return rows


def _shown(value: Any) -> str:
    try:
        shown = value if isinstance(value, str) else "" if value is None else str(value)
    except RecursionError:
        return "(nested too deeply to be shown)"
    return shown[:_LONGEST]
