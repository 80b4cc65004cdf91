"""Which actions a policy took when: counts that a final evaluation has besides scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from kd_core import files
from kd_learners.batches import Episodes
from kd_learners.losses import acting_mask

ACTIONS_FILE = "actions.safetensors"


def count_actions(episodes: Episodes) -> np.ndarray:
    """Count how often each agent took each action at each step, over the episodes of a block.

    Only decisions count: steps at which the agent was alive and had at least two actions to choose from.

    Returns:
        int32 ``(time, agents, actions)``.
    """
    avail = episodes.avail_actions[:, :-1]
    decided = acting_mask(episodes.filled.squeeze(-1), avail).long()
    taken = torch.nn.functional.one_hot(episodes.actions, avail.shape[-1])
    return (taken * decided.unsqueeze(-1)).sum(dim=0).cpu().numpy().astype(np.int32)


def total_counts(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Add up the counts of blocks, which may differ in their number of steps, without unused steps at the end."""
    total = np.zeros((max(len(block) for block in blocks), *blocks[0].shape[1:]), np.int32)
    for block in blocks:
        total[: len(block)] += block
    used = np.flatnonzero(total.any(axis=(1, 2)))
    return total[: used[-1] + 1 if len(used) else 1]


def write_actions(folder: Path, counts: dict[str, np.ndarray]) -> None:
    """Write the counts of each policy as one tensor of its name."""
    files.save_safetensors(folder / ACTIONS_FILE, {name: torch.from_numpy(array) for name, array in counts.items()})
