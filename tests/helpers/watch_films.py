"""Films of simple_spread by hand: takes of a few steps whose every number is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from kd_envs.hetero_mask.known_layouts import layout_for
from kd_envs.hetero_mask.presets import mask_for
from kd_envs.worlds import World, particle_world
from kd_marl.watch.film import Film
from kd_marl.watch.sensors import failed_sensors
from kd_marl.watch.takes import Player, Take

SPREAD = "pz-mpe-simple-spread-v3"
# What a run, a task or an agent might be called by somebody who means harm.
HOSTILE = "</script><script>alert(1)</script><!-- [[JS]] [[FILM]] & ' \" \u2028 <img src=x onerror=alert(1)>"
AGENTS, FEATURES, ACTIONS = 3, 20, 5


def take_of(returned: float, *, actions=None, expert=None, visible=None, worlds=True, messages=None) -> Take:
    """A take whose rewards sum to ``returned``; things stand at step + tenths of their own number."""
    actions = np.array(actions if actions is not None else [[0, 1, 2], [3, 4, 0]])
    expert = actions if expert is None else np.array(expert)
    steps = len(actions)
    eye = np.eye(ACTIONS, dtype=np.float32)
    rewards = np.zeros(steps)
    rewards[0] = returned
    names = [f"agent_{k}" for k in range(AGENTS)]
    at = [[[t + k / 10, t - k / 10] for k in range(6)] for t in range(steps + 1)]
    seen = np.ones((AGENTS, FEATURES), bool) if visible is None else visible
    grey = [(64, 64, 64)] * 3
    return Take(
        worlds=tuple(particle_world(names, where, [0.15] * 3 + [0.05] * 3, grey, None) for where in at)
        if worlds
        else None,
        obs=np.arange((steps + 1) * AGENTS * FEATURES, dtype=np.float32).reshape(steps + 1, AGENTS, FEATURES) / 100,
        visible=seen,
        available=np.ones((steps, AGENTS, ACTIONS), bool),
        deciding=np.ones((steps, AGENTS), bool),
        actions=actions,
        chances=eye[actions],
        teacher_chances=eye[expert],
        values=np.full((steps + 1, AGENTS), 2.5, np.float32),
        rewards=rewards,
        won=None,
        messages=messages,
    )


def world_of(take: Take, step: int) -> World:
    assert take.worlds is not None
    return take.worlds[step]


def film_of(takes, *, task=SPREAD, caption="by hand", notes=(), failed=()) -> Film:
    """A film of a teacher and, for each further list of takes, a student."""
    layout = layout_for(SPREAD, AGENTS, 18)
    args = SimpleNamespace()
    kinds = ["teacher", *["student"] * (len(takes) - 1)]
    players = [
        Player(
            kind, kind.capitalize(), caption, mask_for(layout, "fo" if kind == "teacher" else "lh"), None, args, None
        )
        for kind in kinds
    ]
    return Film(task, "gymma", 1, players, takes, failed_sensors(failed, layout), notes)
