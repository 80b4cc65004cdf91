"""`profile.json`, the collaboration profile: what a team of students is, needs, costs and has been measured to do."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

from kd_controllers.student_net import HeteroStudent
from kd_controllers.talking_net import TalkingStudent
from kd_core import files
from kd_core.costs.flops import closed_formula
from kd_core.costs.footprint import FLOAT_BYTES, LEVELS, WEIGHTS, footprint, parameter_count
from kd_core.versions import package_version
from kd_envs.hetero_mask import naming
from kd_envs.hetero_mask.mask import ObservationMask
from kd_marl.runs import stress_file
from kd_marl.runs.student_run import StudentRun
from kd_onboard.profile import FORMAT, VERSION, AgentMessages

SCHEMA_FILE = Path(__file__).parent / "profile.schema.json"
# An absolute path inside a text, or one below a home folder: what stands before it, and its last part.
_ABSOLUTE = re.compile(r"""(^|[\s='"\[{(,:])(?:~[^\s/]*)?/(?:[^\s'"\]}),]*/)?([^\s/'"\]}),]*)""")
# What the programs of a bundle are made with.
PACKAGES = ("kd-marl", "onnx", "onnxruntime")
# Scores of summary.json that a bundle repeats, so that its measure is at hand where it runs.
_SCORED = ("student", "teacher", "random")


@lru_cache
def schema() -> dict[str, Any]:
    """Return the JSON Schema of `profile.json`."""
    return json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))


def agent_facts(run: StudentRun, agent: int) -> dict[str, Any]:
    """Return the facts of an agent that no file is needed for: interface, size and cost."""
    mask = run.mask
    name = mask.layout.agent_names[agent]
    rows = naming.features(mask, agent)
    width = run.network.widths[agent]
    messages = agent_messages(run.network, agent)
    exchanged = (0, 0, 1) if messages is None else messages.exchanged
    actions = naming.action_names(run.config["env"], mask.layout.task, name, run.network.n_actions)
    return {
        "index": agent,
        "name": name,
        "network": {"type": "gru", "activation": "relu"},
        "width": width,
        "inputs": len(rows),
        "features": rows,
        "draw_sizes": None if mask.draw_sizes is None else list(mask.draw_sizes[agent]),
        "actions": actions,
        "noop_action": naming.noop_action(actions),
        **costs(len(rows), width, run.network.n_actions, WEIGHTS[0], *exchanged),
        # Runs before there were budgets say nothing of them.
        "budget": (run.facts.get("budget") or [None] * mask.n_agents)[agent],
        **({} if messages is None else {"messages": messages.to_dict()}),
    }


def agent_messages(network: HeteroStudent, agent: int) -> AgentMessages | None:
    """Return what an agent tells others and hears from them; None for one that neither speaks nor hears."""
    if not isinstance(network, TalkingStudent):
        return None
    team = network.messages
    hears, heard_by = team.speakers(agent), team.hearers(agent)
    if not hears and not heard_by:
        return None
    return AgentMessages(team.bits, team.every, team.latency, tuple(hears), tuple(heard_by), team.number_bits)


def team_messages(run: StudentRun) -> dict[str, Any] | None:
    """Return what a talking team's radio must carry, and what a lossy one was measured to leave of it.

    Returns:
        The bits that an agent sends a step and a second, the loss in training, and one entry for each loss that
        `kd-marl stress` has measured of this run. None for a silent team.
    """
    if not isinstance(run.network, TalkingStudent):
        return None
    team = run.network.messages
    rate = naming.steps_per_second(run.config["env"], run.mask.layout)
    measured = files.read_json(run.folder / stress_file.FILE) if (run.folder / stress_file.FILE).is_file() else {}
    lost = [row for row in measured.get("rows", ()) if row["kind"] in ("none", "message loss")]
    return {
        "bits_per_step": team.bits_per_step(),
        "bits_per_second": None if rate is None else team.bits_per_step() * rate,
        "trained_loss": team.loss,
        "measured_in": measured.get("measures"),
        "measured": [
            {"loss": row["level"] or 0.0, "student": row["student_mean"], "episodes": row["episodes"]} for row in lost
        ],
    }


def costs(
    inputs: int, width: int, n_actions: int, weights: str, inbox: int = 0, outbox: int = 0, number_bits: int = 1
) -> dict[str, int]:
    """Return what an agent of these sizes costs, by formula.

    Args:
        inputs: features.
        width: hidden width.
        n_actions: number of actions.
        weights: of its C, one of `kd_core.costs.footprint.WEIGHTS`.
        inbox: numbers that it hears a step.
        outbox: numbers that it says.
        number_bits: of each.
    """
    fast, small = (
        footprint(inputs, width, n_actions, level, weights=weights, inbox=inbox, outbox=outbox) for level in LEVELS
    )
    parameters = parameter_count(inputs, width, n_actions, inbox, outbox)
    return {
        "parameters": parameters,
        "flops_per_decision": closed_formula(
            inputs, width, n_actions, inbox=inbox, outbox=outbox, number_bits=number_bits
        ),
        "weights_bytes": FLOAT_BYTES * parameters,
        "state_bytes": fast.state,
        "flash_bytes": fast.flash,
        "ram_bytes": fast.ram,
        "flash_bytes_os": small.flash,
        "ram_bytes_os": small.ram,
    }


def _portable(value: Any) -> Any:
    """Leave out of texts where a file lies on this machine: of an absolute path its last part stays.

    A checkpoint is a folder of steps, so it keeps the run's folder before that number.
    """
    if isinstance(value, str):
        if not value.startswith(("/", "~")):
            return _ABSOLUTE.sub(r"\1\2", value)
        # Folders may have spaces in their names, so a text that is a path as a whole is taken as one.
        parts = Path(value).parts[1:]
        return "/".join(parts[-2:] if parts[-1:] and parts[-1].isdigit() else parts[-1:])
    if isinstance(value, Mapping):
        return {key: _portable(child) for key, child in value.items()}
    return [_portable(child) for child in value] if isinstance(value, list | tuple) else value


def _portable_command(command: str) -> str:
    """Do so in each word of a command line, in the value of ``key=value``."""
    try:
        words = [word.partition("=") for word in shlex.split(command)]
    except ValueError:
        return _portable(command)
    return shlex.join(key + sign + _portable(value) if sign else _portable(key) for key, sign, value in words)


def _extended_size(mask: ObservationMask) -> int:
    """Return the length of an observation with all that can follow it, whether an agent sees it or not."""
    return mask.obs_size if mask.sensor_status else mask.layout.n_features + mask.own_actions


def team_facts(run: StudentRun, episode_limit: int, on_fault: str, buffer: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return everything of the profile but its agents and files.

    Args:
        run: the student.
        episode_limit: steps of an episode.
        on_fault: ``raise``, ``hold`` or ``noop``.
        buffer: sha256 of the expert buffer's facts and its number of episodes, if it was found.
    """
    layout, summary = run.mask.layout, run.summary
    messages = team_messages(run)
    return {
        "format": FORMAT,
        "version": VERSION,
        "task": {
            "name": run.task,
            "layout": layout.task,
            "env": run.config["env"],
            "env_args": _portable(run.config["env_args"]),
            "n_agents": layout.n_agents,
            "n_actions": run.network.n_actions,
            "obs_size": layout.obs_size,
            "extended_size": _extended_size(run.mask),
            "episode_limit": episode_limit,
        },
        "on_fault": on_fault,
        **({"messages": messages} if messages else {}),
        "measured": {
            **{name: {**summary[name], "episodes": summary["episodes"]} for name in _SCORED},
            "retention": summary["retention"],
            "agreement": summary["agreement"],
        },
        "provenance": {
            "run": run.record,
            "checkpoint": "/".join(run.checkpoint.parts[-2:]),
            "command": _portable_command(run.facts["command"]),
            "seed": run.facts["seed"],
            "limits": summary["limits"],
            "masks_preset": summary["masks_preset"],
            "sharing": run.config["sharing"],
            "runner": run.config["runner"],
            "batch_size_run": run.config["batch_size_run"],
            **{key: run.config[key] for key in ("common_reward", "reward_scalarisation")},
            "teacher": _portable(run.facts["teacher"]),
            **({"ancestor": _portable(run.facts["ancestor"])} if "ancestor" in run.facts else {}),
            "buffer": buffer,
            "commit": run.commit,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "versions": {name: package_version(name) for name in PACKAGES},
        },
    }
