"""Names of an agent's inputs and actions, and units of its features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kd_envs.hetero_mask.layouts import FeatureLayout
from kd_envs.hetero_mask.mask import ObservationMask

_WORLD, _SPEED, _NUMBER = "world units", "world units/s", "1"
# Task of a layout -> block -> unit. MPE's arena spans -1 to 1 in world units.
_UNITS: Mapping[str, Mapping[str, str]] = {
    "simple_spread": {"V": _SPEED, "P": _WORLD, "L": _WORLD, "A(P)": _WORLD, "D(A-A)": _WORLD, "M": _NUMBER},
    "simple_speaker_listener": {"G": _NUMBER, "V": _SPEED, "L": _WORLD, "M": _NUMBER},
    "simple_adversary": {"G": _WORLD, "L": _WORLD, "A(P)": _WORLD, "D(A-A)": _WORLD},
}
_MPE_MOVES = ("no_action", "move_left", "move_right", "move_down", "move_up")
_STARCRAFT_MOVES = ("no-op", "stop", "north", "south", "east", "west")
_SMAX_MOVES = ("north", "east", "south", "west", "stop")
_MOVES = {
    "smax": _SMAX_MOVES,
    "sc2": _STARCRAFT_MOVES,
    "sc2v2": _STARCRAFT_MOVES,
    "smaclite": _STARCRAFT_MOVES,
}
# Steps in a second of the simulated world, by the environments' own time step: MPE 0.1 s, SMAX 8 times 1/16 s.
_MPE_RATE, _SMAX_RATE = 10.0, 2.0
# Heading for features in no block, such as SMAC's move bits.
NO_BLOCK = "other"
# Actions that do nothing, best first. SMAC's no-op is missing: only the dead may take it.
_IDLE = ("no_action", "stop")


def features(mask: ObservationMask, agent: int) -> list[dict[str, Any]]:
    """List an agent's inputs in order.

    Returns:
        For each: ``index`` in the extended observation, ``name``, and ``unit`` and ``block``, None where the layout
        does not know them. ``derived_from`` is None or the observation's elements whose Euclidean norm it is. The
        inputs of an own last action also have ``own_action``, the action's number; those of a sensor's status
        ``status_of``, the feature's index.
    """
    layout = mask.layout.agents[agent]
    blocks = {name: letter for letter, names in layout.blocks.items() for name in names}
    units = mask.layout.units or _UNITS.get(mask.layout.task, {})
    rows = []
    for index, name in zip(mask.indices(agent), mask.names(agent), strict=True):
        block = blocks.get(name)
        source = layout.derived.get(name)
        row = {
            "index": index,
            "name": name,
            "unit": units.get(block) if block else None,
            "block": block,
            "derived_from": None if source is None else list(source),
        }
        if index >= mask.own_start:
            row |= {"unit": _NUMBER, "own_action": index - mask.own_start}
        elif index >= mask.sensed_size:
            row |= {"unit": _NUMBER, "status_of": index - mask.sensed_size}
        rows.append(row)
    return rows


def steps_per_second(env: str, layout: FeatureLayout) -> float | None:
    """Return how many steps a task takes in a second of its world; None where it does not say.

    Args:
        env: the environment's name in EPyMARL's registry.
        layout: names of the task's features.
    """
    if env == "smax":
        return _SMAX_RATE
    if layout.step_seconds:
        return 1 / layout.step_seconds
    return _MPE_RATE if layout.task in _UNITS else None


def action_names(env: str, layout_task: str, agent_name: str, n_actions: int) -> list[str | None]:
    """Name each action.

    Args:
        env: the environment's name in the run, e.g. ``gymma`` or ``smax``.
        layout_task: the task of the feature layout.
        agent_name: the agent's name there.
        n_actions: size of the action space, that of the agent with most actions.

    Returns:
        One name per action; None for an action that this agent never has.
    """
    if agent_name.startswith("speaker") and layout_task == "simple_speaker_listener":
        return _padded(("say_0", "say_1", "say_2"), n_actions)
    if layout_task in _UNITS:
        return _padded(_MPE_MOVES, n_actions)
    if env == "traffic":
        return [f"phase_{k}" for k in range(n_actions)]
    if moves := _MOVES.get(env):
        return [*moves, *(f"target_{k}" for k in range(n_actions - len(moves)))]
    return [f"action_{k}" for k in range(n_actions)]


def noop_action(names: list[str | None]) -> int | None:
    """Find the action that does nothing; None if no name tells."""
    return next((names.index(name) for name in _IDLE if name in names), None)


def identifier(agent_name: str) -> str:
    """Convert the agent's name to a part of file names and C symbols."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in agent_name).lower()


def _padded(names: tuple[str, ...], n_actions: int) -> list[str | None]:
    return [*names, *[None] * (n_actions - len(names))]


def sight(mask: ObservationMask) -> list[dict[str, Any]]:
    """Describe each agent's visible features by block.

    Returns:
        For each agent: ``agent``, its name. ``blocks``: letter -> number of visible features and of all; derived blocks
        only if visible; ``other`` for features in no block. ``observed``: number of features it observes, without the
        derived ones. ``draw``: None, or the fewest and most features that an episode shows.
    """
    rows = []
    for agent, layout in enumerate(mask.layout.agents):
        seen = set(mask.names(agent))
        blocks = {
            letter: [len(seen.intersection(names)), len(names)]
            for letter, names in layout.blocks.items()
            if seen.intersection(names) or not set(names) <= set(layout.derived)
        }
        if loose := [layout.features[i] for i in layout.loose]:
            blocks[NO_BLOCK] = [len(seen.intersection(loose)), len(loose)]
        draw = None if mask.draw_sizes is None else list(mask.draw_sizes[agent])
        rows.append({"agent": layout.name, "blocks": blocks, "observed": len(mask.layout.real(agent)), "draw": draw})
    return rows
