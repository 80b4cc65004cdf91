"""What a final evaluation keeps besides scores: which actions were taken when, and who saw what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from envs.hetero_mask.mask import ObservationMask
from envs.hetero_mask.naming import action_names
from kd_core import files
from kd_learners.batches import Episodes
from kd_learners.losses import acting_mask

ACTIONS_FILE = "actions.safetensors"
# Where the features stand that belong to no block, such as SMAC's move bits.
NO_BLOCK = "other"


def count_actions(episodes: Episodes) -> np.ndarray:
    """How often each agent took each action at each step, over the episodes of a block.

    Only decisions count: steps at which the agent was alive and had at least two actions to choose from.

    Returns:
        int32 ``(time, agents, actions)``.
    """
    avail = episodes.avail_actions[:, :-1]
    decided = acting_mask(episodes.filled.squeeze(-1), avail).long()
    taken = torch.nn.functional.one_hot(episodes.actions, avail.shape[-1])
    return (taken * decided.unsqueeze(-1)).sum(dim=0).cpu().numpy().astype(np.int32)


def total_counts(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of several blocks' counts, which may differ in their number of steps, without unused steps at the end."""
    total = np.zeros((max(len(block) for block in blocks), *blocks[0].shape[1:]), np.int32)
    for block in blocks:
        total[: len(block)] += block
    used = np.flatnonzero(total.any(axis=(1, 2)))
    return total[: used[-1] + 1 if len(used) else 1]


def write_actions(folder: Path, counts: dict[str, np.ndarray]) -> None:
    """Write the counts of each policy as one tensor of its name."""
    files.save_safetensors(folder / ACTIONS_FILE, {name: torch.from_numpy(array) for name, array in counts.items()})


def names_of_actions(args: Any, mask: ObservationMask, n_actions: int) -> list[list[str | None]]:
    """What each agent's actions are called; None for one that an agent never has."""
    return [action_names(args.env, mask.layout.task, name, n_actions) for name in mask.layout.agent_names]


def sight(mask: ObservationMask) -> list[dict[str, Any]]:
    """Who sees what, by block.

    Returns:
        For each agent ``agent`` (its name), ``blocks`` (letter -> how many features it sees and how many there are;
        derived blocks only if seen; ``other`` for features in no block), ``observed`` (how many features it observes,
        the derived ones apart) and ``draw`` (None, or the fewest and most features that an episode shows).
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
