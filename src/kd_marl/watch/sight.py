"""What an agent is shown of the things around it."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from kd_envs.hetero_mask.layouts import FeatureLayout
from kd_envs.worlds import Shape
from kd_marl.watch.takes import Take

# Nothing of it, a part or all; itself; or it would be shown, but the sensors for it have failed, or it is further away
# now than the agent sees.
Sight = Literal["none", "some", "all", "self", "failed", "far"]


def stem(feature: str) -> str:
    """Return the part of a feature's name that says what it is about: ``E2`` of ``E2.health``."""
    return feature.partition(".")[0]


def sight(take: Take, layout: FeatureLayout, failed: np.ndarray, agent: int, shape: Shape, step: int) -> Sight:
    """Tell how much of a shape an agent is shown at a step.

    Args:
        take: the episode, with worlds.
        layout: names of the features.
        failed: features that are lost at that step, bool ``(agents, obs_size)``.
        agent: whose eyes.
        shape: one of the world's at that step.
        step: of the episode.
    """
    if shape.agent == agent:
        return "self"
    about = [
        index
        for index, name in enumerate(layout.feature_names[agent])
        if name is not None and (name in shape.features or stem(name) in shape.features)
    ]
    if not about:
        return "all"
    lost = np.pad(failed[agent], (0, layout.n_derived))
    told = sum(bool(take.visible[agent, index] and not lost[index]) for index in about)
    if not told:
        return "failed" if any(take.visible[agent, index] for index in about) else "none"
    assert take.worlds is not None, "an episode with worlds"
    me = next((other for other in take.worlds[step].shapes if other.agent == agent), None)
    if me is not None and me.sight and math.hypot(me.x - shape.x, me.y - shape.y) > me.sight:
        return "far"
    return "some" if told < len(about) else "all"
