"""Layouts of the tasks that are known by their key, or by what their environment says of itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from kd_core.errors import UserError
from kd_envs.hetero_mask.battles import battle_parts, name_features
from kd_envs.hetero_mask.layouts import AgentLayout, FeatureLayout, plain_layout
from kd_envs.hetero_mask.stated_layout import layout_fault
from kd_envs.hetero_mask.warehouse import CELL, OWN, sensor_range


def layout_for(task_key: str, n_agents: int, obs_size: int, info: Mapping[str, Any] | None = None) -> FeatureLayout:
    """Build the layout of an environment.

    Args:
        task_key: the environment's key or map name, such as "pz-mpe-simple-spread-v3".
        n_agents: number of agents that the environment reports.
        obs_size: length of the padded observation that it reports.
        info: its other facts: ``layout``, the layout itself as `FeatureLayout.to_dict` gives it, or those by which
            battles are recognised (`battles.battle_parts`).

    Returns:
        The named layout of a known task or battle; else a plain one whose features are called "0", "1", ... by index.

    Raises:
        UserError: the key names a known task, but the sizes are not that task's; or a stated layout has a fault.
    """
    if info and "layout" in info:
        fault = layout_fault({"layout": info["layout"], "n_agents": n_agents, "obs_shape": obs_size})
        if fault:
            raise UserError(f"{fault}; kd-marl env check looks at all of an environment")
        return FeatureLayout.from_dict(info["layout"])
    match = re.fullmatch(r"(?:pz_)?(?:mpe2?_)?(\w+?)(?:_v\d+)?", task_key.lower().replace("-", "_"))
    build = KNOWN_LAYOUTS.get(match.group(1)) if match else None
    if build is None:
        parts = battle_parts(info or {}, n_agents, obs_size)
        if not parts:
            return _named_by_key(task_key, n_agents, obs_size) or plain_layout(task_key, n_agents, obs_size)
        agents = (AgentLayout(f"agent_{i}", *name_features(parts, i)) for i in range(n_agents))
        return FeatureLayout(task_key, tuple(agents), obs_size)
    layout = build(n_agents, obs_size)
    if layout.n_agents != n_agents or layout.obs_size != obs_size:
        raise UserError(
            f"{task_key} gives {n_agents} agents {obs_size} features each, but {layout.task} is known with"
            f" {layout.n_agents} agents and {layout.obs_size} features: remove the env_args that change observations"
        )
    return layout


def _xy(*stems: str) -> tuple[str, ...]:
    return tuple(f"{stem}.{axis}" for stem in stems for axis in "xy")


def _agent(name: str, obs_size: int, **parts: tuple[str, ...]) -> AgentLayout:
    """Build an MPE agent whose observation is `parts` in order (A_P for the block A(P)), padded at the end."""
    blocks = {"A(P)" if key == "A_P" else key: names for key, names in parts.items() if names}
    features = tuple(name for names in blocks.values() for name in names)
    others = [name.split(".")[0] for name in blocks.get("A(P)", ())[::2]]
    derived = {}
    for other in others:
        first = features.index(f"{other}.x")
        derived[other.replace("A(P)", "D(A-A)")] = (first, first + 1)
    if derived:
        blocks["D(A-A)"] = tuple(derived)
    return AgentLayout(name, features + (None,) * (obs_size - len(features)), blocks, derived)


def _simple_spread(n_agents: int, obs_size: int) -> FeatureLayout:
    """Build 6 numbers an agent; the message block exists but is always zero, since no agent can speak."""
    obs_size = 6 * n_agents
    landmarks = _xy(*(f"L{k}" for k in range(n_agents)))
    agents = []
    for i in range(n_agents):
        others = [j for j in range(n_agents) if j != i]
        messages = tuple(f"M{j}.{k}" for j in others for k in range(2))
        positions = _xy(*(f"A(P){j}" for j in others))
        agents.append(_agent(f"agent_{i}", obs_size, V=_xy("V"), P=_xy("P"), L=landmarks, A_P=positions, M=messages))
    return FeatureLayout("simple_spread", tuple(agents), obs_size)


def _simple_speaker_listener(n_agents: int, obs_size: int) -> FeatureLayout:
    """Build a speaker that sees the goal's colour, and a listener that receives the last step's message."""
    speaker = _agent("speaker_0", 11, G=("G.red", "G.green", "G.blue"))
    listener = _agent("listener_0", 11, V=_xy("V"), L=_xy("L0", "L1", "L2"), M=("M0.0", "M0.1", "M0.2"))
    return FeatureLayout("simple_speaker_listener", (speaker, listener), 11)


def _simple_adversary(n_agents: int, obs_size: int) -> FeatureLayout:
    """Build one adversary and one good agent per landmark.

    A pretrained adversary is not an agent of the environment.
    """
    pretrained = obs_size == 4 * n_agents + 2
    n_good = n_agents if pretrained else n_agents - 1
    obs_size = 4 * n_good + 2
    landmarks = _xy(*(f"L{k}" for k in range(n_good)))
    agents = []
    if not pretrained:
        agents.append(_agent("adversary_0", obs_size, L=landmarks, A_P=_xy(*(f"A(P){j}" for j in range(1, n_agents)))))
    first = 0 if pretrained else 1
    for k in range(n_good):
        # Others come in order: the adversary (index 0, or no index of its own), then the other good agents.
        others = ["A(P)adversary" if pretrained else "A(P)0", *(f"A(P){j + first}" for j in range(n_good) if j != k)]
        agents.append(_agent(f"agent_{k}", obs_size, G=_xy("G"), L=landmarks, A_P=_xy(*others)))
    return FeatureLayout("simple_adversary", tuple(agents), obs_size)


def _named_by_key(task_key: str, n_agents: int, obs_size: int) -> FeatureLayout | None:
    """Build the layout of a warehouse, of foraging or of VMAS's navigation; None for any other key or size."""
    name = task_key.rpartition(":")[2]
    foraging = re.fullmatch(r"Foraging-(?:\d+s-)?\d+x\d+-\d+p-(\d+)f[\w-]*", name)
    if re.fullmatch(r"rware-[\w-]+", name) and (reach := sensor_range(obs_size)) is not None:
        agents = [_warehouse_robot(f"agent_{i}", reach) for i in range(n_agents)]
    elif foraging and obs_size == 3 * (int(foraging.group(1)) + n_agents):
        agents = [_forager(i, n_agents, int(foraging.group(1))) for i in range(n_agents)]
    elif name == "vmas-navigation" and obs_size in (_NAVIGATION, _NAVIGATION + _RAYS):
        rays = tuple(f"R.{k}" for k in range(obs_size - _NAVIGATION))
        parts = {"P": _xy("P"), "V": _xy("V"), "G": _xy("G"), "R": rays}
        agents = [_agent(f"agent_{i}", obs_size, **parts) for i in range(n_agents)]
    else:
        return None
    return FeatureLayout(task_key, tuple(agents), obs_size)


def _warehouse_robot(name: str, reach: int) -> AgentLayout:
    """Build a robot's own row, then the cells around it; a block for each ring of cells: ``R0`` is its own cell."""
    own = tuple(f"O.{feature}" for feature in OWN)
    rings: dict[str, tuple[str, ...]] = {f"R{ring}": () for ring in range(reach + 1)}
    cells: list[str] = []
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            row = tuple(f"{_compass(down, right)}.{feature}" for feature in CELL)
            rings[f"R{max(abs(down), abs(right))}"] += row
            cells += row
    return AgentLayout(name, (*own, *cells), {"O": own, **rings})


def _compass(down: int, right: int) -> str:
    """Name a cell by its way from the robot: ``N1W2`` is one up and two to the left, ``here`` its own."""
    parts = [(down, "NS"), (right, "WE")]
    return "".join(f"{letters[way > 0]}{abs(way)}" for way, letters in parts if way) or "here"


def _forager(agent: int, n_agents: int, food: int) -> AgentLayout:
    """Build a forager's rows: each food, itself, then the others by index."""

    def rows(*stems: str) -> tuple[str, ...]:
        return tuple(f"{stem}.{feature}" for stem in stems for feature in ("row", "column", "level"))

    others = (f"A{j}" for j in range(n_agents) if j != agent)
    blocks = {"F": rows(*(f"F{k}" for k in range(food))), "O": rows("O"), "A": rows(*others)}
    return AgentLayout(f"agent_{agent}", tuple(name for names in blocks.values() for name in names), blocks)


# Features of VMAS's navigation without its range finder, and the finder's rays.
_NAVIGATION, _RAYS = 6, 12

# Task name -> builder from (number of agents, length of the observation) as the environment reports them.
KNOWN_LAYOUTS: dict[str, Callable[[int, int], FeatureLayout]] = {
    "simple_spread": _simple_spread,
    "simple_speaker_listener": _simple_speaker_listener,
    "simple_adversary": _simple_adversary,
}
