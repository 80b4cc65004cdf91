"""Masks and widths by name: the limits ``fo``, ``lh`` and ``lha``, the presets, and masks that a user writes.

The presets of a task are in ``preset_files/<task>.yaml``. A battle on any other map follows `BATTLE_ROWS` and
`battle_widths`, which generalise the paper's Table I. `mask_for` builds every mask from a run's keys.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kd_core import yaml_text
from kd_core.errors import UserError, nearest
from kd_envs.hetero_mask.known_layouts import KNOWN_LAYOUTS
from kd_envs.hetero_mask.layouts import FeatureLayout
from kd_envs.hetero_mask.mask import ObservationMask

LIMITS = ("fo", "lh", "lha")
PRESETS = ("paper", "random", "nearer")
HOW_TO_WRITE = "write it as 0: [L, A(P)], 1: [V]"
FOLDER = Path(__file__).parent / "preset_files"

# The paper's students under LH+A are 16 to 32 wide.
LHA_WIDTHS = (16, 32)
# Battles on maps that are not in Table I: agent i sees the blocks of row i modulo 8. These are 8m's rows. In this order
# the first three are those of 3m, and three of the first five see enemies, as in 5m_vs_6m.
BATTLE_ROWS = (("E",), ("A",), ("A", "O"), ("E",), ("A", "E"), ("A",), ("E", "O"), ("E",))
# The paper draws 8 to 10 of 18 features; for any other number of features half of them are drawn.
PAPER_FEATURES, PAPER_DRAW = 18, (8, 10)


def mask_for(
    layout: FeatureLayout,
    limits: str,
    preset: str = "paper",
    masks: Mapping[Any, Any] | str | None = None,
    own_actions: int = 0,
    sensor_status: bool = False,
) -> ObservationMask:
    """Build the mask that a run's keys ask for.

    Args:
        layout: the environment's layout.
        limits: "fo" full observations, "lh" or "lha" the preset's mask (they differ in the students' widths only).
        preset: "paper", "random", "nearer" or one that the environment brings; not read under "fo".
        masks: agent index or name -> features, in place of those of limits and preset. Agents that are not named have
            the preset's. A mapping, or text or the path of a file for `read_masks`.
        own_actions: number of actions, for agents that see their own last one; else 0.
        sensor_status: whether agents are told which of their drawn features an episode shows.

    Returns:
        The mask.

    Raises:
        UserError: an unknown name, a preset that this task lacks, a mask that hides everything from an agent, or a
            status of sensors that never change.
    """
    if limits not in LIMITS:
        raise UserError(f"unknown limits {limits!r}; {nearest(limits, LIMITS)}")
    if preset not in (*PRESETS, *layout.presets):
        raise UserError(f"unknown masks_preset {preset!r}; {nearest(preset, [*PRESETS, *layout.presets])}")
    given = read_masks(masks)
    rows = {_agent_index(layout, key): key for key in given}
    if len(rows) < len(given):
        raise UserError(f"masks names an agent of {layout.task} twice: use its index or its name, not both")
    visible = np.zeros((layout.n_agents, layout.n_features), bool)
    sizes: list[tuple[int, int]] | None = None
    if limits != "fo" and preset == "random":
        sizes = []
    for agent in range(layout.n_agents):
        if agent in rows:
            chosen = _user_row(layout, agent, given[rows[agent]])
        elif limits != "fo" and preset in layout.presets:
            chosen = _user_row(layout, agent, list(layout.presets[preset][agent]))
        elif limits != "fo" and preset == "paper":
            chosen = _paper_row(layout, agent)
        elif limits != "fo" and preset == "nearer":
            chosen = _nearer_row(layout, agent)
        else:
            chosen = layout.real(agent)
        visible[agent, list(chosen)] = True
        if sizes is not None:
            sizes.append((len(chosen), len(chosen)) if agent in rows else random_sizes(len(chosen)))
    # A mask written for every agent draws nothing, whatever the preset.
    drawn = sizes if len(rows) < layout.n_agents else None
    origin = "user" if rows else "fo" if limits == "fo" else preset
    return ObservationMask(layout, visible, drawn, origin, own_actions, sensor_status)


def read_masks(value: Mapping[Any, Any] | str | None) -> dict[Any, Any]:
    """Read masks as the user gave them.

    Args:
        value: a mapping; the path of a YAML file that holds one; or text such as ``0: [L, A(P)], 1: [V]``, with or
            without braces. On the command line it must be text: Sacred reads a braced dictionary as unknown keys.

    Returns:
        agent -> list of features; empty if the user gave nothing.

    Raises:
        UserError: the file or the text cannot be read, or holds no mapping.
    """
    given = value
    if isinstance(value, str):
        text = value.strip()
        if text.endswith((".yaml", ".yml", ".json")):
            try:
                return _mapping(yaml_text.read(Path(text).expanduser()), given)
            except UserError as error:
                raise UserError(f"masks: {error}") from None
        if text and not text.startswith("{") and "\n" not in text:
            text = "{" + text + "}"
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            raise UserError(f"masks {given!r} cannot be read: {HOW_TO_WRITE}") from error
    return _mapping(value, given)


def joined_masks(layout: FeatureLayout, first: Any, then: Any) -> dict[int, Any]:
    """Return masks in which what ``then`` says of an agent wins over what ``first`` says; agents by their index.

    Args:
        layout: the environment's layout.
        first: masks as `read_masks` takes them.
        then: the same.

    Raises:
        UserError: either cannot be read, or names an agent that is not there.
    """
    both = (read_masks(first), read_masks(then))
    return {_agent_index(layout, key): words for masks in both for key, words in masks.items()}


def _mapping(value: Any, given: Any) -> dict[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError(f"masks {given!r} is no mapping from agents to features: {HOW_TO_WRITE}")
    return dict(value)


def default_widths(layout: FeatureLayout, mask: ObservationMask, limits: str, width: int) -> tuple[int, ...]:
    """Choose the students' hidden widths.

    Args:
        layout: the environment's layout.
        mask: the mask in force.
        limits: "fo" or "lh": `width` for every agent. "lha": 16 to 32 an agent, from the task's preset. Without a
            preset, `battle_widths` chooses for battles and `scaled_widths` for other tasks.
        width: the common width.

    Returns:
        One width an agent.
    """
    if limits != "lha":
        return (width,) * layout.n_agents
    preset = _preset(layout.task).get("widths", {}).get(mask.origin, {})
    if all(name in preset for name in layout.agent_names):
        return tuple(preset[name] for name in layout.agent_names)
    if mask.origin in PRESETS and is_battle(layout):
        return battle_widths(mask)
    return scaled_widths(mask)


def is_battle(layout: FeatureLayout) -> bool:
    """Tell whether the agents' observations have rows of enemies."""
    return all(layout.has_block(agent, "E") for agent in range(layout.n_agents))


def battle_widths(mask: ObservationMask) -> tuple[int, ...]:
    """Choose widths by the blocks that an agent of a battle sees, independent of the map's size.

    16, plus 8 for enemies, because an agent has one action for each of them, plus 8 for more than one block. Where each
    episode draws half of the features, all agents see alike: they get 32, 24, 16 in turn.
    """
    low, high = LHA_WIDTHS
    if mask.draw_per_episode:
        return tuple(high - 8 * (agent % 3) for agent in range(mask.n_agents))
    widths = []
    for agent, layout in enumerate(mask.layout.agents):
        names = set(mask.names(agent))
        seen = [letter for letter in ("O", "A", "E") if names.intersection(layout.blocks.get(letter, ()))]
        widths.append(low + 8 * ("E" in seen) + 8 * (len(seen) > 1))
    return tuple(widths)


def scaled_widths(mask: ObservationMask) -> tuple[int, ...]:
    """Choose widths from 16 to 32 by the number of features an agent sees, in steps of 8.

    All are 24 if all agents see equally many.
    """
    low, high = LHA_WIDTHS
    fewest, most = min(mask.counts), max(mask.counts)
    if fewest == most:
        return ((low + high) // 2,) * mask.n_agents
    # Steps of 8 keep the number of different widths small: agents of equal width are computed together.
    return tuple(low + 8 * round((high - low) / 8 * (n - fewest) / (most - fewest)) for n in mask.counts)


def random_sizes(n_features: int) -> tuple[int, int]:
    """Return the fewest and most features that the preset ``random`` shows of `n_features`."""
    if n_features == PAPER_FEATURES:
        return PAPER_DRAW
    half = math.ceil(n_features / 2)
    return half, half


def tasks_with_presets() -> tuple[str, ...]:
    """List the names of the tasks that have a preset file."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


@lru_cache
def _preset(task: str) -> dict[str, Any]:
    """Read the preset file of a task; empty if there is no such file."""
    if task not in tasks_with_presets():
        return {}
    return yaml.safe_load((FOLDER / f"{task}.yaml").read_text(encoding="utf-8"))


def _paper_row(layout: FeatureLayout, agent: int) -> tuple[int, ...]:
    """Return the features that the paper lets an agent see, as far as they exist; all if none of them exists.

    Features in no block stay visible, since no sensor gives them: the moves of a battle repeat the available actions.
    """
    blocks = [letter for letter in _paper_blocks(layout, agent) if layout.has_block(agent, letter)]
    found = {i for letter in blocks for i in layout.find(agent, letter)}
    return tuple(sorted(found.union(layout.agents[agent].loose))) if found else layout.real(agent)


def _nearer_row(layout: FeatureLayout, agent: int) -> tuple[int, ...]:
    """Return what sensors see that reach one cell less far: all but the outermost ring of cells.

    Raises:
        UserError: the task has no rings of cells, or only the agent's own cell.
    """
    rings = sum(bool(re.fullmatch(r"R\d+", letter)) for letter in layout.agents[agent].blocks)
    if rings < 2:
        has = "sees its own cell only" if rings else "has no rings of cells as the warehouses of rware have"
        raise UserError(
            f"masks_preset=nearer takes the outermost cells from sensors, but {layout.task} {has}: use"
            " masks_preset=random, or give every agent's features in masks"
        )
    hidden = layout.find(agent, f"R{rings - 1}")
    return tuple(i for i in layout.real(agent) if i not in hidden)


def _paper_blocks(layout: FeatureLayout, agent: int) -> Sequence[str]:
    """Return the blocks of an agent's row in the paper, or those of the rule for other battles."""
    name = layout.agent_names[agent]
    # A plain layout may have the name of a known map, but its features are not the map's.
    rows = _preset(layout.task).get("paper") if layout.agents[agent].blocks else None
    if rows is None:
        if is_battle(layout):
            return BATTLE_ROWS[agent % len(BATTLE_ROWS)]
        if layout.presets:
            raise UserError(
                f"{layout.task} has no masks_preset 'paper': use {' or '.join([*layout.presets, 'random'])}"
            )
        raise UserError(
            f"there is no preset 'paper' for {layout.task} (what its features mean is known for"
            f" {', '.join(sorted(KNOWN_LAYOUTS))}, and the maps of SMAX, SMAC, SMACv2 and SMAClite): use"
            " masks_preset=random, or give every agent's features in masks"
        )
    if name not in rows:
        raise UserError(
            f"the preset 'paper' of {layout.task} has no row for agent '{name}' (only for {', '.join(rows)}): use"
            f" masks_preset=random, or name its features in masks"
        )
    return rows[name]


def _user_row(layout: FeatureLayout, agent: int, words: Any) -> tuple[int, ...]:
    """Return the features that the user's words name; `ObservationMask` refuses an empty row."""
    if words is None:
        words = []
    listed = list(words) if isinstance(words, list | tuple) else [words]
    return tuple(sorted({i for word in listed for i in layout.find(agent, word)}))


def _agent_index(layout: FeatureLayout, key: object) -> int:
    """Return the index of the agent that a key of the user's masks names."""
    if isinstance(key, str) and key in layout.agent_names:
        return layout.agent_names.index(key)
    number = int(key) if isinstance(key, str) and key.isdecimal() else key
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < layout.n_agents:
        return number
    hint = nearest(str(key), layout.agent_names)
    raise UserError(f"masks names agent {key!r}, but {layout.task} has agents 0 to {layout.n_agents - 1}; {hint}")
